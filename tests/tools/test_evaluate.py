"""The evaluation tool as a user runs it, on a run of the toy scene."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.model.checkpoint import load_checkpoint, save_checkpoint
from lego_response_distill import main as train
from scene.images import read_image
from settings.yaml_text import dump_yaml, parse_yaml
from tests.program import arguments, csv_rows
from tests.toy_scene import BOTH_SPLITS, FRAMES, QUICKLY, SIZE, write_toy_scene
from tools.evaluate import main

STEP = "000100"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A root with a run of a teacher with alpha and depth."""
    root = tmp_path_factory.mktemp("evaluate")
    config = write_toy_scene(root, teacher={"kind": "gaussians"}, train=QUICKLY | {"max_steps": 100}, eval=BOTH_SPLITS)
    assert train(arguments(config)) == 0
    return root


@pytest.fixture
def root(trained, tmp_path) -> Path:
    """A copy of that root, elsewhere."""
    shutil.copytree(trained, tmp_path / "root")
    return tmp_path / "root"


def run_of(root: Path) -> Path:
    return root / "results/toy/first"


def test_one_command_from_a_run_folder_to_figures(root, caplog, capsys) -> None:
    options = [str(run_of(root)), "--assets", str(root), "--rgba", "--depth", "--burn-in", "1"]
    assert main(options) == 0
    said = capsys.readouterr().out
    assert "above a blank image" in said and "student |" in said and "frames/s, median" in said
    logs, frames = root / "logs/toy/first", run_of(root) / f"eval/step_{STEP}"
    summary = csv_rows(logs / f"eval_step_{STEP}.csv")
    assert [row["split"] for row in summary] == ["holdout"] * 2 + ["train"] * 2 + ["all"] * 2
    assert 0 < float(summary[0]["depth_abs"]) < 2 and 0 < float(summary[0]["alpha_iou"]) <= 1
    assert summary[0]["flicker"] == ""  # the cameras are 21 degrees apart
    assert len(csv_rows(logs / f"eval_step_{STEP}_frames.csv")) == 2 * FRAMES
    parity = csv_rows(logs / f"eval_step_{STEP}_parity.csv")
    assert float(parity[2]["fps_median"]) > 0 and int(parity[1]["parameters"]) == 729 * 14
    for kind, ending in (("renders", "png"), ("rgba", "png"), ("depth", "npy")):
        names = sorted(path.name for path in (frames / kind).iterdir())
        assert names == [f"{index:05d}.{ending}" for index in range(FRAMES)]
    assert read_image(frames / "renders/00003.png").shape == (SIZE, SIZE, 3)
    assert read_image(frames / "rgba/00003.png").shape == (SIZE, SIZE, 4)
    depth = np.load(frames / "depth/00003.npy")
    assert depth.dtype == np.float32 and 1.2 < np.median(depth[depth > 0]) < 2.5  # the cameras are 2 units away

    before = {path: path.read_bytes() for path in logs.glob("eval_*.csv")}
    caplog.set_level("INFO")
    assert main(options) == 0
    assert {path: path.read_bytes() for path in logs.glob("eval_*.csv")} == before
    assert f"{FRAMES} of {FRAMES} frames have been measured already" in caplog.text


def test_training_and_evaluation_alone_give_the_tool_s_columns_and_figures(root) -> None:
    logs = root / "logs/toy/first"
    trained = csv_rows(logs / f"eval_step_{STEP}.csv")
    assert main([str(run_of(root)), "--assets", str(root), "--output", str(root / "again")]) == 0
    evaluated = csv_rows(root / f"again/logs/toy/first/eval_step_{STEP}.csv")
    assert list(trained[0]) == list(evaluated[0])
    assert [{**row, "avg_fps": ""} for row in trained] == [{**row, "avg_fps": ""} for row in evaluated]
    assert (logs / f"eval_step_{STEP}_parity.csv").is_file()


