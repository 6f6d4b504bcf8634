"""Fitting a teacher as a user does: pictures in, a PLY out that the program reads as a teacher."""

from __future__ import annotations

import argparse
import json
import re
import shlex

import numpy as np
import pytest
import torch

from distill.runs import fit_teacher as fitting
from distill.runs.command_line import add_config_options, config_of
from lego_response_distill import main as distil
from scene.cameras import Cameras
from scene.formats.transforms_json import write_transforms
from scene.images import read_image, write_image
from scene.rays import SceneBox
from settings.loading import load_config
from teacher.fitting.fit import COLUMNS, scene_extent
from teacher.gaussian_files.ply import read_ply
from teacher.rasterizer import Rasterizer
from teacher.sources import load_teacher
from tests.program import arguments, csv_rows
from tests.toy_scene import BOTH_SPLITS, SIZE, block_of_gaussians, ring_of_cameras, write_toy_scene
from tools.train_teacher import main

SETTINGS = {
    "teacher": {"kind": "images", "outputs": None, "ply": None},
    "data": {"box": {"lower": [-0.6, -0.6, -0.6], "upper": [0.6, 0.6, 0.6]}},
    "fitting": {
        **{"max_steps": 240, "initial_gaussians": 600, "max_gaussians": 900, "log_every": 40},
        **{"grow_from": 60, "grow_every": 60, "checkpoint_every": 100},
    },
    "eval": {"lpips": False, "reference": "ground_truth"},
}


@pytest.mark.parametrize(("named", "status"), [("cpu", 0), ("gsplat", 2)])
def test_a_fit_is_measured_by_the_rasterizer_that_the_config_names(tmp_path, monkeypatch, capsys, named, status):
    drawn_by, brief = [], SETTINGS["fitting"] | {"max_steps": 3, "checkpoint_every": None}

    def noted(gaussians, implementation, **options):
        drawn_by.append(implementation)
        return Rasterizer(gaussians, implementation, **options)

    monkeypatch.setattr("distill.runs.fit_teacher.Rasterizer", noted)
    config = write_toy_scene(tmp_path, **SETTINGS | {"fitting": brief})
    more = ("--set", f"teacher.rasterizer={named}", "--device", "cpu")
    assert main(arguments(config, *more)) in ((0, 3) if status == 0 else (status,))
    assert drawn_by == ([named] if status == 0 else [])
    assert status == 0 or ("gsplat" in capsys.readouterr().err and not (tmp_path / "results").exists())


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys, caplog):
    config = write_toy_scene(tmp_path, **SETTINGS)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(config, "--dry-run", "--resume", "--max-steps", "7")) == 0
    plan = capsys.readouterr().out
    assert re.search(r"frames +12 to fit at 24x24, 5 held out\n", plan)
    assert re.search(r"Gaussians +\d+ to start with, 900 at most\n", plan)
    assert re.search(r"resume +from nothing: it begins anew\n", plan) and "fit_latest.pth" in caplog.text
    assert re.search(r"time +at most 7 steps, evaluation besides\n", plan)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fit_shows_frames_that_it_has_not_seen_and_is_a_students_teacher(tmp_path, caplog):
    caplog.set_level("INFO")
    config = write_toy_scene(tmp_path, **SETTINGS | {"eval": SETTINGS["eval"] | BOTH_SPLITS})
    assert main(arguments(config)) == 0
    started = re.search(r"12 pictures of 24x24, (\d+) Gaussians to start with, 900 at most", caplog.text)
    assert 300 < int(started[1]) <= 600
    results, logs = tmp_path / "results/toy/first", tmp_path / "logs/toy/first"
    gaussians = read_ply(results / "point_cloud/iteration_240/point_cloud.ply")
    assert 100 < len(gaussians) <= 900 and gaussians.sh_degree == 3
    log = csv_rows(logs / "fitting_metrics.csv")
    assert tuple(log[0]) == COLUMNS
    assert [int(row["step"]) for row in log] == list(range(40, 280, 40))
    assert float(log[-1]["loss"]) < 0.5 * float(log[0]["loss"])
    summary = {row["split"]: row for row in csv_rows(logs / "eval_step_000240.csv")}
    assert set(summary) == {"holdout", "train", "all"}
    assert float(summary["holdout"]["psnr"]) > float(summary["holdout"]["psnr_blank"]) + 10
    ply = results / "point_cloud/iteration_240/point_cloud.ply"
    overrides = ["teacher.kind=gaussians", f"teacher.ply={ply}", "run=student", "data.box=auto"]
    assert load_config(config, overrides, tmp_path).teacher.ply == ply


