"""What comes of depth files that a teacher's views are read with: coverage, distances, and what is said of them."""

import logging

import numpy as np
import pytest
import torch

from settings.errors import InputError
from tests.teacher.toy_outputs import load


def change_depth(teacher, change):
    for path in (teacher / "ours_7" / "depth").iterdir():
        np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("sky", "options"),
    [(1e10, {"depth_empty": [1e10]}), (np.inf, {"depth_empty": ["inf"]}), (40.0, {"depth_empty": []})],
)
@pytest.mark.parametrize("kind", ["z", "z_normalized", "distance_normalized"])
def test_a_sky_covers_nothing(teacher, caplog, sky, options, kind):
    plain = load(teacher, depth_kind=kind)
    change_depth(teacher, lambda depth: np.where(depth > 0, depth, np.float32(sky)))
    with caplog.at_level(logging.WARNING):
        views = load(teacher, depth_kind=kind, **options)
    assert torch.equal(views.coverage, plain.coverage) and torch.equal(views.distance, plain.distance)
    assert ("63.5% of the pixels with depth are far beyond the scene box" in caplog.text) == (sky == 40)


@pytest.mark.parametrize("box", [{}, {"box": None}])
def test_one_over_the_z_of_a_sky_covers_nothing(teacher, box):
    change_depth(teacher, lambda depth: np.where(depth > 0, 1 / 3, np.float32(0.005)))
    views = load(teacher, depth_kind="inverse_z_normalized", **box)
    assert views.coverage[0].sum().item() == 255 * 5 * 7 and (views.distance[0] > 0).sum() == 5 * 7


def test_depth_that_lands_nowhere_is_refused(teacher):
    change_depth(teacher, lambda depth: depth * 10)
    with pytest.raises(InputError, match="depth: found no pixel with a distance when read as z_normalized; fully"):
        load(teacher)
    change_depth(teacher, lambda depth: depth * 0)
    with pytest.raises(InputError, match="no pixel with a distance .*all values are 0, .* Write the depth files again"):
        load(teacher)
    assert load(teacher, depth_kind="none").distance is None


def test_depth_that_mostly_lands_outside_is_said(teacher, caplog):
    def nearer(depth):
        depth[2:7, 2:8] /= 2
        return depth

    change_depth(teacher, nearer)
    with caplog.at_level(logging.WARNING):
        load(teacher)
    assert "85.7% of the covered pixels have no distance in the scene box when read as z_normalized" in caplog.text


def test_pictures_of_depth_are_refused_whatever_kind_is_said(teacher):
    change_depth(teacher, lambda depth: depth / 3)
    with pytest.raises(InputError, match="each view was stretched by itself.*is 1, .*depth_kind: none"):
        load(teacher)
