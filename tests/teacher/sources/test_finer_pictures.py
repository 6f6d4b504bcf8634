"""Pictures for the rays of students whose pixels are means of several: finer ones of the very same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene.cells import CellGrid
from settings.errors import InputError
from settings.loading import load_config
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources import finer_teacher, likely_supersample, load_teacher, supersample_of, teacher_sight
from tests.toy_scene import FRAMES, SIZE, add_training_split, write_toy_scene


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
    teacher, finer = teachers_of(toy, 2, HALF, "data.holdout_every=4", *kind)
    trained = (~teacher.views.holdout).nonzero()[:, 0].tolist()
    fine = finer.views
    found = (~fine.holdout).nonzero()[:, 0].tolist()
    assert finer.training_cameras.same_as(teacher.training_cameras.finer(2)) and finer.box == teacher.box
    assert [fine.names[index] for index in found] == [teacher.views.names[index] for index in trained]
    cameras = teacher.views.cameras
    size = cameras.height, 2, cameras.width, 2, 3
    background = teacher.views.background or (0.0, 0.0, 0.0)
    for coarse_index, fine_index in zip(trained, found, strict=True):
        means = fine.image(fine_index, background).view(size).mean((1, 3))
        # Colour and alpha are rounded to 8 bits each.
        assert (means - teacher.views.image(coarse_index, background)).abs().max() < 3 / 255
    assert teacher.views.image(0, background).std() > 0.05


def test_of_masked_views_the_same_parts_are_trained_on(toy) -> None:
    config = load_config(toy, [HALF, "teacher.kind=gaussians", "teacher.supersample=2"], toy.parent)
    teacher = load_teacher(config)
    counted = torch.rand(len(teacher.views), SIZE // 2, SIZE // 2) < 0.5
    teacher.views = replace(teacher.views, counted=counted)
    fine = finer_teacher(config, teacher, 2).views.counted
    blocks = fine.view(-1, SIZE // 2, 2, SIZE // 2, 2).permute(0, 1, 3, 2, 4).reshape(-1, SIZE // 2, SIZE // 2, 4)
    trained = counted[~teacher.views.holdout]
    assert torch.equal(blocks.all(-1), trained) and torch.equal(blocks.any(-1), trained)


def test_of_a_live_teacher_the_views_to_come_are_finer(toy) -> None:
    live = ("teacher.kind=gaussians", "teacher.live.buffer=4", "teacher.supersample=2")
    teacher, finer = teachers_of(toy, 2, HALF, *live)
    assert finer.poses.camera(5).same_as(teacher.poses.camera(5).finer(2)) and finer.drawing.supersample == 1
    assert finer.views is teacher.views and teacher.poses.cameras.width == SIZE // 2


def test_the_dataset_s_images_are_finer_too_where_they_are_trained_on(toy) -> None:
    both = ("teacher.kind=gaussians", "teacher.supersample=2", "data.ground_truth.split=train")
    teacher, finer = teachers_of(toy, 2, HALF, *both)
    assert teacher.images.cameras.width == SIZE // 2 and finer.images.cameras.width == SIZE


@pytest.mark.parametrize("scale", [2, 3])
def test_images_from_the_teacher_s_cameras_have_its_finer_distances(toy, scale) -> None:
    width = SIZE // scale
    drawn = (f"data.resolution={width}", "teacher.kind=gaussians", f"teacher.supersample={scale}")
    teacher, finer = teachers_of(toy, scale, *drawn, "data.holdout_every=4", "data.ground_truth.split=train")
    trained = finer.images.training_frames
    assert 0 < len(trained) < len(finer.images) and finer.images.cameras.width == scale * width
    for of, frames in ((teacher, trained), (finer, slice(None))):
        expected = of.views.distance[frames].where(of.views.coverage[frames] >= 128, 0.0)
        assert torch.equal(of.images.distance[trained], expected) and expected.any()
    assert not finer.images.distance[finer.images.holdout].any()


def test_without_supersampling_they_are_the_teacher_s_own(toy) -> None:
    teacher, finer = teachers_of(toy, 1, HALF)
    assert finer is teacher


def test_what_is_drawn_is_as_fine_and_as_wide(toy) -> None:
    config = load_config(toy, [HALF, "teacher.kind=gaussians", "teacher.supersample=3"], toy.parent)
    teacher = load_teacher(config)
    finer = finer_teacher(config, teacher, 2)
    assert finer.gaussians is teacher.gaussians
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
    needed = FRAMES * SIZE**2 * 20
    for available, expected in ((1.9 * needed, 1), (2.1 * needed, 2)):
        monkeypatch.setattr("machine.memory.available_bytes", lambda available=available: available)
        teacher = load_teacher(config)
        assert supersample_of(config, teacher) == expected and (teacher.finer is not None) == (expected == 2)
    tried = teacher.finer
    assert finer_teacher(config, teacher, 2) is tried and teacher.finer is None  # not held twice


def drawn_of(monkeypatch) -> list[int]:
    """The widths of the pictures that are drawn from now on."""
    render, widths = Rasterizer.render, []

    def watched(self, cameras, index, channels=None):
        widths.append(cameras.width)
        return render(self, cameras, index, channels)

    monkeypatch.setattr(Rasterizer, "render", watched)
    return widths


@pytest.mark.parametrize("multiple", [2, 4, 3])
@pytest.mark.parametrize("split", [False, True])
def test_one_drawing_gives_a_view_and_its_finer_picture_where_both_are_drawn_at_one_size(
    toy, tmp_path, monkeypatch, multiple, split
) -> None:
    path = write_toy_scene(tmp_path) if split else toy
    overrides = [HALF, "teacher.kind=gaussians", f"teacher.supersample={multiple}", "data.holdout_every=4"]
    trained = FRAMES - 5
    if split:
        add_training_split(tmp_path, trained)
        overrides.append("data.train_transforms=data/transforms_train.json")
    # Nothing to try widths by.
    config = load_config(path, [*overrides, "data.ground_truth=false", "teacher.outputs=null"], path.parent)
    apart = finer_teacher(config, load_teacher(config), 2).views
    widths = drawn_of(monkeypatch)
    teacher = load_teacher(config, finer=2)
    together = finer_teacher(config, teacher, 2).views
    extra = trained if multiple == 3 else 0
    assert len(widths) == len(teacher.views) + extra and teacher.views.finer is None
    assert together.names == apart.names and together.cameras.same_as(apart.cameras)
    assert len(together) == trained and not together.holdout.any()
    for name in ("rgb", "alpha", "coverage", "distance"):
        assert torch.equal(getattr(together, name), getattr(apart, name))


def test_finer_pictures_are_not_drawn_beside_others_where_half_of_what_is_free_does_not_hold_them(
    toy, monkeypatch
) -> None:
    overrides = [HALF, "teacher.kind=gaussians", "teacher.supersample=2", "data.ground_truth=false"]
    config = load_config(toy, overrides, toy.parent)
    for available, expected in ((1.9 * FRAMES * SIZE**2 * 20, 1), (2.1 * FRAMES * SIZE**2 * 20, 2)):
        monkeypatch.setattr("machine.memory.available_bytes", lambda available=available: available)
        teacher = load_teacher(config, finer=likely_supersample(config))
        assert (teacher.views.finer is not None) == (expected == 2)
        monkeypatch.setattr("machine.memory.available_bytes", lambda available=available: available / 2)
        assert supersample_of(config, teacher) == expected  # though they have taken some of it by now


def test_gaussians_that_are_not_drawn_as_finely_are_refused(toy) -> None:
    found = r"render\.supersample: found 3, expected at most 2, since Gaussians are drawn at 24 pixels for"
    with pytest.raises(InputError, match=found):
        teachers_of(toy, 3, HALF, "teacher.kind=gaussians", "teacher.supersample=2")


@pytest.mark.parametrize("kind", ["views", "images"])
def test_pictures_that_are_not_as_wide_are_refused(toy, kind) -> None:
    found = rf"image size: found .*, expected for render\.supersample 2 pictures 2 times as wide .*, {2 * SIZE} pixels"
    with pytest.raises(InputError, match=found):
        teachers_of(toy, 2, f"teacher.kind={kind}")


def test_how_gaussians_are_drawn_is_found_out_once_for_a_teacher_and_its_finer_self(toy, caplog) -> None:
    caplog.set_level("INFO")
    config = load_config(toy, [HALF, "teacher.kind=views", "render.sampling=teacher"], toy.parent)
    teacher = load_teacher(config)
    grid = CellGrid(teacher.box, 16)
    assert supersample_of(config, teacher) == 2
    assert teacher_sight(config, teacher, grid) is not None
    assert teacher_sight(config, finer_teacher(config, teacher, 2), grid) is not None
    assert caplog.text.count("Gaussians fitted at") == 1