@pytest.fixture
def capture(tmp_path):
    """The toy scene before a coloured wall, as nerfstudio has a capture: pictures of two sizes, a mask, points."""
    folder = write_toy_scene(tmp_path / "toy").parent
    cameras = ring_of_cameras()
    names = [f"r_{index}" for index in range(len(cameras))]
    write_transforms(folder / "transforms.json", cameras, names)
    content = json.loads((folder / "transforms.json").read_text())
    wall = np.linspace(20, 230, SIZE * SIZE * 3).reshape(SIZE, SIZE, 3)
    for index, (name, frame) in enumerate(zip(names, content["frames"], strict=True)):
        picture = read_image(folder / "data" / f"{name}.png")
        alpha = picture[..., 3:] / 255
        photograph = (picture[..., :3] * alpha + (1 - alpha) * wall).astype(np.uint8)
        height = SIZE - 4 * (index % 2)
        write_image(folder / f"{name}.png", photograph[:height])
        frame |= {"w": SIZE, "h": height}
    write_image(folder / "mask.png", np.repeat([[0], [255]], SIZE // 2, axis=0).repeat(SIZE, 1).astype(np.uint8))
    content["frames"][2]["mask_path"] = "mask.png"
    points = block_of_gaussians()[::3]
    rows = [" ".join(map(str, [*place, 200, 90, 30])) for place in points.means.tolist()]
    properties = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {c}" for c in ("red", "green", "blue")
    ]
    head = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *properties, "end_header"]
    (folder / "sparse_pc.ply").write_text("\n".join([*head, *rows]) + "\n")
    (folder / "transforms.json").write_text(json.dumps(content | {"ply_file_path": "sparse_pc.ply"}))
    return folder