def test_resolution_and_backgrounds_are_evaluations_of_their_own(root) -> None:
    logs = root / "logs/toy/first"
    before = (logs / f"eval_step_{STEP}.csv").read_bytes()
    more = ["--resolution", "12", "--background", "both", "--split", "holdout", "--reference", "teacher"]
    assert main([str(run_of(root)), "--assets", str(root), *more]) == 0
    assert (logs / f"eval_step_{STEP}.csv").read_bytes() == before
    for tag, background in (("12px", "white"), ("12px_black", "black")):
        (row,) = csv_rows(logs / f"eval_step_{STEP}_{tag}.csv")
        assert (row["background"], row["width"], row["split"], row["reference"]) == (
            background, "12", "holdout", "teacher",
        )  # fmt: skip
        renders = sorted((run_of(root) / f"eval/step_{STEP}_{tag}/renders").iterdir())
        assert [path.name for path in renders] == [f"{index:05d}.png" for index in range(0, FRAMES, 4)]
        assert read_image(renders[0])[0, 0].tolist() == [255 if background == "white" else 0] * 3


def test_pictures_of_the_datasets_own_size(root) -> None:
    checkpoint = run_of(root) / f"checkpoints/step_{STEP}.pth"
    state = load_checkpoint(checkpoint, "cpu")
    trained_on = parse_yaml(state["config"], checkpoint)
    trained_on["data"]["resolution"] = 12
    save_checkpoint(checkpoint, {**state, "config": dump_yaml(trained_on)})
    more = ["--set", "data.resolution=null", "--split", "holdout", "--lpips", "none", "--reference", "teacher"]
    assert main([str(run_of(root)), "--assets", str(root), *more]) == 0
    (row,) = csv_rows(root / f"logs/toy/first/eval_step_{STEP}_native.csv")
    assert row["width"] == "24"


def test_a_smaller_picture_has_as_many_rays_across_it_as_in_training(root) -> None:
    more = ["--assets", str(root), "--resolution", "8", "--split", "holdout", "--lpips", "none"]
    for options, word, drawn in (([], "", "24x24"), (["--set", "render.supersample=1"], "_supersample-1", "")):
        assert main([str(run_of(root)), *more, *options, "--fresh"]) == 0
        teacher = csv_rows(root / f"logs/toy/first/eval_step_{STEP}_8px{word}_parity.csv")[1]
        assert teacher["width"] == "8" and teacher["source"].partition(", timed at ")[2] == drawn
    config, logs = next(root.glob("*.yaml")), root / "logs/toy/first"
    changed = ("--set", "data.resolution=8", "--set", "tag=run", "--set", "eval.splits=[holdout]")
    assert train(arguments(config, "--eval-only", *changed)) == 0
    tool, run = (csv_rows(logs / f"eval_step_{STEP}_{tag}.csv")[0] for tag in ("8px", "run_8px"))
    assert tool["psnr"] == run["psnr"] != ""


def test_a_teacher_of_unknown_fitted_width_is_drawn_as_in_training_at_any_resolution(tmp_path) -> None:
    """At its own few pixels the same Gaussians would be fatter, and the student worse for nothing it did."""
    bricks = {"kind": "bricks", "frames": 8, "supersample": 2, "outputs": None, "ply": None}
    brief, small = QUICKLY | {"max_steps": 30}, {"transforms": None, "resolution": 32}
    config = write_toy_scene(tmp_path, teacher=bricks, data=small, train=brief)
    shared = ["--config", str(config), "--output", str(tmp_path)]
    assert train(shared) in (0, 3)
    more = ["--resolution", "16", "--split", "holdout", "--lpips", "none"]
    assert main([str(run_of(tmp_path)), *more]) in (0, 3)
    assert main([str(run_of(tmp_path)), *more, "--set", "teacher.supersample=4", "--set", "tag=by_hand"]) in (0, 3)
    alone = ["--set", "data.resolution=16", "--set", "render.supersample=4", "--set", "tag=alone"]
    assert train([*shared, "--eval-only", *alone]) in (0, 3)
    logs = tmp_path / "logs/toy/first"
    tags = ("16px", "by_hand_16px", "alone_16px")
    assert len({csv_rows(logs / f"eval_step_000030_{tag}.csv")[0]["psnr"] for tag in tags}) == 1


