"""The program as a user runs it: its files, its figures, its exit status."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from distill.evaluation.parity import measure_parity
from distill.evaluation.results import EVAL_COLUMNS
from distill.training.training_log import COLUMNS
from kernels.dispatch import chosen_implementations
from lego_response_distill import main
from scene.images import read_image
from settings.loading import REPO_ROOT
from teacher.gaussian_files.ply import read_ply, write_ply
from tests.program import LIVE, MIXED, arguments, csv_rows, setting
from tests.toy_scene import BOTH_SPLITS, FRAMES, QUICKLY, SIZE, add_training_split, write_toy_scene
from tests.triton_device import DEVICE, needs_triton


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A finished run of the toy scene, made by the program itself."""
    few = {"train": QUICKLY, "loss": {"depth": {"weight": 0.1}}, "teacher": {"depth_kind": "auto"}}
    config = write_toy_scene(tmp_path_factory.mktemp("toy"), **few, eval=BOTH_SPLITS)
    command = [sys.executable, REPO_ROOT / "lego_response_distill.py", *arguments(config)]
    return config, subprocess.run(command, capture_output=True, text=True, cwd=config.parent, timeout=180)


def test_a_run_trains_evaluates_and_says_how_good_it_is(trained) -> None:
    config, process = trained
    assert process.returncode == 0, process.stderr
    assert "hash_grid" in process.stderr and "above a blank image" in process.stdout
    results, logs = config.parent / "results/toy/first", config.parent / "logs/toy/first"
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["step_000150.pth"]
    assert json.loads((results / "versions.json").read_text())["torch"] == torch.__version__
    assert "toy" in (results / "config.yaml").read_text()

    log = csv_rows(logs / "training_metrics.csv")
    assert tuple(log[0]) == COLUMNS
    assert [int(row["step"]) for row in log] == list(range(10, 160, 10))
    assert float(log[-1]["loss"]) < 0.3 * float(log[0]["loss"])
    assert float(log[-1]["depth_valid_fraction"]) > 0.01
    assert 1.2 < float(log[-1]["teacher_depth_mean"]) < 2.5  # the cameras are 2 units away
    assert log[-1]["loss_alpha"] == "" and log[-1]["power_w"] == ""

    summary = csv_rows(logs / "eval_step_000150.csv")
    assert tuple(summary[0]) == EVAL_COLUMNS
    assert [(row["split"], row["reference"], row["frames"]) for row in summary] == [
        ("holdout", "teacher", "5"), ("holdout", "ground_truth", "5"), ("train", "teacher", "12"),
        ("train", "ground_truth", "12"), ("all", "teacher", "17"), ("all", "ground_truth", "17"),
    ]  # fmt: skip
    assert float(summary[0]["psnr"]) > float(summary[0]["psnr_blank"]) + 8
    assert len(csv_rows(logs / "eval_step_000150_frames.csv")) == 2 * FRAMES
    assert len(list((results / "eval").glob("step_000150_frame_*.png"))) == FRAMES
    assert read_image(results / "eval/step_000150_frame_00000.png").shape == (SIZE, SIZE, 3)


def test_a_student_far_from_its_teacher_is_told_how_to_train_on(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path, train={"max_steps": 30, "lr": 0.06}, eval={"splits": ["holdout"]})
    assert main(arguments(config)) == 0
    said = capsys.readouterr().out
    assert "Far from its teacher: " in said
    (command,) = re.findall(r"^longer   python lego_response_distill\.py (.+)$", said, re.M)
    assert main([*shlex.split(command), "--dry-run"]) == 0
    assert re.search(r"time .* are left, at most 30 steps", capsys.readouterr().out)


def test_evaluation_alone_gives_the_same_figures_whatever_student_the_config_names(trained, capsys, caplog) -> None:
    config, _ = trained
    path = config.parent / "logs/toy/first/eval_step_000150.csv"
    before = [row["psnr"] for row in csv_rows(path)]
    assert main(arguments(config, "--eval-only", "--set", "student.levels=7")) == 0
    assert [row["psnr"] for row in csv_rows(path)] == before
    assert "step_000150.pth is the student that counts, not the config's: student.levels 7, there 4" in caplog.text
    assert main(arguments(config, "--eval-only", "--checkpoint", "nowhere.pth")) == 2
    assert "nowhere.pth" in capsys.readouterr().err


