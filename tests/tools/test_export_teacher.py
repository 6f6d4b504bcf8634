"""The exporter as a program: from a config to a folder that can be distilled."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene.formats import load_frames
from scene.formats.transforms_json import write_transforms
from scene.images import read_image
from settings.errors import InputError
from settings.loading import load_config
from teacher.features.volume_files import read_features
from teacher.gaussian_files import read_gaussians
from teacher.gaussian_files.ply import write_ply
from teacher.sources import load_teacher
from tests.toy_scene import block_of_gaussians, write_toy_scene
from tools.export_teacher import main


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_toy_scene(folder)
    return folder


@pytest.fixture
def toy(made_once, tmp_path):
    """The toy scene's folder: 17 views of a block, its PLY, and renders of it as another program would leave them."""
    return shutil.copytree(made_once, tmp_path / "toy")


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--config", str(folder / "toy.yaml"), "--assets", str(folder), "--output", str(folder / "out"), *more]


def stats_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "render_stats.json").read_text())


def test_frames_are_rendered_as_the_stored_ones_were(toy, capsys, caplog):
    caplog.set_level("INFO")
    assert main(arguments(toy)) == 0
    assert capsys.readouterr().out == ""
    assert "CUDA" not in caplog.text, "nothing about CUDA where none is asked for"
    assert "17 frames of" in caplog.text and "17 frames rendered at" in caplog.text
    for kind, extension in (("renders", "png"), ("depth", "npy"), ("gt", "png")):
        names = sorted(path.name for path in (toy / "out" / kind).iterdir())
        assert names == [f"{index:05d}.{extension}" for index in range(17)]
    # The toy's own outputs are of the same Gaussians and cameras.
    for index in range(17):
        name = f"{index:05d}"
        ours, theirs = (read_image(toy / folder / "renders" / f"{name}.png") for folder in ("out", "outputs"))
        assert np.abs(ours.astype(int) - theirs).max() <= 1
        depths = [np.load(toy / folder / "depth" / f"{name}.npy") for folder in ("out", "outputs")]
        np.testing.assert_allclose(*depths, atol=1e-6)
        assert np.array_equal(
            read_image(toy / "out" / "gt" / f"{name}.png"), read_image(toy / "data" / f"r_{index}.png")
        )
    stats = stats_of(toy)
    assert stats["num_gaussians"] == 729 and stats["frames"] == stats["frames_timed"] == 17
    assert stats["gaussians_bytes"] == (toy / "point_cloud.ply").stat().st_size
    assert stats["resolution"] == [24, 24] and stats["background"] == [1.0, 1.0, 1.0] and stats["near"] == 0.2
    assert stats["rasterizer"] == "cpu" and stats["depth_kind"] == "inverse_z" and stats["avg_fps"] > 0
    assert stats["power_avg_w"] is None and stats["gpu_peak_gib"] is None and stats["pruning"] is None
    assert stats["versions"]["torch"] and stats["device"]


def test_the_output_is_a_teacher_of_kind_views(toy):
    assert main(arguments(toy, "--rgba", "--depth-kind", "distance", "--frames", "2:12:2")) == 0
    overrides = ["teacher.outputs=out", "data.transforms=out/transforms.json", "teacher.depth_kind=distance"]
    views = load_teacher(load_config(toy / "toy.yaml", overrides, toy)).views
    assert views.names == ("r_2", "r_4", "r_6", "r_8", "r_10")
    assert views.alpha is not None and views.ground_truth is not None and (views.distance > 0).any()
    assert stats_of(toy)["background"] is None