def test_a_teacher_of_gaussians_is_drawn_larger_than_the_images_and_has_no_ground_truth_there(root, caplog) -> None:
    more = ["--assets", str(root), "--resolution", "48", "--split", "holdout", "--lpips", "none"]
    assert main([str(run_of(root)), *more]) == 0
    (row,) = csv_rows(root / f"logs/toy/first/eval_step_{STEP}_48px.csv")
    assert (row["width"], row["reference"]) == ("48", "teacher") and float(row["psnr"]) > 0
    assert "no ground truth: its images are 24 pixels wide, and 48 are asked for" in caplog.text


def test_several_at_once_and_a_run_that_was_renamed(root) -> None:
    shutil.copytree(run_of(root), root / "results/toy/second")
    checkpoint = run_of(root) / f"checkpoints/step_{STEP}.pth"
    more = ["--assets", str(root), "--split", "holdout", "--output", str(root / "out"), "--lpips", "none"]
    assert main([str(checkpoint), str(root / "results/toy/second"), *more]) == 0
    figures = [csv_rows(root / f"out/logs/toy/{run}/eval_step_{STEP}.csv") for run in ("first", "second")]
    assert figures[0][0]["psnr"] == figures[1][0]["psnr"] != ""


def test_a_config_of_one_s_own(root) -> None:
    more = ["--config", str(root / "toy.yaml"), "--set", "run=mine", "--assets", str(root), "--output", str(root)]
    assert main([str(run_of(root)), *more, "--split", "train"]) == 0
    assert {row["split"] for row in csv_rows(root / f"logs/toy/mine/eval_step_{STEP}.csv")} == {"train"}


BAD_INPUT = {
    "missing checkpoint": (["nowhere.pth"], ["nowhere.pth", "no such file"]),
    "folder without checkpoints": (["empty"], ["empty", "no checkpoint", "checkpoints/step_"]),
    "a file that is no checkpoint": (["toy.yaml"], ["toy.yaml", "checkpoint"]),
    "resolution above the stored renders": (
        ["RUN", "--resolution", "48", "--set", "teacher.kind=views", "--set", "teacher.outputs=outputs"],
        ["found a width of 24 pixels, expected at least --resolution 48. Lower --resolution."],
    ),
    "ground truth above the images": (
        ["RUN", "--resolution", "48", "--reference", "ground_truth"],
        ["eval.reference", "no smaller than --resolution", "teacher or both"],
    ),
    "resolution of nothing": (["RUN", "--resolution", "0"], ["data.resolution", "0"]),
    "reference that is not there": (
        ["RUN", "--reference", "ground_truth", "--set", "data.ground_truth=false"], ["ground_truth"],
    ),
    "unknown network": (["RUN", "--lpips", "vgg,squeeze"], ["--lpips", "vgg,squeeze", "alex"]),
    "network named twice": (["RUN", "--lpips", "vgg,vgg"], ["--lpips", "vgg,vgg"]),
    "background without alpha": (
        ["RUN", "--background", "both", "--set", "teacher.kind=views", "--set", "teacher.outputs=outputs"],
        ["--background: colour: found black, and", "without alpha, on white", "--set teacher.kind=gaussians draws"],
    ),
    "two of one name": (["RUN", "RUN"], ["a CSV of its own", "--set tag="]),
    "burn-in": (["RUN", "--burn-in", "-1"], ["--burn-in", "-1"]),
    "missing asset": (["RUN", "--set", "teacher.ply=gone.ply"], ["gone.ply", "teacher.ply"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT, ids=str)
def test_bad_input_is_one_message_and_nothing_written(root, capsys, monkeypatch, case: str) -> None:
    given, expected = BAD_INPUT[case]
    (root / "empty").mkdir()
    monkeypatch.chdir(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    words = [str(run_of(root)) if word == "RUN" else word for word in given]
    assert main([*words, "--assets", str(root)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and all(text in error[0] for text in expected), error
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_checkpoint_whose_config_is_damaged(root, capsys) -> None:
    path = run_of(root) / f"checkpoints/step_{STEP}.pth"
    state = torch.load(path, weights_only=True)
    for config in ("scene: [", "- 1", "scene: toy", None):
        torch.save({**state, "config": config}, path)
        assert main([str(path), "--assets", str(root)]) == 2
        assert path.name in capsys.readouterr().err