def test_a_capture_in_one_line_and_its_student_in_another(capture, tmp_path, caplog, capsys):
    caplog.set_level("INFO")
    brief = [f"--set=fitting.{each}" for each in ("max_steps=40", "max_seconds=null", "grow_from=10", "grow_every=10")]
    options = ["--source", str(capture), "--output", str(tmp_path), *brief, "--set", "eval.lpips=false"]
    assert main(options) in (0, 3)  # the wall stands in the picture, not in the world: nothing can learn it
    assert "the fit starts at 243 sparse points of the dataset" in caplog.text
    assert "14 pictures of 24x24, 243 Gaussians to start with" in caplog.text
    results = tmp_path / "results/toy/teacher"
    assert f"--model {results}" in capsys.readouterr().out
    summary = csv_rows(tmp_path / "logs/toy/teacher/eval_step_000040.csv")[0]
    assert summary["split"] == "holdout" and summary["frames"] == "3"
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    config = config_of(parser.parse_args(["--model", str(results)]))
    assert (config.scene, config.run, config.teacher.kind) == ("toy", "student", "gaussians")
    assert config.data.transforms == capture and config.data.resolution == 24
    pictures = {index: read_image(capture / f"r_{index}.png") for index in range(17) if index % 8}
    pictures[2] = pictures[2][SIZE // 2 :]  # what the mask leaves
    mean = np.concatenate([picture[..., :3].reshape(-1, 3) for picture in pictures.values()]).mean(0) / 255
    assert config.render.background == config.teacher.background
    assert np.allclose(config.teacher.background, mean, atol=6e-4)
    views = load_teacher(config).views
    assert views.ground_truth is not None and views.holdout.tolist() == [i % 8 == 0 for i in range(17)]
    own = config_of(parser.parse_args(["--model", str(results), "--config", str(capture / "toy.yaml")]))
    assert own.run == "first" and own.teacher.ply == config.teacher.ply and own.data.transforms == capture


@pytest.mark.parametrize("is_folder", [True, False])
def test_who_distils_photographs_alone_is_told_of_a_teacher(capture, tmp_path, caplog, is_folder):
    caplog.set_level("INFO")
    small = ("table_size=1024", "levels=2", "finest_resolution=16", "planes=[]", "hidden_width=16")
    options = [*(f"--set=student.{each}" for each in small), "--set=occupancy.resolution=16", "--set=eval.lpips=false"]
    given = ["--source", str(capture)]
    if not is_folder:  # --source takes no file
        path, own = tmp_path / "own.yaml", f"{{transforms: {capture}/transforms.json, resolution: {SIZE}}}"
        path.write_text(
            f"scene: toy\nrun: own\nteacher: {{kind: images}}\ndata: {own}\nloss: {{depth: {{weight: 0.0}}}}\n"
        )
        given = ["--config", str(path)]
    assert distil([*given, "--output", str(tmp_path), *options, "--max-steps=2"]) in (0, 3)
    (told,) = re.findall(r"fitted to them first \(python tools/train_teacher.py (.*), which ends with", caplog.text)
    named = f"--source {capture}" if is_folder else f"--config {tmp_path}/results/toy/own/config.yaml"
    assert told.startswith(named)
    brief = [f"--set=fitting.{each}" for each in ("max_steps=1", "max_seconds=null", "initial_gaussians=50")]
    output = [] if "--output" in told else ["--output", str(tmp_path)]
    assert main([*shlex.split(told), *output, *brief]) in (0, 3)
    assert (tmp_path / "results/toy/teacher/point_cloud/iteration_1").is_dir()


def test_a_capture_on_its_own_mean_colour_goes_on(capture, tmp_path, capsys):
    brief = ["fitting.max_seconds=null", "eval.lpips=false", "eval.splits=[holdout]"]
    options = ["--source", str(capture), "--output", str(tmp_path), *(f"--set={each}" for each in brief)]
    assert main([*options, "--set=fitting.max_steps=2"]) in (0, 3)
    assert main([*options, "--set=fitting.max_steps=4", "--resume"]) in (0, 3), capsys.readouterr().err
    assert (tmp_path / "results/toy/teacher/point_cloud/iteration_4").is_dir()


def test_a_capture_without_points_starts_in_what_cameras_look_at(capture, tmp_path, caplog):
    caplog.set_level("INFO")
    (capture / "sparse_pc.ply").unlink()
    brief = ["fitting.max_steps=1", "fitting.max_seconds=null", "fitting.initial_gaussians=50", "eval.lpips=false"]
    options = ["--source", str(capture), "--output", str(tmp_path), *(f"--set={each}" for each in brief)]
    assert main([*options, "--set=teacher.background=[0.0, 0.0, 1.0]"]) in (0, 3)
    assert "no sparse points: the fit starts at random places in what the cameras look at" in caplog.text
    assert "mean colour" not in caplog.text, "a colour that was chosen stays"
    assert load_config(tmp_path / "results/toy/teacher/config.yaml").teacher.background == (0.0, 0.0, 1.0)


def test_cameras_that_look_outwards_need_points(capture, tmp_path, capsys):
    content = json.loads((capture / "transforms.json").read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:  # each turned about its own up
            row[0], row[2] = -row[0], -row[2]
    (capture / "transforms.json").write_text(json.dumps(content))
    brief = ["fitting.max_steps=1", "fitting.max_seconds=null", "eval.lpips=false"]
    options = ["--source", str(capture), "--output", str(tmp_path), *(f"--set={each}" for each in brief)]
    assert main(options) in (0, 3), "the points tell where the scene is"
    (capture / "sparse_pc.ply").unlink()
    assert main(options) == 2
    assert "data.box: found auto without a PLY, and the cameras' optical axes" in capsys.readouterr().err


def test_an_interrupted_fit_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    short = {"max_steps": 80, "grow_from": 20, "grow_every": 20, "checkpoint_every": 30}
    config = write_toy_scene(tmp_path, **SETTINGS | {"fitting": SETTINGS["fitting"] | short})
    whole = ["--set", "run=whole"]
    assert main(arguments(config, *whole)) == 0
    parted = ["--set", "run=parted"]
    step, taken = fitting.TeacherFit._step, []

    def stops_after_45(self):
        taken.append(1)
        if len(taken) == 45:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(fitting.TeacherFit, "_step", stops_after_45)
    assert main(arguments(config, *parted)) == 130
    monkeypatch.setattr(fitting.TeacherFit, "_step", step)
    assert main(arguments(config, *parted, "--resume")) == 0
    found, expected = (
        read_ply(tmp_path / f"results/toy/{run}/point_cloud/iteration_80/point_cloud.ply")
        for run in ("parted", "whole")
    )
    assert torch.equal(found.means, expected.means) and torch.equal(found.sh, expected.sh)
    steps = [int(row["step"]) for row in csv_rows(tmp_path / "logs/toy/parted/fitting_metrics.csv")]
    assert steps == [40, 80]


def test_a_fit_that_did_hardly_anything_is_warned_of(tmp_path, caplog):
    config = write_toy_scene(tmp_path, **SETTINGS)
    brief = ["--set", "fitting.max_steps=2"]
    assert main(arguments(config, *brief)) == 3
    assert (
        "the fit took 2 steps in" in caplog.text
        and "neither cloned nor split a Gaussian, which begins at step 60 " in caplog.text
    )
    assert "Go on with --resume --set fitting.max_steps=1100, or more" in caplog.text  # (60 + 10 * 60) / 0.6
    caplog.clear()
    assert main(arguments(config, *brief, "--set", "fitting.grow_from=1", "--set", "fitting.grow_every=1")) == 3
    assert "cloned" not in caplog.text and "do the pictures belong to the cameras" in caplog.text


def test_a_scene_much_smaller_than_one_unit_is_fitted_with_the_near_plane_that_is_advised(tmp_path, caplog):
    data = {"box": {"lower": [-0.03] * 3, "upper": [0.03] * 3}, "near": 0.001}
    config = write_toy_scene(tmp_path, **SETTINGS | {"data": data})
    content = json.loads((tmp_path / "data/transforms.json").read_text())
    for frame in content["frames"]:
        for row in frame["transform_matrix"][:3]:
            row[3] *= 0.05
    (tmp_path / "data/transforms.json").write_text(json.dumps(content))
    brief = ["--set", "fitting.max_steps=4"]
    assert main(arguments(config, *brief)) == 3
    assert "100% of the Gaussians before the cameras: set teacher.near to 0.03 or less" in caplog.text
    assert float(csv_rows(tmp_path / "logs/toy/first/eval_step_000004.csv")[0]["alpha_mean"]) == 0
    caplog.clear()
    main(arguments(config, *brief, "--set", "teacher.near=0.03", "--set", "run=near"))
    assert "teacher.near" not in caplog.text
    assert float(csv_rows(tmp_path / "logs/toy/near/eval_step_000004.csv")[0]["alpha_mean"]) > 0.2
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    distilled = config_of(parser.parse_args(["--model", str(tmp_path / "results/toy/near")]))
    assert distilled.teacher.near_plane == 0.03


def test_a_fit_whose_time_was_too_short_is_told_how_long_it_takes(tmp_path, caplog):
    config = write_toy_scene(tmp_path, **SETTINGS)
    brief = ["--set", "fitting.max_seconds=0.001"]
    assert main(arguments(config, *brief)) == 3
    assert re.search(r"took 1 step in .* Go on with --resume --set fitting\.max_seconds=\d0*, or more", caplog.text)


def test_resume_refuses_another_fits_state(tmp_path, capsys, caplog):
    config = write_toy_scene(tmp_path, **SETTINGS)
    brief = ["--set", "fitting.max_steps=2"]
    assert main(arguments(config, *brief, "--resume")) == 3  # no better than a blank picture yet
    assert "fit_latest.pth to resume from: starting from the beginning" in caplog.text
    state = tmp_path / "results/toy/first/checkpoints/fit_latest.pth"
    caplog.set_level("INFO")
    written = state.stat().st_mtime_ns
    assert main(arguments(config, "--set", "fitting.max_steps=1", "--resume")) == 3
    assert "nothing is left to fit: the fit is over at step 2" in caplog.text and state.stat().st_mtime_ns == written
    assert main(arguments(config, "--resume", "--set", "fitting.sh_degree=1")) == 2
    assert "fitting.sh_degree: found 3, expected 1" in capsys.readouterr().err
    state.write_bytes(b"no state")
    assert main(arguments(config, "--resume")) == 2
    assert str(state) in capsys.readouterr().err


def test_a_loss_that_is_not_finite_is_named(tmp_path, capsys):
    config = write_toy_scene(tmp_path, **SETTINGS)
    assert main(arguments(config, "--set", "fitting.lr_sh=1e38", "--set", "fitting.max_steps=30")) == 1
    assert "fitting.lr_means" in capsys.readouterr().err


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_the_extent_is_that_of_the_cameras_or_of_the_box(spread):
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[0, 0, 3], poses[1, 0, 3] = -spread, spread
    ones = torch.ones(2)
    cameras = Cameras(poses, ones, ones, ones, ones, 2, 2)
    box = SceneBox((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    assert scene_extent(cameras, box) == pytest.approx(max(1.1 * spread, 3**0.5))