def test_the_csv_carries_the_tag(trained) -> None:
    config, _ = trained
    assert main(arguments(config, "--eval-only", "--set", "tag=w020", "--set", "eval.splits=[holdout]")) == 0
    summary = csv_rows(config.parent / "logs/toy/first/eval_step_000150_w020.csv")
    assert [row["split"] for row in summary] == ["holdout"] * 2


def test_what_an_evaluation_changes_is_named_and_the_runs_own_figures_stay(trained) -> None:
    config, _ = trained
    logs = config.parent / "logs/toy/first"
    before = (logs / "eval_step_000150.csv").read_bytes()
    of_gaussians = "teacher.kind=gaussians", "teacher.outputs=null", "eval.splits=[holdout]"
    changed = "data.resolution=12", "render.background=[1.0, 0.5, 0.0]", "render.picture_step=0.5"
    assert main(arguments(config, "--eval-only", *(f"--set={each}" for each in (*of_gaussians, *changed)))) == 0
    assert (logs / "eval_step_000150.csv").read_bytes() == before
    (row, *_) = csv_rows(logs / "eval_step_000150_12px_picture-step-0-5_ff8000.csv")
    assert (row["width"], row["background"]) == ("12", "#ff8000")


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path, teacher={"depth_kind": "auto"})
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(config, "--dry-run")) == 0
    plan = capsys.readouterr().out
    assert re.search(r"frames +17 at 24x24: 12 to train on, 5 held out", plan)
    assert re.search(r"depth .*inverse_z", plan)
    assert re.search(r"kernels +numba on cpu", plan)
    assert re.search(rf"rays +{12 * SIZE * SIZE:,} to train on", plan)
    assert re.search(r"precision +float32\n", plan)
    # 17 views of 24x24: 3 bytes of colour, 1 of coverage, 4 of depth. Rays are drawn from the very views.
    assert re.search(r"memory +views 0\.1 MiB; on cpu: for drawing rays 0\.0 MiB, training state", plan)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_says_what_a_run_would_go_on_from_and_what_is_left(trained, capsys, caplog) -> None:
    config, _ = trained
    files = {path: path.stat().st_mtime_ns for path in config.parent.rglob("*")}

    def plan(*more: str, resume: str = "auto", status: int = 0) -> str:
        caplog.clear()
        assert main(arguments(config, "--dry-run", "--resume", resume, *more)) == status
        said = capsys.readouterr()
        return said.out + said.err

    checkpoint = config.parent / "results/toy/first/checkpoints/step_000150.pth"
    over = plan()
    assert re.search(rf"resume +from {re.escape(str(checkpoint))}, at step 150, \d+ s into the run\n", over)
    assert re.search(r"time +nothing is left to train: the run is over at step 150, and is only evaluated\n", over)
    assert re.search(r"time +about \d+ s of training are left, at most 50 steps \(", plan("--max-steps", "200"))
    assert not caplog.records
    assert re.search(r"resume +from nothing: this is the plan of a run that begins", plan("--set", "run=second"))
    assert "there is no checkpoint in" in caplog.text and "will not start" not in caplog.text
    assert re.search(r"resume +from nothing", plan("--set", "student.levels=7"))
    assert "a run will not start: " in caplog.text and "student.levels" in caplog.text
    assert "nowhere.pth: checkpoint: found no such file" in plan(resume="nowhere.pth", status=2)
    assert {path: path.stat().st_mtime_ns for path in config.parent.rglob("*")} == files


def test_what_a_run_refuses_a_dry_run_says_and_still_prints_the_plan(tmp_path, capsys, caplog) -> None:
    config = write_toy_scene(tmp_path)
    ply = tmp_path / "point_cloud.ply"
    gaussians = read_ply(ply)
    write_ply(ply, replace(gaussians, means=0.2 * gaussians.means + 0.4))
    assert main(arguments(config, "--dry-run")) == 0
    assert "a run will not start" in caplog.text and "another world" in caplog.text
    assert re.search(r"frames +17 at 24x24", capsys.readouterr().out)
    assert main(arguments(config)) == 2
    assert "another world" in capsys.readouterr().err and not (tmp_path / "results").exists()


