"""At which width Gaussians were fitted: told, read from files, or found by drawing; and what the log says of it."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from math import log

import pytest
import torch

from scene.formats.transforms_json import write_transforms
from scene.images import write_image
from settings.loading import load_config
from teacher.export.planes import picture
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources import load_teacher, source_of
from teacher.sources.fitted_width import best_width, recorded_width
from teacher.views.rasterized import blended_planes
from tests.toy_scene import block_of_gaussians, ring_of_cameras

WHITE = (1.0, 1.0, 1.0)
NATIVE, FITTED = 48, 24


def thin_gaussians():
    """The block, of Gaussians much thinner than a pixel: how they look is how far they are widened."""
    block = block_of_gaussians()
    return replace(block, log_scales=torch.full_like(block.log_scales, log(0.004)))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Thin Gaussians fitted at 24 pixels, whose pictures are 48 wide."""
    root, cameras = tmp_path_factory.mktemp("thin"), ring_of_cameras(4, NATIVE, NATIVE)
    names = [f"r_{index}" for index in range(4)]
    write_transforms(root / "transforms.json", cameras, names)
    write_ply(root / "cloud.ply", thin_gaussians())
    rasterizer = Rasterizer(thin_gaussians(), drawing=Drawing(FITTED))
    for index, name in enumerate(names):
        write_image(root / f"{name}.png", picture(blended_planes(rasterizer, cameras, index), None))
    (root / "thin.yaml").write_text(
        "scene: s\nrun: r\ndevice: cpu\ndata: {transforms: transforms.json, holdout_every: 2}\n"
        "teacher: {kind: gaussians, ply: cloud.ply}\n"
    )
    return root


def drawing_of(scene, *overrides):
    source = source_of(load_config(scene / "thin.yaml", overrides, scene))
    return source.drawing(source.gaussians())


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_it_is_found_by_what_looks_most_like_the_images(scene, caplog):
    caplog.set_level(logging.INFO)
    for resolution in (NATIVE, 24, 12):
        assert drawing_of(scene, f"data.resolution={resolution}") == Drawing(FITTED)
    assert not warnings_of(caplog)
    assert "fitted at 24 pixels (the best of those tried), drawn at 24 for views of 12" in caplog.text
    assert "against ground truth (2 frames at 12x12)" in caplog.text


def test_views_larger_than_the_pictures_are_said_to_be_drawn_as_they_are(scene, caplog):
    with caplog.at_level(logging.INFO):
        drawing_of(scene, f"data.resolution={2 * NATIVE}")
    assert f"drawn at {2 * NATIVE} for views of {2 * NATIVE}" in caplog.text


def test_views_are_then_what_was_fitted(scene):
    views = load_teacher(load_config(scene / "thin.yaml", ["data.resolution=12"], scene)).views
    error = views.image(1, WHITE) - views.ground_truth_image(1, WHITE)
    assert error.abs().max() < 0.04


def test_what_is_told_holds_and_is_warned_of(scene, caplog):
    assert drawing_of(scene, "teacher.fitted_width=24") == Drawing(24) and not warnings_of(caplog)
    assert drawing_of(scene, "teacher.fitted_width=48") == Drawing(48)
    (warning,) = warnings_of(caplog)
    assert warning.startswith("teacher.fitted_width:") and "dB at 24 pixels" in warning and "at 48," in warning


def test_a_multiple_that_costs_much_is_warned_of(scene, caplog):
    found = drawing_of(scene, "teacher.fitted_width=24", "data.resolution=12", "teacher.supersample=4")
    assert found == Drawing(24, 4) and not warnings_of(caplog)
    assert drawing_of(scene, "data.resolution=12", "teacher.supersample=1") == Drawing(24, 1)
    (warning,) = warnings_of(caplog)
    assert (
        "teacher.supersample: 1 draws the Gaussians at 12 pixels, fitted at 24" in warning and "24 pixels," in warning
    )


def test_without_pictures_the_width_of_the_frames_is_supposed(scene, caplog):
    alone = ("data.ground_truth=false", "data.resolution=12")
    assert drawing_of(scene, *alone) == Drawing(NATIVE, is_supposed=True)
    assert drawing_of(scene, *alone).recorded_width is None
    assert "48 pixels are assumed, the width of the dataset's frames" in warnings_of(caplog)[0]
    caplog.clear()
    assert drawing_of(scene, *alone, "teacher.supersample=2") == Drawing(None, 2) and not warnings_of(caplog)
    drawing_of(scene, *alone, "teacher.fitted_width=48", "teacher.supersample=2")
    assert "draws the Gaussians at 24 pixels, fitted at 48 (teacher.fitted_width)" in warnings_of(caplog)[0]


