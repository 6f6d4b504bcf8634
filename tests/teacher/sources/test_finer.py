"""Pictures for the rays of students whose pixels are means of several: finer ones of the very same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from settings.errors import InputError
from settings.loading import load_config
from teacher.rasterizer import Drawing
from teacher.sources import finer_teacher, load_teacher, supersample_of
from teacher.views.rasterized import VIEW_BYTES
from tests.toy_scene import FRAMES, SIZE, write_toy_scene


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_scene(tmp_path_factory.mktemp("toy"))


def teachers_of(path: Path, scale: int, *overrides: str):
    config = load_config(path, overrides, path.parent)
    teacher = load_teacher(config)
    return teacher, finer_teacher(config, teacher, scale)


HALF = f"data.resolution={SIZE // 2}"


@pytest.mark.parametrize(
    "kind",
    [
        ("teacher.kind=views",),
        ("teacher.kind=images",),
        ("teacher.kind=gaussians", f"teacher.fitted_width={SIZE}"),
        ("teacher.kind=gaussians", "teacher.supersample=4"),
        ("teacher.kind=bricks", "teacher.frames=4", "teacher.supersample=2"),
    ],
)
def test_rays_are_drawn_of_pictures_whose_means_are_what_is_measured(toy, kind) -> None:
    teacher, finer = teachers_of(toy, 2, HALF, *kind)
    coarse, fine = teacher.views, finer.views
    assert fine.cameras.same_as(coarse.cameras.finer(2)) and finer.box == teacher.box
    assert fine.names == coarse.names and torch.equal(fine.holdout, coarse.holdout)
    size = coarse.cameras.height, 2, coarse.cameras.width, 2, 3
    background = coarse.background or (0.0, 0.0, 0.0)
    for index in range(len(coarse)):
        means = fine.image(index, background).view(size).mean((1, 3))
        assert (
            means - coarse.image(index, background)
        ).abs().max() < 3 / 255  # 8 bits for straight colour, and for alpha
    assert coarse.image(0, background).std() > 0.05


def test_without_supersampling_they_are_the_teacher_s_own(toy) -> None:
    teacher, finer = teachers_of(toy, 1, HALF)
    assert finer is teacher


def test_finer_pictures_are_made_once_and_what_is_drawn_is_as_fine_and_as_wide(toy) -> None:
    config = load_config(toy, [HALF, "teacher.kind=gaussians", "teacher.supersample=3"], toy.parent)
    teacher = load_teacher(config)
    finer = finer_teacher(config, teacher, 2)
    assert finer_teacher(config, teacher, 2) is finer and finer.gaussians is teacher.gaussians
    width = teacher.drawing.fitted_width
    assert teacher.drawing == Drawing(width, 3) and finer.drawing == Drawing(width, 2)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((HALF, "teacher.kind=views"), 2),
        (("teacher.kind=views",), 1),
        ((HALF, "teacher.kind=images"), 2),
        ((f"data.resolution={SIZE - 2}", "teacher.kind=images"), 1),
        ((HALF, "teacher.kind=gaussians", f"teacher.fitted_width={SIZE}"), 2),
        ((HALF, "teacher.kind=gaussians", "teacher.supersample=1"), 1),
        ((HALF, "teacher.kind=views", "render.supersample=3"), 3),
        ((HALF, "teacher.kind=images", "data.memory_gib=1e-6"), 1),
    ],
)
def test_auto_is_2_where_pixels_are_means(toy, overrides, expected) -> None:
    config = load_config(toy, overrides, toy.parent)
    assert supersample_of(config, load_teacher(config)) == expected


def test_auto_is_1_where_finer_pictures_do_not_fit_into_half_of_what_is_free(toy, monkeypatch) -> None:
    config = load_config(toy, [HALF, "teacher.kind=images"], toy.parent)
    needed = FRAMES * SIZE**2 * VIEW_BYTES
    for available, expected in ((1.9 * needed, 1), (2.1 * needed, 2)):
        monkeypatch.setattr("machine.memory.available_bytes", lambda available=available: available)
        assert supersample_of(config, load_teacher(config)) == expected


def test_gaussians_that_are_not_drawn_as_finely_are_refused(toy) -> None:
    found = r"render\.supersample: found 3, expected at most 2, since Gaussians are drawn at 24 pixels for"
    with pytest.raises(InputError, match=found):
        teachers_of(toy, 3, HALF, "teacher.kind=gaussians", "teacher.supersample=2")


@pytest.mark.parametrize("kind", ["views", "images"])
def test_pictures_that_are_not_as_wide_are_refused(toy, kind) -> None:
    found = rf"image size: found .*, expected at least render\.supersample 2 times as wide as the student's: {2 * SIZE}"
    with pytest.raises(InputError, match=found):
        teachers_of(toy, 2, f"teacher.kind={kind}")
