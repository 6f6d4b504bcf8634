"""The program as a user runs it: its files, its figures, its exit status, its one-line errors."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.config import REPO_ROOT
from distill.evaluation.results import EVAL_COLUMNS
from distill.training_log import COLUMNS
from kernels.dispatch import chosen_implementations
from lego_response_distill import main
from scene.images import read_image, write_image
from tests.toy_scene import FRAMES, SIZE, add_training_split, write_toy_scene
from tests.triton_device import DEVICE, needs_triton

ENTRY = str(REPO_ROOT / "lego_response_distill.py")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def arguments(config: Path, *more: str) -> list[str]:
    return ["--config", str(config), "--assets", str(config.parent), "--output", str(config.parent), *more]


def spawn(config: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, ENTRY, *arguments(config, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished run of the toy scene, made by the program itself."""
    config = write_toy_scene(tmp_path_factory.mktemp("toy"), loss={"depth": {"weight": 0.1}})
    process = spawn(config)
    out, err = process.communicate(timeout=180)
    return config, subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_a_run_trains_evaluates_and_says_how_good_it_is(trained) -> None:
    config, process = trained
    assert process.returncode == 0, process.stderr
    assert "hash_grid" in process.stderr and "above a blank image" in process.stdout
    results, logs = config.parent / "results/toy/first", config.parent / "logs/toy/first"
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["step_000300.pth"]
    assert json.loads((results / "versions.json").read_text())["torch"] == torch.__version__
    assert "toy" in (results / "config.yaml").read_text()

    log = rows(logs / "training_metrics.csv")
    assert tuple(log[0]) == COLUMNS
    assert [int(row["step"]) for row in log] == list(range(10, 310, 10))
    assert float(log[-1]["loss"]) < 0.3 * float(log[0]["loss"])
    assert float(log[-1]["depth_valid_fraction"]) > 0.01
    assert 1.2 < float(log[-1]["teacher_depth_mean"]) < 2.5  # the cameras are 2 units away
    assert log[-1]["loss_alpha"] == "" and log[-1]["power_w"] == ""

    summary = rows(logs / "eval_step_000300.csv")
    assert tuple(summary[0]) == EVAL_COLUMNS
    assert [(row["split"], row["reference"], row["frames"]) for row in summary] == [
        ("holdout", "teacher", "5"), ("holdout", "ground_truth", "5"), ("train", "teacher", "12"),
        ("train", "ground_truth", "12"), ("all", "teacher", "17"), ("all", "ground_truth", "17"),
    ]  # fmt: skip
    assert float(summary[0]["psnr"]) > float(summary[0]["psnr_blank"]) + 8
    assert len(rows(logs / "eval_step_000300_frames.csv")) == 2 * FRAMES
    assert len(list((results / "eval").glob("step_000300_frame_*.png"))) == FRAMES
    assert read_image(results / "eval/step_000300_frame_00000.png").shape == (SIZE, SIZE, 3)


def test_evaluation_alone_gives_the_same_figures_whatever_student_the_config_names(trained, capsys) -> None:
    config, _ = trained
    path = config.parent / "logs/toy/first/eval_step_000300.csv"
    before = [row["psnr"] for row in rows(path)]
    assert main(arguments(config, "--eval-only", "--set", "student.levels=7")) == 0
    assert [row["psnr"] for row in rows(path)] == before
    assert main(arguments(config, "--eval-only", "--checkpoint", "nowhere.pth")) == 2
    assert "nowhere.pth" in capsys.readouterr().err


