"""Solids: samples lie on the surface, evenly, with outward normals; insides by hand."""

from math import pi

import numpy as np
import pytest

from teacher.bricks.solids import Box, Cut, Cylinder, Ring, join, select

BOX = Box((0.0, 0.0, 0.0), (2.0, 1.0, 0.5))
CYLINDER = Cylinder((1.0, 2.0, 3.0), 1, 0.5, 2.0)  # along y
RING = Ring((0.0, 0.0, 1.0), 0, 1.0, 0.2)  # around x


@pytest.mark.parametrize(
    ("solid", "area", "centre"),
    [
        (BOX, 2 * (2 * 1 + 2 * 0.5 + 1 * 0.5), (1.0, 0.5, 0.25)),
        (CYLINDER, 2 * pi * 0.25 + 2 * pi * 0.5 * 2, (1.0, 3.0, 3.0)),
        (RING, 4 * pi**2 * 1.0 * 0.2, (0.0, 0.0, 1.0)),
    ],
)
def test_samples_cover_the_surface(solid, area, centre):
    samples = solid.sample(0.05)
    np.testing.assert_allclose(np.linalg.norm(samples.normals, axis=1), 1, atol=1e-12)
    assert solid.contains(samples.points - 1e-6 * samples.normals).all()
    assert not solid.contains(samples.points + 1e-6 * samples.normals).any()
    assert (samples.spacing**2).sum() == pytest.approx(area, rel=0.03)
    np.testing.assert_allclose(samples.points.mean(axis=0), centre, atol=1e-9)


def test_insides():
    assert BOX.contains(np.array([[1, 0.5, 0.25], [2.1, 0.5, 0.25], [2.0, 0.5, 0.25]])).tolist() == [True, False, False]
    points = np.array([[1, 2.1, 3], [1.4, 3.9, 3.1], [1.4, 3, 3.4], [1, 4.1, 3]])
    assert CYLINDER.contains(points).tolist() == [True, True, False, False]
    assert RING.contains(np.array([[0, 0, 2.1], [0.1, 1.0, 1.0], [0, 0, 1.0]])).tolist() == [True, True, False]


def test_thin_parts_are_sampled_closer():
    assert Box((0, 0, 0), (1, 1, 0.02)).sample(0.1).spacing.min() == pytest.approx(0.01)
    rod = Cylinder((0, 0, 0), 2, 0.03, 1.0).sample(0.1)
    assert rod.spacing.max() == pytest.approx(0.02)


def test_cut_has_walls_that_face_into_the_hole():
    wall = Cut(Box((0, 0, 0), (4, 1, 4)), (Cylinder((2, -1, 2), 1, 1.0, 3),))
    assert wall.contains(np.array([[0.5, 0.5, 0.5], [2, 0.5, 2.9], [2, 0.5, 3.1]])).tolist() == [True, False, True]
    samples = wall.sample(0.05)
    offset = samples.points - (2, 0.5, 2)
    radius = np.hypot(offset[:, 0], offset[:, 2])
    assert (radius > 1 - 1e-9).all()
    tunnel = np.abs(radius - 1) < 1e-9
    assert (samples.spacing[tunnel] ** 2).sum() == pytest.approx(2 * pi, rel=0.03)
    assert ((samples.normals * offset).sum(axis=1)[tunnel] < -0.99).all()
    faces = np.abs(samples.normals[:, 1]) > 0.99
    assert (samples.spacing[faces] ** 2).sum() == pytest.approx(2 * (16 - pi), rel=0.03)


def test_join_and_select():
    both = join([BOX.sample(0.5), RING.sample(0.5)])
    assert len(both.points) == len(BOX.sample(0.5).points) + len(RING.sample(0.5).points)
    upper = select(both, both.points[:, 2] > 1)
    assert 0 < len(upper.points) < len(both.points) and (upper.points[:, 2] > 1).all()
    assert len(upper.normals) == len(upper.spacing) == len(upper.points)