def test_going_on_and_other_settings(toy, capsys, caplog):
    caplog.set_level("INFO")
    assert main(arguments(toy, "--frames", ":3")) == 0
    first = stats_of(toy)
    (toy / "out" / "renders" / "00001.png").unlink()
    assert main(arguments(toy, "--frames", ":3")) == 0
    assert "going on: 2 of 3 frames are there" in caplog.text and stats_of(toy)["frames_timed"] == 1
    assert main(arguments(toy, "--frames", ":3")) == 0
    assert "nothing to do: all 3 frames are in" in caplog.text and stats_of(toy)["frames_timed"] == 1
    assert main(arguments(toy, "--frames", ":3", "--depth-kind", "z")) == 2
    error = capsys.readouterr().err
    assert 'found depth_kind "inverse_z", expected depth_kind "z"' in error
    assert stats_of(toy)["depth_kind"] == first["depth_kind"]


@pytest.mark.parametrize(("more", "frames"), [(("--orbit", "3"), 3), (("--path", "PATH"), 17)])
def test_a_camera_path_has_no_ground_truth(toy, more, frames):
    shutil.copy(toy / "data" / "transforms.json", toy / "path.json")
    more = [str(toy / "path.json") if word == "PATH" else word for word in more]
    assert main(arguments(toy, "--resolution", "10", *more)) == 0
    assert len(list((toy / "out" / "renders").iterdir())) == frames and not (toy / "out" / "gt").exists()
    assert read_image(toy / "out" / "renders" / "00000.png").shape == (10, 10, 3)


