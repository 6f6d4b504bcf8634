"""The program's one-line errors: what is wrong, where, and nothing written."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.runs.command_line import run_command
from lego_response_distill import main
from scene.images import write_image
from tests.program import LIVE, MIXED, arguments, setting
from tests.toy_scene import SIZE, add_training_split, write_toy_scene


def damage_render(root: Path) -> None:
    path = root / "outputs/renders/00003.png"
    path.write_bytes(path.read_bytes()[:100])


def damage_ply(root: Path) -> None:
    path = root / "point_cloud.ply"
    path.write_bytes(path.read_bytes()[:-100])


def nan_depth(root: Path) -> None:
    depth = np.load(root / "outputs/depth/00002.npy")
    depth[3, 4] = np.nan
    np.save(root / "outputs/depth/00002.npy", depth)


def negative_depth(root: Path) -> None:
    np.save(root / "outputs/depth/00002.npy", np.full((SIZE, SIZE), -1, np.float32))


def edit_json(change):
    def edit(root: Path) -> None:
        path = root / "data/transforms.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


BAD_INPUT = {
    "missing render": (lambda root: (root / "outputs/renders/00016.png").unlink(), (), ["outputs/renders", "16", "17"]),
    "truncated render": (damage_render, (), ["00003.png"]),
    "render of another size": (
        lambda root: write_image(root / "outputs/renders/00004.png", np.zeros((9, 9, 3))),
        (),
        ["00004.png", "9"],
    ),
    "truncated depth": (
        lambda root: (root / "outputs/depth/00001.npy").write_bytes(b"\x93NUMPY"), (), ["00001.npy"],
    ),
    "not finite depth": (nan_depth, (), ["00002.npy"]),
    "negative depth": (negative_depth, (), ["00002.npy"]),
    "depth of another size": (
        lambda root: np.save(root / "outputs/depth/00005.npy", np.ones((5, 5), np.float32)), (), ["00005.npy", "5"],
    ),
    "unknown depth kind": (lambda root: None, ("teacher.depth_kind=metres",), ["depth_kind", "metres", "inverse_z"]),
    "missing JSON": (lambda root: (root / "data/transforms.json").unlink(), (), ["transforms.json"]),
    "broken JSON": (lambda root: (root / "data/transforms.json").write_text("{"), (), ["transforms.json"]),
    "no frames": (edit_json(lambda data: data.update(frames=[])), (), ["transforms.json", "frames"]),
    "fewer frames than renders": (edit_json(lambda data: data["frames"].pop()), (), ["16", "17"]),
    "pose that is not rigid": (
        edit_json(lambda data: data["frames"][2]["transform_matrix"][0].__setitem__(0, 7.0)),
        (),
        ["transforms.json", "2", "rigid"],
    ),
    "truncated PLY": (damage_ply, (), ["point_cloud.ply"]),
    "missing PLY": (lambda root: (root / "point_cloud.ply").unlink(), (), ["point_cloud.ply", "teacher.ply=null"]),
    "unknown key": (lambda root: None, ("train.learning_rate=1",), ["--set", "learning_rate", "lr"]),
    "wrong type": (lambda root: None, ("train.max_steps=soon",), ["--set", "train.max_steps", "soon"]),
    "no loss": (lambda root: None, ("loss.rgb.weight=0",), ["loss.rgb.weight: found 0", "another loss"]),
    "file too small": (lambda root: None, ("compact.target_mib=0.0001",), ["compact.target_mib: found 0.0001"]),
    "negative weight": (lambda root: None, ("loss.depth.weight=-1",), ["loss.depth.weight", "-1"]),
    "table size": (lambda root: None, ("student.table_size=1000",), ["student.table_size", "512", "1024"]),
    "box without the scene": (
        lambda root: None, ("data.box={lower: [5, 5, 5], upper: [6, 6, 6]}",), ["data.box", "100.0%", "lower: [-0.5"],
    ),
    "live teacher of stored renders": (lambda root: None, ("teacher.live=true",), ["teacher.live", "gaussians"]),
    "live teacher without training poses": (
        lambda root: None, (*LIVE, "data.train_transforms=t.json"), ["t.json", "data.train_transforms", "--set"],
    ),
    "live teacher of the measured poses": (
        lambda root: None, (*LIVE, "data.train_transforms=data/transforms.json"), ["train_transforms", "held out"],
    ),
    "ring of one view": (
        add_training_split, ("teacher.kind=gaussians", "teacher.live.buffer=1"), ["teacher.live.buffer", ">= 2"],
    ),
    "weight of images": (
        add_training_split, ("data.ground_truth={split: train, weight: 0}",), ["data.ground_truth.weight", "> 0"],
    ),
    "split that is not there": (
        lambda root: None, ("data.ground_truth={split: val}",), ["data.ground_truth.split", "val", "no splits apart"],
    ),
    "split without images": (
        lambda root: (add_training_split(root), [path.unlink() for path in (root / "data/train").iterdir()]),
        MIXED,
        ["transforms_train.json"],
    ),
    "transforms is a folder of something else": (
        lambda root: None, ("data.transforms=outputs",), ["outputs: dataset: found depth, renders, expected cameras"],
    ),
    "output folder is a file": (lambda root: (root / "results").write_text(""), (), ["results"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT, ids=str)
def test_bad_input_is_one_message_and_nothing_written(tmp_path, capsys, case: str) -> None:
    damage, overrides, expected = BAD_INPUT[case]
    config = write_toy_scene(tmp_path, teacher={"depth_kind": "auto"})
    damage(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert main(arguments(config, *setting(*overrides))) == 2
    error = capsys.readouterr().err
    message = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in error
    assert all(text in message[0] for text in expected), message[0]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_paths_that_options_give(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for option in ("--output", "--assets", "--config", "--checkpoint"):
        with pytest.raises(SystemExit, match="2"):
            main(arguments(config, "--eval-only", option, ""))
        assert f"argument {option}: found nothing, expected a path" in capsys.readouterr().err
    for option, field in (("--output", "output folder"), ("--resume", "checkpoint"), ("--config", "file")):
        assert main(arguments(config, option, "x" * 256)) == 2
        assert f"{'x' * 256}" in (error := capsys.readouterr().err) and f": {field}: found" in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_too_long_that_nothing_foresaw_is_bad_input_too(tmp_path, capsys) -> None:
    assert run_command(lambda: len((tmp_path / ("x" * 256)).read_bytes()), debug=False) == 2
    assert "xxx: File name too long. Choose a shorter one." in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--device", "cuda:1")) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_triton_on_a_cpu_is_for_tests(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--device", "cpu", "--set", "kernels=triton")) == 2
    assert "kernels: found triton on cpu, expected auto or torch" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_fused_renderer_where_it_cannot_run(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    config = write_toy_scene(tmp_path)
    chosen = "kernels=triton", "render.fused=true", "student.hidden_width=128"
    assert main(arguments(config, *(part for each in chosen for part in ("--set", each)))) == 2
    error = capsys.readouterr().err
    assert "render.fused: found true, expected auto or false. The fused renderer cannot run: it takes layers" in error
    assert not (tmp_path / "results").exists()


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    torch.save({"step": _Malicious(tmp_path / "owned")}, tmp_path / "bad.pth")
    assert main(arguments(config, "--eval-only", "--checkpoint", str(tmp_path / "bad.pth"))) == 2
    assert "bad.pth" in capsys.readouterr().err
    assert main(arguments(config, "--eval-only", "--checkpoint", str(config))) == 2
    assert "toy.yaml: checkpoint: found a text file, expected a whole checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_debug_shows_the_traceback(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    with pytest.raises(Exception, match="no such file"):
        main(arguments(config, "--eval-only", "--checkpoint", "nowhere.pth", "--debug"))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("grid: [0, 2, 2]", ["grid"]), ("grid: [512, 512, 512]", ["grid", "GiB"]), ("hidden_width: 24", ["hidden_width"])],
)
def test_kilo_uniform_of_no_size_or_an_absurd_one(tmp_path, capsys, setting: str, expected: list[str]) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--set", f"student={{kind: kilo_uniform, {setting}}}")) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in expected) and not (tmp_path / "results").exists()


def test_debug_tells_what_is_logged_for_it_alone():
    seen = []
    for debug in (True, False):
        run_command(lambda: seen.append(logging.getLogger("distill.training").isEnabledFor(logging.DEBUG)) or 0, debug)
    assert seen == [True, False]


def test_what_libraries_say_of_themselves_is_not_told():
    seen = []
    for library in ("numba.core", "matplotlib.font_manager"):
        run_command(lambda name=library: seen.append(logging.getLogger(name).isEnabledFor(logging.INFO)) or 0, False)
    assert seen == [False, False]
