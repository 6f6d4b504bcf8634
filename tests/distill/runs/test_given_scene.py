"""``--model DIR``, ``--source DIR`` and what does not go together."""

import argparse
import json
import re
import shlex

import numpy as np
import pytest

from distill.runs.command_line import add_config_options, config_of
from distill.runs.given_scene import CAPTURE_TEACHER
from lego_response_distill import main
from scene.images import write_image
from settings.errors import InputError
from teacher.gaussian_files.ply import write_ply
from teacher.sources import load_teacher
from tests.scene.formats.colmap_models import PINHOLE, images, write_pictures, write_text
from tests.toy_scene import FRAMES, SIZE, block_of_gaussians, ring_of_cameras


@pytest.fixture
def model(tmp_path):
    """The toy scene as graphdeco's program leaves it: a model's folder, and the capture it was trained on."""
    cameras, folder = ring_of_cameras(), tmp_path / "output"
    entries = [
        {
            "id": i,
            "img_name": f"r_{i:02d}",
            "width": SIZE,
            "height": SIZE,
            "position": cameras.c2w[i, :3, 3].tolist(),
            "rotation": (cameras.c2w[i, :3, :3] * cameras.c2w.new_tensor([1.0, -1.0, -1.0])).tolist(),
            "fx": cameras.fx[i].item(),
            "fy": cameras.fy[i].item(),
        }
        for i in range(FRAMES)
    ]
    ply = folder / "point_cloud" / "iteration_7" / "point_cloud.ply"
    ply.parent.mkdir(parents=True)
    write_ply(ply, block_of_gaussians())
    (folder / "cameras.json").write_text(json.dumps(entries))
    (folder / "cfg_args").write_text(
        "Namespace(eval=False, source_path='D:\\\\scans\\\\my toy', white_background=True)"
    )
    for i in range(FRAMES):
        write_image(tmp_path / "capture" / "images" / f"r_{i:02d}.png", np.full((SIZE, SIZE, 3), 9, np.uint8))
    return folder


def config(*arguments, **options):
    parser = argparse.ArgumentParser()
    add_config_options(parser, **options)
    return config_of(parser.parse_args(list(map(str, arguments))))


def test_a_model_alone_is_a_config(model):
    found = config("--model", model)
    assert (found.scene, found.run, found.teacher.kind) == ("my_toy", "student", "gaussians")
    assert found.data.transforms == model and found.data.images is None and found.data.resolution == SIZE
    assert found.teacher.ply == model / "point_cloud/iteration_7/point_cloud.ply"
    assert found.teacher.background == found.render.background == "white"


def test_a_source_adds_the_pictures(model, tmp_path):
    found = config("--model", model, "--source", tmp_path / "capture")
    assert found.image_split == "train" and config("--model", model).image_split is None
    views = load_teacher(found).views
    assert len(views) == FRAMES and views.ground_truth[0, 3, 3].tolist() == [9, 9, 9, 255]
    assert views.holdout.tolist() == [i % 8 == 0 for i in range(FRAMES)]