@pytest.mark.parametrize("fitted", [12, 48])
def test_a_wider_path_shows_thin_gaussians_as_wide_as_the_views_do(toy, fitted):
    block = block_of_gaussians()
    write_ply(toy / "thin.ply", replace(block, log_scales=torch.full_like(block.log_scales, math.log(0.004))))
    own = load_frames(toy / "data" / "transforms.json").cameras
    wide = replace(own, width=2 * own.width, cx=own.cx + own.width / 2)
    near = replace(own, fx=2 * own.fx, fy=2 * own.fy)  # half of it, at twice the size in degrees
    options = ["--set", "teacher.ply=thin.ply", "--set", f"teacher.fitted_width={fitted}", "--frames", ":2"]
    assert main(arguments(toy, *options)) == 0
    views = [read_image(toy / "out" / "renders" / f"0000{index}.png").astype(int) for index in range(2)]
    settings = json.loads((toy / "out" / "export_settings.json").read_text())
    for name, cameras in (("own", own), ("wide", wide), ("near", near)):
        write_transforms(toy / f"{name}.json", cameras, [f"r_{index}" for index in range(len(cameras))])
        output = ["--output", str(toy / name), "--path", str(toy / f"{name}.json")]
        assert main(arguments(toy, *options, *output)) == 0
    of_path = json.loads((toy / "own" / "export_settings.json").read_text())
    assert of_path == settings | {"ground_truth": of_path["ground_truth"]}
    # For whoever draws Gaussians between the pictures: as wide as a picture of this field of view would have been.
    widths = {"own": fitted, "wide": 2 * fitted, "near": fitted // 2}
    for name, width in widths.items():
        assert json.loads((toy / name / "export_settings.json").read_text())["fitted_width"] == width
    for index, view in enumerate(views):
        shown = read_image(toy / "wide" / "renders" / f"0000{index}.png").astype(int)
        assert np.abs(shown[:, own.width // 2 : -own.width // 2] - view).max() <= 1
        closer = read_image(toy / "near" / "renders" / f"0000{index}.png").astype(int)
        half = own.width // 4
        assert np.abs(closer.mean((0, 1)) - view[half:-half, half:-half].mean((0, 1))).max() < 4


@pytest.mark.parametrize("extension", [".ply", ".npz", ".spz"])
def test_gaussians_in_another_format_are_a_teacher_too(toy, extension):
    file = toy / f"small{extension}"
    assert main(arguments(toy, "--frames", "0:1", "--ply", str(file))) == 0
    assert len(read_gaussians(file)) == 729 and stats_of(toy)["gaussians_bytes"] == file.stat().st_size
    again = arguments(toy, "--frames", "0:1", "--set", f"teacher.ply={file}")
    again[again.index("--output") + 1] = str(toy / "again")
    assert main(again) == 0
    pictures = [read_image(toy / name / "renders" / "00000.png").astype(int) for name in ("out", "again")]
    assert np.abs(pictures[0] - pictures[1]).mean() < 2


def test_pruning_writes_what_is_left_and_says_what_went(toy, caplog):
    caplog.set_level("INFO")
    more = ("--prune-contribution", "0.02", "--frames", "::8", "--ply", str(toy / "pruned.ply"))
    assert main(arguments(toy, *more)) == 0
    report = stats_of(toy)["pruning"]
    left = read_gaussians(toy / "pruned.ply")
    assert 0 < report["gaussians_removed"] == 729 - len(left) < 729 and report["gaussians_before"] == 729
    assert report["bytes_before"] == (toy / "point_cloud.ply").stat().st_size
    assert report["bytes_after"] == (toy / "pruned.ply").stat().st_size == stats_of(toy)["gaussians_bytes"]
    assert 0 < report["weight_removed_fraction"] < 0.05 and 30 < report["psnr"] < 100
    assert report["measured_views"] == 17 and stats_of(toy)["num_gaussians"] == len(left)
    assert f"pruned {729 - len(left)} of 729 Gaussians" in caplog.text and "dB between renders" in caplog.text


def test_features_go_beside_the_renders(toy, caplog):
    caplog.set_level("INFO")
    more = ("--frames", ":3", "--features", "sh_dc,opacity", "--features-resolution", "12")
    assert main(arguments(toy, *more)) == 0
    stored = read_features(toy / "out" / "teacher_features.npz", gaussians=read_gaussians(toy / "point_cloud.ply"))
    assert stored.channels == ("sh_0_r", "sh_0_g", "sh_0_b", "opacity") and stored.resolution == 12
    assert "feature volume: " in caplog.text


def test_features_are_gone_on_with_only_as_they_were_begun(toy, caplog, capsys):
    caplog.set_level("INFO")
    path, more = (
        toy / "out" / "teacher_features.npz",
        ("--frames", ":1", "--features", "opacity", "--features-resolution"),
    )
    assert main(arguments(toy, *more, "12")) == 0
    written = path.read_bytes()
    caplog.clear()
    assert main(arguments(toy, *more, "12")) == 0 and "feature volume: " not in caplog.text
    assert main(arguments(toy, *more, "13")) == 2
    said = "features: found opacity in 12 cells along the box, expected opacity in 13 cells"
    assert f"{path}: {said}" in capsys.readouterr().err and path.read_bytes() == written
    path.write_bytes(b"no archive")
    assert main(arguments(toy, *more, "12")) == 2
    assert f"{path}: teacher features: found unreadable data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "teacher.ply=null"), "error: config: teacher.ply: found nothing"),
        (("--set", "teacher.ply=none.ply"), "none.ply: Gaussians: found no such file"),
        (("--set", "data.transforms=none.json"), "none.json: file: found"),
        (("--split", "test"), "--split: data.transforms: found transforms.json"),
        (("--path", "nowhere.json"), "nowhere.json: file: found"),
        (("--frames", "5:2"), "--frames: frames: found '5:2'"),
        (("--features", "sh,colour"), "error: --features: channels: found 'colour', expected some of all, sh, sh_dc"),
        (("--ply", "cloud.obj"), "cloud.obj: file extension: found .obj"),
        (("--ply", "nowhere/cloud.ply"), "no folder nowhere"),
        (("--ply", "PLY"), "--ply: file: found teacher.ply itself"),
        (("--set", "teacher.rasterizer=gsplat"), "teacher.rasterizer: device: found cpu, expected a CUDA device"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(toy, capsys, more, message):
    more = [str(toy / "point_cloud.ply") if word == "PLY" else word for word in more]
    assert main(arguments(toy, *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (toy / "out").exists()
    with pytest.raises(InputError):
        main(arguments(toy, *more, "--debug"))
