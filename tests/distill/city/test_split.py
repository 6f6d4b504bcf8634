"""Blocks of a city: balanced, disjoint, filling the whole; and who sees them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.city.coverage import cameras_of_blocks, views_of_points
from distill.city.split import split_box
from scene.cameras import Cameras
from scene.rays import SceneBox

BOX = SceneBox((-1.0, 0.0, 0.0), (3.0, 2.0, 0.5))


def points(count=4096):
    """More of them where x is small."""
    random = np.random.default_rng(0).random((count, 3)) ** [3, 1, 1]
    return np.array(BOX.lower) + random * np.array(BOX.extent)


@pytest.mark.parametrize("blocks", [1, 4, 7, (2, 2, 1), (3, 1, 2)])
def test_blocks_have_equal_weight_and_fill_the_box(blocks):
    places, count = points(), blocks if isinstance(blocks, int) else np.prod(blocks)
    boxes = split_box(BOX, places, np.ones(len(places)), blocks)
    assert len(boxes) == count
    held = [((places >= box.lower) & (places < box.upper)).all(axis=1) for box in boxes]
    assert (np.sum(held, axis=0) == 1).all()  # each point once: no gap, no overlap
    assert np.ptp([inside.sum() for inside in held]) <= count
    faces = {value for box in boxes for value in (box.lower[0], box.upper[0])} - {BOX.lower[0], BOX.upper[0]}
    assert faces == {box.lower[0] for box in boxes} - {BOX.lower[0]} == {box.upper[0] for box in boxes} - {BOX.upper[0]}


def test_a_cut_follows_the_weights_and_leaves_no_slivers():
    places = points()
    weights = np.where(places[:, 0] > 2, 50.0, 1.0)
    assert split_box(BOX, places, weights, (2, 1, 1))[0].upper[0] > 2
    heaped = np.full((9, 3), 1e-9) + [BOX.lower]
    left, right = split_box(BOX, heaped, np.ones(9), 2)
    assert left.upper[0] == right.lower[0] == pytest.approx(-0.8)  # a tenth of half of the side
    assert split_box(BOX, places[:0], weights[:0], 2)[0].upper[0] == 1.0


def looking_down(*centres, width=100, height=50, focal=50.0):
    c2w = torch.eye(4).repeat(len(centres), 1, 1)
    c2w[:, :3, 3] = torch.tensor(centres)
    each = torch.ones(len(centres))
    return Cameras(c2w, focal * each, focal * each, width / 2 * each, height / 2 * each, width, height)


def test_a_camera_sees_what_is_in_its_frustum_and_large_enough():
    boxes = [SceneBox((-1, -1, 0), (0, 1, 1)), SceneBox((0, -1, 0), (1, 1, 1)), SceneBox((40, -1, 0), (41, 1, 1))]
    cameras = looking_down((0.0, 0.0, 3.0), (5.0, 0.0, 3.0), (0.5, 0.0, 0.5), (0.0, 0.0, -1.0), (0.0, 0.0, 80.0))
    seen = cameras_of_blocks(cameras, boxes, 0.001, 0.05, 100.0)
    # from above both; from beside none; inside one, which hides what is behind it from nobody; not backwards; small.
    assert seen.tolist() == [
        [True, True, False],
        [False, False, False],
        [False, True, False],
        [False, False, False],
        [False, False, False],
    ]
    assert cameras_of_blocks(cameras, boxes, 0.0, 0.05, 100.0)[4].tolist() == [True, True, True]
    assert not cameras_of_blocks(cameras, boxes, 0.0, 0.05, 50.0)[4].any()


def test_the_views_of_points_are_counted():
    cameras = looking_down((0.0, 0.0, 3.0), (2.0, 0.0, 3.0))
    found = views_of_points(cameras, np.array([[0.0, 0, 0], [1.0, 0, 0], [9.0, 0, 0], [0.0, 0, 4.0]]))
    assert found.tolist() == [2, 2, 0, 0]
    assert views_of_points(looking_down(*[(0.0, 0.0, 3.0)] * 1100), np.zeros((1, 3))).tolist() == [367]