def test_folders_that_are_not_there_are_looked_for_under_the_root_of_assets(model, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = config("--model", "output", "--source", "capture", "--assets", tmp_path)
    assert (found.data.transforms, found.data.images) == (model, tmp_path / "capture")
    assert f"output: {model} is used instead (--assets)" in caplog.text
    with pytest.raises(InputError, match="--model: folder: found output, nothing, expected an existing folder"):
        config("--model", "output", "--assets", tmp_path / "capture")
    (tmp_path / "elsewhere/capture").mkdir()
    assert config("--model", model, "--source", "capture", "--assets", tmp_path).data.images.samefile("capture")


def test_a_source_alone_is_the_dataset(tmp_path):
    write_text(tmp_path / "garden" / "sparse" / "0", [PINHOLE], images("a.jpg", "b.jpg"))
    write_pictures(tmp_path / "garden" / "images", "a.jpg", "b.jpg")
    found = config("--source", tmp_path / "garden")
    assert (found.scene, found.run, found.teacher.kind) == ("garden", "images", "images")
    assert found.data.transforms == tmp_path / "garden" and found.data.resolution == 16
    assert config("--source", tmp_path / "garden" / "sparse" / "0").scene == "garden"
    assert config("--source", tmp_path / "garden" / "images" / "..").scene == "garden"


def test_gaussians_go_with_the_capture_that_they_were_trained_on(tmp_path, write):
    capture, splat = tmp_path / "garden", tmp_path / "export_30000.ply"
    write_text(capture / "sparse" / "0", [PINHOLE], images("a.jpg", "b.jpg"))
    write_pictures(capture / "images", "a.jpg", "b.jpg")
    write_ply(splat, block_of_gaussians())
    found = config("--splat", splat, "--source", capture)
    assert (found.scene, found.run, found.teacher.kind, found.teacher.ply) == ("garden", "student", "gaussians", splat)
    assert found.data.transforms == capture and found.data.resolution == 16 and found.image_split == "train"
    (capture / "images/b.jpg").unlink()  # those that are there are learnt from
    assert config("--splat", splat, "--source", capture).image_split == "train"
    (capture / "images/a.jpg").unlink()
    assert config("--splat", splat, "--source", capture).image_split is None
    path = write("scene: mine\nrun: own\ndata: {resolution: 12}\nteacher: {kind: bricks}\n")
    found = config("--config", path, "--splat", splat, "--source", capture)
    assert (found.scene, found.teacher.kind, found.teacher.ply, found.data.transforms) == (
        "mine",
        "gaussians",
        splat,
        capture,
    )
    assert found.data.resolution == 12 and found.image_split is None


def test_a_config_says_the_rest(model, write):
    path = write("scene: mine\nrun: own\ndata: {resolution: 12, train_transforms: t.json}\nteacher: {kind: bricks}\n")
    found = config("--config", path, "--model", model, "--set", "data.holdout_every=5")
    assert found.data.train_transforms is None  # of another dataset
    assert (found.scene, found.run, found.teacher.kind) == ("mine", "own", "gaussians")
    assert found.data.resolution == 12 and found.data.holdout_every == 5


def test_a_live_teacher_of_a_capture_keeps_to_the_frames_not_held_out(model):
    teacher = load_teacher(config("--model", model, "--set", "teacher.live=true"))
    assert teacher.views.holdout.sum() == 3 and len(teacher.poses.cameras) == FRAMES - 3
    mixed = config("--model", model, "--source", model.parent / "capture", "--set", "data.ground_truth={split: train}")
    assert load_teacher(mixed).images.holdout.sum() == 3
    with pytest.raises(InputError, match="split: found test, expected train"):
        load_teacher(config("--model", model, "--set", "data.ground_truth={split: test}"))


def test_a_command_that_fits_gaussians_takes_none(model, tmp_path):
    """It would fit others to what those show, and to no photograph."""
    splat, capture = tmp_path / "a b.ply", tmp_path / "capture"
    for option, given in (("--splat", splat), ("--model", model)):
        with pytest.raises(InputError, match=f"command line: {option}: found Gaussians, .*pictures that") as caught:
            config(option, given, source_config=CAPTURE_TEACHER)
        assert "give --source DIR alone" in caught.value.hint and f" {option} " in caught.value.hint
        with pytest.raises(InputError, match=f"{option}: found Gaussians") as caught:
            config(option, given, "--source", capture, source_config=CAPTURE_TEACHER)
        assert f"give --source {capture} alone" in caught.value.hint
        assert f"{option} {shlex.quote(str(given))} --source {capture}` distils these" in caught.value.hint
    with pytest.raises(InputError, match="found nothing, expected a YAML config, or --source DIR."):
        config(source_config=CAPTURE_TEACHER)
    parser = argparse.ArgumentParser()
    add_config_options(parser, source_config=CAPTURE_TEACHER)
    assert "--source DIR" in parser.format_help() and not re.search("--(splat|model|up)", parser.format_help())


def test_a_capture_is_not_given_to_a_built_in_scene(tmp_path, write):
    """It would be trained on, and the capture forgotten."""
    capture = tmp_path / "garden"
    write_text(capture / "sparse" / "0", [PINHOLE], images("a.jpg", "b.jpg"))
    write_pictures(capture / "images", "a.jpg", "b.jpg")
    path = write("scene: mine\nrun: own\ndata: {resolution: 12}\nteacher: {kind: bricks}\n")
    with pytest.raises(InputError, match="--source: found .*garden, which teacher.kind: bricks in .* takes no part of"):
        config("--config", path, "--source", capture)
    found = config("--config", path, "--source", capture, "--set", "teacher.kind=images")
    assert (found.teacher.kind, found.data.transforms) == ("images", capture)
    with pytest.raises(InputError, match="garden, which teacher.kind: bricks takes no part of") as caught:
        config("--source", capture, "--set", "teacher.kind=bricks")
    assert caught.value.hint == "Leave teacher.kind out. Gaussians of the capture are --splat FILE."
    with pytest.raises(InputError, match="--source: found .*garden") as caught:  # a command that takes no Gaussians
        config("--config", path, "--source", capture, source_config=CAPTURE_TEACHER)
    assert caught.value.hint == "Leave --config out, or add --set teacher.kind=images."


@pytest.mark.parametrize("with_splat", [False, True])
def test_a_capture_is_the_whole_dataset(tmp_path, write, with_splat):
    """Training frames or pictures of another one, which a config names, would be trained on in its place."""
    capture, splat = tmp_path / "garden", tmp_path / "a.ply"
    write_text(capture / "sparse" / "0", [PINHOLE], images("a.jpg", "b.jpg"))
    write_pictures(capture / "images", "a.jpg", "b.jpg")
    write_ply(splat, block_of_gaussians())
    path = write(
        "scene: mine\nrun: own\nteacher: {kind: images}\n"
        "data: {transforms: lego/transforms_test.json, train_transforms: lego/transforms_train.json, images: lego}\n"
    )
    found = config("--config", path, "--source", capture, *(["--splat", splat] if with_splat else []))
    assert found.data.transforms == capture and found.data.train_transforms is None and found.data.images is None
    for name in ("train_transforms", "images"):
        kept = config("--config", path, "--source", capture, "--set", f"data.{name}={capture}")
        assert getattr(kept.data, name) == capture


def test_a_fitted_teacher_brings_all_of_its_dataset_or_a_capture_does(tmp_path, write):
    capture, fit = tmp_path / "garden", tmp_path / "results"
    write_text(capture / "sparse" / "0", [PINHOLE], images("a.jpg", "b.jpg"))
    write_pictures(capture / "images", "a.jpg", "b.jpg")
    ply = fit / "point_cloud" / "iteration_7" / "point_cloud.ply"
    ply.parent.mkdir(parents=True)
    write_ply(ply, block_of_gaussians())
    settings = "scene: lego\nrun: fit\nteacher: {kind: images}\n"
    (fit / "config.yaml").write_text(f"{settings}data: {{transforms: {capture}, train_transforms: {tmp_path}/own}}\n")
    assert config("--model", fit).data.train_transforms == tmp_path / "own"
    # Photographs of a capture are learnt from, whether or not the fit had training frames of their own.
    found = config("--model", fit, "--source", capture)
    assert found.data.train_transforms is None and found.image_split == "train"
    path = write(f"{settings}data: {{train_transforms: {tmp_path}/other, images: {tmp_path}/other}}\n")
    found = config("--config", path, "--model", fit).data
    assert found.train_transforms == tmp_path / "own" and found.images is None
    found = config("--config", path, "--model", fit, "--source", capture).data
    assert found.train_transforms is None and found.images is None
    (fit / "config.yaml").write_text(f"{settings}data: {{transforms: {capture}}}\n")
    assert config("--config", path, "--model", fit).data.train_transforms is None


def test_folders_that_are_none_are_named(model, tmp_path):
    with pytest.raises(InputError, match="--model: folder: found .*nowhere, nothing"):
        config("--model", tmp_path / "nowhere")
    with pytest.raises(InputError, match="--source: folder: found .*cfg_args, a file.*--splat FILE"):
        config("--model", model, "--source", model / "cfg_args")
    with pytest.raises(InputError, match="--splat: file: found .*, a folder, expected a file .*--model DIR"):
        config("--splat", model)
    with pytest.raises(
        InputError, match="model: found .*expected point_cloud/iteration_.*--splat FILE, a capture is --source DIR"
    ):
        config("--model", tmp_path / "capture")
    with pytest.raises(InputError, match="or --model DIR, --source DIR or --splat FILE"):
        config()


def test_the_folder_of_a_students_run_is_said_to_be_one_and_which_command_takes_it(tmp_path):
    run = tmp_path / "results/toy/first"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("scene: toy\nrun: first\nteacher: {kind: bricks}\n")
    (run / "checkpoints/step_000007.pth").touch()
    for option in ("--model", "--source"):
        with pytest.raises(
            InputError, match=f"{option}: folder: found .*first, a run of this program, .*tools/view.py"
        ):
            config(option, run)
        with pytest.raises(
            InputError, match=f"{option}: folder: found .*toy, .* above 1 run: first, .*Name it: .*first"
        ):
            config(option, run.parent)
    with pytest.raises(InputError, match="--splat: file: .*, a folder, .*tools/view.py .*first shows it"):
        config("--splat", run)


def test_one_line_distils_a_model(model, tmp_path, capsys):
    assert main(["--model", str(model), "--output", str(tmp_path), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "my_toy/student" in text and f"{FRAMES} at {SIZE}x{SIZE}: {FRAMES - 3} to train on, 3 held out" in text


def test_gaussians_alone_have_no_cameras_beside_them(model):
    with pytest.raises(InputError, match="--splat: found --model too, expected one of them"):
        config("--splat", "a.ply", "--model", model)
    with pytest.raises(InputError, match="--up: found no --splat"):
        config("--model", model, "--up=-y")
    with pytest.raises(InputError, match="--up: found --source too"):
        config("--splat", "a.ply", "--source", model, "--up=-y")
    with pytest.raises(InputError, match="--config: found nothing"):
        config()
