"""By what a run's rays are guided: its teacher's Gaussians, its distances, or nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene.cells import CellGrid
from settings.errors import InputError
from settings.loading import load_config
from teacher.sources import finer_teacher, load_teacher, supersample_of, teacher_sight
from teacher.sources.occupied_cells import cells_of_gaussians
from teacher.views import sight as views_sight
from teacher.views.lazy_pictures import PictureStore
from tests.toy_scene import BOTH_SPLITS, FRAMES, SIZE, add_training_split, write_toy_scene


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    path = write_toy_scene(tmp_path_factory.mktemp("toy"), eval=BOTH_SPLITS)
    add_training_split(path.parent, 5)
    return path


def sight_of(path: Path, *overrides: str):
    config = load_config(path, ["render.sampling=auto", *overrides], path.parent)
    teacher = load_teacher(config)
    grid = CellGrid(teacher.box, 32)
    sight = teacher_sight(config, teacher, grid)
    assert teacher_sight(config, teacher, grid) is sight  # it is made once
    return teacher, grid, sight


@pytest.mark.parametrize("kind", ["gaussians", "views"])
def test_gaussians_guide_the_views_that_are_trained_on(toy, kind) -> None:
    teacher, grid, sight = sight_of(toy, f"teacher.kind={kind}", "data.holdout_every=4")
    reached = cells_of_gaussians(teacher.gaussians, grid)
    assert sight.reach.shape == (int((~teacher.views.holdout).sum()), SIZE, SIZE)
    assert sight.reach.isfinite().any() and sight.reach.isinf().any()
    # The inside of an opaque block does not show.
    assert 0 < sight.cells.sum() < reached.sum()


@pytest.mark.parametrize(
    ("overrides", "times"),
    [
        (("teacher.kind=gaussians", "data.resolution=12"), 1),
        (("teacher.kind=views", "data.resolution=12"), 1),
        (("teacher.kind=gaussians", "data.resolution=12", "data.ground_truth={split: train, weight: 0.5}"), 1),
        (("teacher.kind=views", "data.resolution=8"), 2),  # drawn at 24 pixels, and at 32 for pictures of 16
    ],
)
def test_gaussians_are_looked_at_once_for_a_student_of_finer_pictures(toy, monkeypatch, overrides, times) -> None:
    looks, reach = [], views_sight.view_reach
    monkeypatch.setattr(views_sight, "view_reach", lambda *given: looks.append(given) or reach(*given))
    teacher, grid, alone = sight_of(toy, *overrides)
    config, count = load_config(toy, ["render.sampling=auto", *overrides], toy.parent), len(looks)
    teacher.sight = None
    assert supersample_of(config, teacher) == 2
    sight = teacher_sight(config, teacher, grid)
    assert torch.equal(sight.cells, alone.cells) and torch.equal(sight.reach, alone.reach)
    assert (sight.image_reach is None) == (teacher.images is None)
    assert sight.image_reach is None or torch.equal(sight.image_reach, alone.image_reach)
    finer = finer_teacher(config, teacher, 2)
    assert teacher_sight(config, finer, grid).reach.shape[1:] == (2 * sight.reach.shape[1], 2 * sight.reach.shape[2])
    assert len(looks) == count + times * count


def test_of_a_live_teacher_the_cells_are_known_before_its_views(toy) -> None:
    live = ("teacher.kind=gaussians", "teacher.live.buffer=4", "data.train_transforms=data/transforms_train.json")
    _, _, sight = sight_of(toy, *live)
    assert sight.reach is None and sight.cells.any()


def test_distances_guide_where_there_are_no_gaussians(toy) -> None:
    _, _, sight = sight_of(toy, "teacher.kind=views", "teacher.ply=null", "data.holdout_every=0")
    assert sight.cells is None and sight.reach.shape == (FRAMES, SIZE, SIZE)


def test_distances_that_come_and_go_are_not_kept_for_a_reach(toy) -> None:
    teacher, grid, _ = sight_of(toy, "teacher.kind=views", "teacher.ply=null")
    decoded = []
    teacher.sight, teacher.views = None, replace(teacher.views, store=PictureStore(decoded.append, FRAMES, 1))
    config = load_config(toy, ["render.sampling=auto"], toy.parent)
    sight = teacher_sight(config, teacher, grid)
    assert sight.cells is None and sight.reach is None and not decoded


def test_pictures_alone_guide_nothing(toy) -> None:
    assert sight_of(toy, "teacher.kind=images")[2] is None
    assert sight_of(toy, "teacher.kind=gaussians", "render.sampling=occupancy")[2] is None
    with pytest.raises(InputError, match=r"render\.sampling: found teacher, expected a teacher with Gaussians"):
        sight_of(toy, "teacher.kind=images", "render.sampling=teacher")


def test_reach_is_infinite_beside_the_scene(toy) -> None:
    teacher, _, sight = sight_of(toy, "teacher.kind=gaussians", "data.holdout_every=0")
    assert torch.equal(sight.reach.isinf() & (teacher.views.alpha == 0), teacher.views.alpha == 0)


@pytest.mark.parametrize("kind", ["gaussians", "views"])
def test_what_the_near_plane_leaves_out_is_not_seen(toy, kind) -> None:
    _, _, sight = sight_of(toy, f"teacher.kind={kind}", "teacher.near=2.6")
    assert not sight.cells.any()
