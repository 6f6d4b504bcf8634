"""Pictures for the rays of students whose pixels are means of several: finer ones of the very same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import load_finer, load_teacher
from tests.toy_scene import SIZE, write_toy_scene


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    return write_toy_scene(tmp_path_factory.mktemp("toy"))


def teachers_of(path: Path, *overrides: str):
    config = load_config(path, overrides, path.parent)
    teacher = load_teacher(config)
    return teacher, load_finer(config, teacher)


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
    teacher, finer = teachers_of(toy, HALF, "render.supersample=2", *kind)
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
    teacher, finer = teachers_of(toy, HALF)
    assert finer is teacher


@pytest.mark.parametrize(("multiple", "scale"), [(1, 2), (4, 3)])
def test_gaussians_that_are_not_drawn_as_finely_are_refused(toy, multiple, scale) -> None:
    found = rf"render\.supersample: found {scale}, expected a divisor of {multiple}, since Gaussians are drawn at"
    with pytest.raises(InputError, match=found):
        teachers_of(
            toy, HALF, f"render.supersample={scale}", "teacher.kind=gaussians", f"teacher.supersample={multiple}"
        )


@pytest.mark.parametrize("kind", ["views", "images"])
def test_pictures_that_are_not_as_wide_are_refused(toy, kind) -> None:
    found = rf"image size: found .*, expected at least render\.supersample 2 times as wide as the student's: {2 * SIZE}"
    with pytest.raises(InputError, match=found):
        teachers_of(toy, "render.supersample=2", f"teacher.kind={kind}")