@pytest.mark.parametrize("alone", ["teacher.supersample=2", "data.transforms=null"])
def test_where_none_is_known_smaller_views_are_means_of_those_of_the_trained_size(scene, alone):
    """Drawn for their own size thin Gaussians would cover several times as much."""
    options = ["data.ground_truth=false", alone, "teacher.frames=2"]
    trained, small = (load_config(scene / "thin.yaml", [*options, f"data.resolution={n}"], scene) for n in (24, 12))
    covered = float(load_teacher(trained).views.alpha.float().mean())
    as_trained, as_asked = load_teacher(small, trained), load_teacher(small)
    assert float(as_trained.views.alpha.float().mean()) == pytest.approx(covered, rel=0.02)
    assert as_asked.views.alpha.float().mean() > 1.3 * covered
    drawn = as_trained.drawing.drawn_width(12)
    assert drawn == load_teacher(trained).drawing.drawn_width(24) and as_trained.drawing.recorded_width is None


def test_beside_a_student_gaussians_are_drawn_though_the_dataset_is_gone(scene):
    """The viewer shows a teacher of which the PLY alone is left: nothing tells how wide its views were."""
    source = source_of(load_config(scene / "thin.yaml", ["data.transforms=gone.json"], scene))
    assert source.rasterizer(source.gaussians(), as_in_views=True).drawing.fitted_width is None


def test_pictures_of_another_scene_tell_nothing(scene, tmp_path):
    for name in ("transforms.json", "cloud.ply", "thin.yaml"):
        (tmp_path / name).write_bytes((scene / name).read_bytes())
    for index in range(4):
        write_image(tmp_path / f"r_{index}.png", torch.zeros(NATIVE, NATIVE, 3).numpy())
    assert drawing_of(tmp_path, "data.resolution=12") == Drawing(NATIVE, is_supposed=True)


def test_a_ply_keeps_its_width_and_reads_back_the_same(tmp_path):
    path = tmp_path / "cloud.ply"
    write_ply(path, thin_gaussians(), fitted_width=200)
    assert recorded_width(path).width == 200 and torch.equal(read_ply(path).means, thin_gaussians().means)
    write_ply(path, thin_gaussians())
    assert recorded_width(path) is None


@pytest.mark.parametrize(
    ("arguments", "width"),
    [
        ("Namespace(images='images', resolution=-1)", 1600),
        ("Namespace(images='images_4', resolution=-1)", 990),
        ("Namespace(images='images', resolution=2)", 1979),
        ("Namespace(images='images', resolution=640)", 640),
        (None, 1600),
    ],
)
def test_graphdecos_files_tell_it(tmp_path, arguments, width):
    ply = tmp_path / "point_cloud" / "iteration_30000" / "point_cloud.ply"
    ply.parent.mkdir(parents=True)
    write_ply(ply, block_of_gaussians()[:3])
    assert recorded_width(ply) is None
    (tmp_path / "cameras.json").write_text(json.dumps([{"id": 0, "width": 3958, "height": 2968}, {"width": "x"}]))
    if arguments:
        (tmp_path / "cfg_args").write_text(arguments)
    assert recorded_width(ply).width == width


@pytest.mark.parametrize(("resolution", "width"), [(-1, 1600), (2, 800), (300, 400)])
def test_of_pictures_of_several_widths_it_is_that_of_the_widest(tmp_path, resolution, width):
    """The cameras' canvas is 1600 wide, which the pictures held upright, the most, do not fill."""
    write_ply(tmp_path / "a.ply", block_of_gaussians()[:3])
    (tmp_path / "cameras.json").write_text(json.dumps([{"width": 1200}] * 3 + [{"width": 1600}] * 2))
    (tmp_path / "cfg_args").write_text(f"Namespace(images='images', resolution={resolution})")
    assert recorded_width(tmp_path / "a.ply").width == width


def test_the_search_climbs_to_a_peak_far_away():
    tried = []

    def psnr_at(width):
        tried.append(width)
        return 40 - 10 * abs(log(width / 230))

    assert best_width(psnr_at, 1600, 3200) == pytest.approx(230, rel=0.1) and len(tried) < 20
    tried.clear()
    assert best_width(psnr_at, 230, 3200) == 230 and len(tried) == 3


def test_a_scene_much_smaller_than_one_unit_is_tried_with_its_own_near_plane(scene, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    thin, cameras, scale = thin_gaussians(), ring_of_cameras(4, NATIVE, NATIVE), 0.01
    cameras.c2w[:, :3, 3] *= scale
    shutil.copytree(scene, tmp_path, dirs_exist_ok=True)
    write_transforms(tmp_path / "transforms.json", cameras, [f"r_{index}" for index in range(4)])
    small = replace(thin, means=thin.means * scale, log_scales=thin.log_scales + log(scale))
    write_ply(tmp_path / "cloud.ply", small)
    assert drawing_of(tmp_path, "teacher.near=0.001") == Drawing(FITTED, near=0.001)
    assert "the best of those tried" in caplog.text