def test_the_csv_carries_the_tag(trained) -> None:
    config, _ = trained
    assert main(arguments(config, "--eval-only", "--set", "tag=w020", "--set", "eval.splits=[holdout]")) == 0
    assert [row["split"] for row in rows(config.parent / "logs/toy/first/eval_step_000300_w020.csv")] == ["holdout"] * 2


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(config, "--dry-run")) == 0
    plan = capsys.readouterr().out
    assert re.search(r"frames +17 at 24x24: 12 to train on, 5 held out", plan)
    assert re.search(r"depth .*inverse_z", plan)
    assert re.search(r"hash_encoding\[cpu\] numba", plan)
    assert re.search(rf"rays +{12 * SIZE * SIZE:,} to train on", plan)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_blank_student_is_called_collapsed(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    # Rays that begin behind the scene see nothing of it: white pictures, whatever is trained.
    status = main(arguments(config, "--max-steps", "5", "--set", "data.near=50"))
    assert status == 3
    assert "COLLAPSED" in capsys.readouterr().out
    assert rows(tmp_path / "logs/toy/first/eval_step_000005.csv")[0]["collapsed"] == "COLLAPSED"


@pytest.mark.parametrize("kind", ["images", "gaussians"])
def test_other_teachers_take_the_same_path(tmp_path, kind: str) -> None:
    config = write_toy_scene(tmp_path)
    more = ["--set", f"teacher.kind={kind}", "--set", "loss.alpha.weight=0.1"]
    more += ["--set", "data.box={lower: [-0.6, -0.6, -0.6], upper: [0.6, 0.6, 0.6]}"]
    assert main(arguments(config, *more)) == 0
    row = rows(tmp_path / "logs/toy/first/eval_step_000300.csv")[0]
    assert float(row["psnr"]) > float(row["psnr_blank"]) + 4
    assert rows(tmp_path / "logs/toy/first/training_metrics.csv")[-1]["loss_alpha"] != ""


LIVE = ("teacher.kind=gaussians", "teacher.live={buffer: 8, reuse: 1.0}")
MIXED = (*LIVE, "data.ground_truth={split: train, weight: 0.5}")


def setting(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


@pytest.mark.parametrize("overrides", [LIVE, MIXED], ids=["live", "mixed"])
def test_a_live_teacher_trains_on_new_poses_and_is_measured_on_all_others(tmp_path, capsys, overrides) -> None:
    config = write_toy_scene(tmp_path, loss={"depth": {"weight": 0.1}})
    add_training_split(tmp_path)
    assert main(arguments(config, *setting(*overrides))) == 0
    assert not any(thread.name == "live teacher" for thread in threading.enumerate())
    figures = rows(tmp_path / "logs/toy/first/eval_step_000300.csv")
    assert [(row["split"], row["reference"], row["frames"]) for row in figures] == [
        ("holdout", "teacher", "17"), ("holdout", "ground_truth", "17"),
    ]  # fmt: skip
    assert float(figures[0]["psnr"]) > float(figures[0]["psnr_blank"]) + 8
    log = rows(tmp_path / "logs/toy/first/training_metrics.csv")
    views = [int(row["live_views"]) for row in log]
    assert views == sorted(views) and views[0] >= 8 and views[-1] > 50
    assert all(float(row["live_views_per_s"]) >= 0 and float(row["live_starved_s"]) >= 0 for row in log)


def test_fixed_views_leave_the_columns_of_a_live_teacher_empty(trained) -> None:
    config, _ = trained
    last = rows(config.parent / "logs/toy/first/training_metrics.csv")[-1]
    assert last["live_views"] == last["live_views_per_s"] == last["live_starved_s"] == ""


def test_a_dry_run_tells_of_a_live_teacher_and_of_images(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    assert main(arguments(config, "--dry-run", *setting(*MIXED))) == 0
    plan = capsys.readouterr().out
    assert re.search(r"frames +17 at 24x24: to measure on, 17 held out", plan)
    assert re.search(r"live +new views at 24x24 near 12 training poses, rendered in a thread: 8 kept", plan)
    assert re.search(r"images +12 of transforms_train.json at 24x24 give 33% of the rays", plan)
    assert not (tmp_path / "results").exists()


def test_ctrl_c_stops_a_live_teacher_too(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    process = spawn(config, "--max-steps", "100000", *setting(*LIVE))
    log = tmp_path / "logs/toy/first/training_metrics.csv"
    wait_for(lambda: log.exists() and len(rows(log)) > 1, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err, err
    (checkpoint,) = (tmp_path / "results/toy/first/checkpoints").iterdir()
    step = int(checkpoint.stem.removeprefix("step_"))
    assert main(arguments(config, "--resume", "auto", "--max-steps", str(step + 20), *setting(*LIVE))) == 0
    views = [int(row["live_views"]) for row in rows(log)]
    assert views == sorted(views)


def test_ctrl_c_saves_and_resume_goes_on(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    process = spawn(config, "--max-steps", "100000")
    log = tmp_path / "logs/toy/first/training_metrics.csv"
    wait_for(lambda: log.exists() and len(rows(log)) > 1, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err and "--resume auto" in err
    (checkpoint,) = (tmp_path / "results/toy/first/checkpoints").iterdir()
    step = int(checkpoint.stem.removeprefix("step_"))
    assert main(arguments(config, "--resume", "auto", "--max-steps", str(step + 20))) == 0
    steps = [int(row["step"]) for row in rows(log)]
    assert steps == sorted(set(steps)) and steps[-1] == step + 20


def test_a_killed_run_leaves_the_last_checkpoint_and_a_readable_csv(tmp_path) -> None:
    config = write_toy_scene(tmp_path, train={"checkpoint_every": 20})
    process = spawn(config, "--max-steps", "100000")
    checkpoints = tmp_path / "results/toy/first/checkpoints"
    wait_for(lambda: checkpoints.is_dir() and len(list(checkpoints.glob("step_*.pth"))) > 2, process)
    process.kill()
    process.communicate(timeout=60)
    log = rows(tmp_path / "logs/toy/first/training_metrics.csv")
    assert len(log) > 1 and all(float(row["loss"]) > 0 for row in log[:-1])
    assert main(arguments(config, "--eval-only")) == 0


def wait_for(condition, process: subprocess.Popen, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the run did not get there in time"
        time.sleep(0.05)


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
    "negative weight": (lambda root: None, ("loss.depth.weight=-1",), ["loss.depth.weight", "-1"]),
    "table size": (lambda root: None, ("student.table_size=1000",), ["student.table_size", "512", "1024"]),
    "box without the scene": (
        lambda root: None, ("data.box={lower: [5, 5, 5], upper: [6, 6, 6]}",), ["data.box", "100.0%", "lower: [-0.5"],
    ),
    "live teacher of stored renders": (lambda root: None, ("teacher.live=true",), ["teacher.live", "gaussians"]),
    "live teacher without training poses": (
        lambda root: None, LIVE, ["transforms_train.json", "data.train_transforms", "--set"],
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
        lambda root: None, ("data.ground_truth={split: val}",), ["transforms_val.json", "data.ground_truth"],
    ),
    "split without images": (
        lambda root: (add_training_split(root), [path.unlink() for path in (root / "data/train").iterdir()]),
        MIXED,
        ["transforms_train.json"],
    ),
    "output folder is a file": (lambda root: (root / "results").write_text(""), (), ["results"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT, ids=str)
def test_bad_input_is_one_message_and_nothing_written(tmp_path, capsys, case: str) -> None:
    damage, overrides, expected = BAD_INPUT[case]
    config = write_toy_scene(tmp_path)
    damage(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert main(arguments(config, *setting(*overrides))) == 2
    error = capsys.readouterr().err
    message = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in error
    assert all(text in message[0] for text in expected), message[0]
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


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
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--device", "cpu", "--set", "render.fused=true")) == 2
    assert "render.fused: found true, expected auto or false" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@needs_triton
def test_triton_renders_the_picture_that_the_waves_render(trained) -> None:
    config, _ = trained
    small = setting("data.resolution=6", "data.frames='::8'", "eval.splits=[holdout]", "render.max_samples_per_ray=9")
    small = ["--eval-only", "--device", str(DEVICE), *small]
    assert main(arguments(config, *small, *setting("tag=waves", "render.fused=false"))) == 0
    assert main(arguments(config, *small, *setting("tag=fused", "kernels=triton"))) == 0
    assert chosen_implementations()[f"rendering[{DEVICE.type}]"] == "triton"
    folder = config.parent / "results/toy/first/eval"
    pictures = {tag: sorted(folder.glob(f"step_000300_{tag}_frame_*.png")) for tag in ("waves", "fused")}
    assert len(pictures["waves"]) == len(pictures["fused"]) == 1
    waves, fused = (read_image(*pictures[tag]).astype(int) for tag in ("waves", "fused"))
    assert waves.std() > 20 and abs(fused - waves).max() <= 1


def test_a_checkpoint_of_another_student_is_not_resumed(trained, capsys) -> None:
    config, _ = trained
    assert main(arguments(config, "--resume", "auto", "--set", "student.levels=7")) == 2
    assert "student.levels" in capsys.readouterr().err


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
    assert not (tmp_path / "owned").exists()


def test_debug_shows_the_traceback(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    with pytest.raises(Exception, match="no such file"):
        main(arguments(config, "--eval-only", "--checkpoint", "nowhere.pth", "--debug"))


def test_kilo_uniform_with_an_assistant_in_one_command(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    kilo = ["--set", "student={kind: kilo_uniform, grid: [2, 2, 2], hidden_width: 16}", "--set", "run=kilo"]
    more = [*kilo, "--set", "train.assistant=auto", "--set", "train.lr=0.01", "--set", "tag=kilo_uniform"]
    assert main(arguments(config, *more)) == 0
    figures = tmp_path / "logs/toy/kilo/eval_step_000300_kilo_uniform.csv"
    psnr = float(rows(figures)[0]["psnr"])
    assert psnr > float(rows(figures)[0]["psnr_blank"]) + 4
    points = rows(tmp_path / "logs/toy/kilo/pointwise_metrics.csv")
    assert float(points[-1]["loss_alpha"]) < float(points[0]["loss_alpha"])
    (assistant,) = (tmp_path / "results/toy/kilo_assistant/checkpoints").iterdir()

    # A checkpoint knows its student: the config of the evaluation needs no section for it.
    checkpoint = str(tmp_path / "results/toy/kilo/checkpoints/step_000300.pth")
    assert main(arguments(config, "--eval-only", "--checkpoint", checkpoint)) == 0
    assert float(rows(tmp_path / "logs/toy/first/eval_step_000300.csv")[0]["psnr"]) == psnr

    # The same with the checkpoint as the assistant; one of another box is refused before anything is written.
    named = [*kilo, "--set", f"train.assistant={assistant}", "--max-steps", "20"]
    assert main(arguments(config, *named)) in (0, 3)
    elsewhere = ["--set", "data.box={lower: [-1, -1, -1], upper: [1, 1, 1]}", "--set", "run=other"]
    capsys.readouterr()
    assert main(arguments(config, *named, *elsewhere)) == 2
    assert "scene box" in capsys.readouterr().err
    assert not (tmp_path / "results/toy/other").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("grid: [0, 2, 2]", ["grid"]), ("grid: [512, 512, 512]", ["grid", "GiB"]), ("hidden_width: 24", ["hidden_width"])],
)
def test_kilo_uniform_of_no_size_or_an_absurd_one(tmp_path, capsys, setting: str, expected: list[str]) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--set", f"student={{kind: kilo_uniform, {setting}}}")) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in expected) and not (tmp_path / "results").exists()