def test_a_dry_run_tells_of_the_compact_file_and_whether_it_can_be(tmp_path, capsys, caplog) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--dry-run", "--set", "compact.target_mib=0.02")) == 0
    assert "compact file  0.02 MiB at most, made in the last 40% of the run" in capsys.readouterr().out
    assert "will not start" not in caplog.text
    assert main(arguments(config, "--dry-run", "--set", "compact.target_mib=0.0001")) == 0
    assert "a run will not start: config: compact.target_mib: found 0.0001" in caplog.text


def test_a_blank_student_is_called_collapsed(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--max-steps", "1")) == 3  # untrained
    assert "COLLAPSED" in capsys.readouterr().out
    assert csv_rows(tmp_path / "logs/toy/first/eval_step_000001.csv")[0]["collapsed"] == "COLLAPSED"


@pytest.mark.parametrize("kind", ["images", "gaussians"])
def test_other_teachers_take_the_same_path(tmp_path, kind: str) -> None:
    config = write_toy_scene(tmp_path, train=QUICKLY)
    more = ["--set", f"teacher.kind={kind}", "--set", "loss.alpha.weight=0.1"]
    more += ["--set", "data.box={lower: [-0.6, -0.6, -0.6], upper: [0.6, 0.6, 0.6]}"]
    assert main(arguments(config, *more)) == 0
    row = csv_rows(tmp_path / "logs/toy/first/eval_step_000150.csv")[0]
    assert float(row["psnr"]) > float(row["psnr_blank"]) + 4
    assert csv_rows(tmp_path / "logs/toy/first/training_metrics.csv")[-1]["loss_alpha"] != ""


@pytest.mark.parametrize("overrides", [LIVE, MIXED], ids=["live", "mixed"])
def test_a_live_teacher_trains_on_new_poses_and_is_measured_on_all_others(tmp_path, overrides) -> None:
    config = write_toy_scene(tmp_path, train=QUICKLY, loss={"depth": {"weight": 0.1}})
    add_training_split(tmp_path)
    assert main(arguments(config, *setting(*overrides))) == 0
    assert not any(thread.name == "live teacher" for thread in threading.enumerate())
    figures = csv_rows(tmp_path / "logs/toy/first/eval_step_000150.csv")
    assert [(row["split"], row["reference"], row["frames"]) for row in figures] == [
        ("holdout", "teacher", "17"), ("holdout", "ground_truth", "17"),
    ]  # fmt: skip
    assert float(figures[0]["psnr"]) > float(figures[0]["psnr_blank"]) + 8
    log = csv_rows(tmp_path / "logs/toy/first/training_metrics.csv")
    views = [int(row["live_views"]) for row in log]
    assert views == sorted(views) and views[0] >= 8 and views[-1] > 50
    assert all(float(row["live_views_per_s"]) >= 0 and float(row["live_starved_s"]) >= 0 for row in log)


def test_fixed_views_leave_the_columns_of_a_live_teacher_empty(trained) -> None:
    config, _ = trained
    last = csv_rows(config.parent / "logs/toy/first/training_metrics.csv")[-1]
    assert last["live_views"] == last["live_views_per_s"] == last["live_starved_s"] == ""


def test_a_dry_run_tells_of_a_live_teacher_and_of_images(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    assert main(arguments(config, "--dry-run", *setting(*MIXED))) == 0
    plan = capsys.readouterr().out
    assert re.search(r"frames +17 at 24x24: to measure on, 17 held out", plan)
    assert re.search(r"live +new views at 24x24 near 12 training poses, rendered in a thread: 8 are kept", plan)
    assert re.search(r"images +12 of transforms_train.json at 24x24 give 33% of the rays\n", plan)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("more", "with_depth"),
    [((), True), (("teacher.live=true",), True), (("teacher.live=true", "data.resolution=12"), False)],
    ids=["fixed", "live", "live, in finer pictures"],
)
def test_a_dry_run_tells_whether_images_come_with_depth(tmp_path, capsys, more, with_depth) -> None:
    config = write_toy_scene(tmp_path)
    both = "teacher.kind=gaussians", "data.ground_truth={split: train, weight: 3}", "data.holdout_every=4"
    assert main(arguments(config, "--dry-run", *setting("teacher.outputs=null", *both, *more))) == 0
    plan = capsys.readouterr().out
    (end,) = re.findall(r"images +\d+ of transforms.*json at \d+x\d+ give 75% of the rays(.*)\n", plan)
    assert end == (", with depth" if with_depth else "")


def test_a_checkpoint_of_another_student_is_not_resumed(trained, capsys) -> None:
    config, _ = trained
    assert main(arguments(config, "--resume", "auto", "--set", "student.levels=7")) == 2
    assert "student.levels" in capsys.readouterr().err


def test_a_checkpoint_knows_its_student(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    kilo = ["--set", "student={kind: kilo_uniform, grid: [2, 2, 2], hidden_width: 16}", "--set", "run=kilo"]
    assert main(arguments(config, *kilo, "--max-steps", "150", *setting("train.lr=0.01", "tag=kilo_uniform"))) == 0
    figures = csv_rows(tmp_path / "logs/toy/kilo/eval_step_000150_kilo_uniform.csv")[0]
    assert float(figures["psnr"]) > float(figures["psnr_blank"]) + 4
    # The config of the evaluation names another student, and needs no section for this one.
    checkpoint = str(tmp_path / "results/toy/kilo/checkpoints/step_000150.pth")
    assert main(arguments(config, "--eval-only", "--checkpoint", checkpoint)) == 0
    assert csv_rows(tmp_path / "logs/toy/first/eval_step_000150.csv")[0]["psnr"] == figures["psnr"]


@needs_triton
def test_triton_renders_the_picture_that_the_waves_render(trained, monkeypatch) -> None:
    # Untimed pictures before the timed one are most of what is rendered here, and nobody looks at them.
    at_once = lambda *given, **named: measure_parity(*given, **{**named, "burn_in": 0})  # noqa: E731
    monkeypatch.setattr("distill.evaluation.student_evaluation.measure_parity", at_once)
    config, _ = trained
    small = setting("data.resolution=6", "data.frames='::8'", "eval.splits=[holdout]", "render.max_samples_per_ray=9")
    small = ["--eval-only", "--device", str(DEVICE), *small]
    assert main(arguments(config, *small, *setting("tag=waves", "render.fused=false"))) == 0
    assert main(arguments(config, *small, *setting("tag=fused", "kernels=triton"))) == 0
    assert chosen_implementations()[f"rendering[{DEVICE.type}]"] == "triton"
    folder = config.parent / "results/toy/first/eval"
    pictures = {tag: sorted(folder.glob(f"step_000150_{tag}_6px_frame_*.png")) for tag in ("waves", "fused")}
    assert len(pictures["waves"]) == len(pictures["fused"]) == 1
    waves, fused = (read_image(*pictures[tag]).astype(int) for tag in ("waves", "fused"))
    assert waves.std() > 20 and abs(fused - waves).max() <= 1


def test_pictures_within_a_budget_are_trained_on(tmp_path, capsys, caplog) -> None:
    caplog.set_level("INFO")
    config = write_toy_scene(tmp_path, train=QUICKLY, teacher={"kind": "images", "outputs": None, "ply": None})
    few = setting("data.memory_gib=2e-5", "data.box={lower: [-0.6, -0.6, -0.6], upper: [0.6, 0.6, 0.6]}")
    assert main(arguments(config, *few, "--dry-run")) == 0
    assert "views 0.0 MiB; on cpu: for drawing rays 0.0 MiB" in capsys.readouterr().out
    assert main(arguments(config, *few)) == 0
    assert "of 12 there were 6 in memory at a time" in caplog.text
    summary = csv_rows(tmp_path / "logs/toy/first/eval_step_000150.csv")
    assert float(summary[0]["psnr"]) > float(summary[0]["psnr_blank"]) + 2
