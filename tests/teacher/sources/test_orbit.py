"""Cameras found from Gaussians alone: what is up, where one can stand, and whether one is inside."""

import logging

import numpy as np
import pytest
import torch

from scene.rays import project
from settings.errors import InputError
from settings.teacher import OrbitConfig
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from teacher.sources.orbit import orbit_of_gaussians, up_from_spread


def plane(lower, upper, spacing=0.2):
    """(N, 4) points of a box, flat along an axis where the corners agree, and how far they are apart."""
    axes = [np.arange(low, high + spacing / 2, spacing) for low, high in zip(lower, upper, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    return np.concatenate([points, np.full((len(points), 1), spacing)], axis=1)


def gaussians_at(*parts):
    points = torch.from_numpy(np.concatenate(parts)).float()
    count = len(points)
    return Gaussians(
        means=points[:, :3],
        log_scales=(0.6 * points[:, 3:]).log().expand(-1, 3).clone(),
        rotations=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        opacity_logits=torch.full((count,), 4.0),
        sh=torch.zeros(count, 1, 3),
    )


def walls(low, high, spacing, ends=()):
    """The walls of a box, and its floor and ceiling at the heights of ``ends``."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    parts = [plane((x, y0, z0), (x, y1, z1), spacing) for x in (x0, x1)]
    parts += [plane((x0, y, z0), (x1, y, z1), spacing) for y in (y0, y1)]
    return parts + [plane((x0, y0, z), (x1, y1, z), spacing) for z in ends]


@pytest.fixture(autouse=True)
def _few_cells(monkeypatch):
    """What is here is simple, and most of the time goes into the grid that it is looked at in."""
    monkeypatch.setattr("teacher.sources.orbit._CELLS", 32)


BLOCK = plane((-0.5, -0.5, 0), (0.5, 0.5, 0.6))
COURT = [plane((-0.5, -0.5, 0), (0.5, 0.5, 0.6), 0.09), *walls((-3, -3, 0), (3, 3, 2), 0.5)]
ROOM = walls((-2, -2, 0), (2, 2, 2.4), 0.25, ends=(0, 2.4))
FOUND = OrbitConfig()


def turned(points, up):
    """The points with z turned to another axis of the world."""
    axis = int(np.abs(up).argmax())
    turned = np.roll(points[:, :3], axis - 2, axis=1)
    turned[:, axis] *= np.sign(up[axis])
    return np.concatenate([turned, points[:, 3:]], axis=1)


@pytest.mark.parametrize("up", [*np.eye(3), *-np.eye(3)])
def test_up_is_where_less_is(up):
    tower = plane((-0.2, -0.2, 0), (0.2, 0.2, 1.5))
    ground = plane((-1, -1, 0), (1, 1, 0))
    assert up_from_spread(gaussians_at(turned(np.concatenate([tower, ground]), up))).tolist() == up.tolist()


def test_a_lone_object_fills_the_pictures_and_is_whole_in_each():
    scene = gaussians_at(BLOCK + np.array([5.0, 0, 1, 0]))
    orbit = orbit_of_gaussians(scene, FOUND, 24, 64, seed=0)
    assert "in the way" not in orbit.words and "up is" in orbit.words
    for frame in range(24):
        row, col, depth, _ = project(orbit.cameras, frame, scene.means)
        assert (depth > 0.3).all() and row.min() >= 0 and row.max() < 64 and col.min() >= 0 and col.max() < 64
        assert max(np.ptp(row.numpy()), np.ptp(col.numpy())) > 24
    torch.testing.assert_close(orbit.cameras.centers.mean(0)[:2], torch.tensor([5.0, 0.0]), rtol=0, atol=0.3)


def test_scale_changes_nothing_but_the_least_distance():
    for scale, distance in ((1000.0, None), (0.01, 0.3)):
        scene = gaussians_at(BLOCK * scale)
        cameras = orbit_of_gaussians(scene, FOUND, 8, 64, seed=0).cameras
        apart = (cameras.centers - scene.means.mean(0)).norm(dim=1)
        assert distance is None or (apart > distance).all()
        alpha = torch.stack([Rasterizer(scene).render(cameras, frame).alpha for frame in range(8)])
        assert 0.15 < (alpha > 0.5).float().mean() < 0.7


def test_within_walls_cameras_are_between_them_and_what_is_in_the_middle():
    scene = gaussians_at(*COURT)
    orbit = orbit_of_gaussians(
        scene, OrbitConfig(up=(0.0, 0.0, 1.0), distance=5.0, elevation=(5.0, 40.0)), 32, 64, seed=0
    )
    assert "since something is in the way" in orbit.words
    x, y, z = orbit.cameras.centers.T
    low = z < 2  # over the walls one can stand anywhere
    assert low.sum() > 8 and (x[low].abs().maximum(y[low].abs()) < 2.7).all() and (z > 0).all()
    for frame in range(0, 32, 4):  # what is in the middle of the picture is the block, not a wall before it
        seen = Rasterizer(scene).render(orbit.cameras, frame)
        assert seen.z[32, 32] > 0.6 * orbit.cameras.centers[frame].norm()


def test_a_room_is_looked_at_from_inside():
    scene = gaussians_at(*ROOM)
    orbit = orbit_of_gaussians(scene, OrbitConfig(up=(0.0, 0.0, 1.0)), 32, 48, seed=0)
    assert "inside" in orbit.words
    centers = orbit.cameras.centers
    assert (centers[:, :2].abs() < 1.9).all() and (centers[:, 2] > 0.1).all() and (centers[:, 2] < 2.3).all()
    assert centers.std(dim=0).min() > 0.1  # not all from one place
    ahead = -orbit.cameras.c2w[:, :3, 2]
    assert ahead.mean(0).norm() < 0.15  # to all sides
    assert all(Rasterizer(scene).render(orbit.cameras, frame).alpha.mean() > 0.95 for frame in range(0, 32, 4))
    around = orbit_of_gaussians(scene, OrbitConfig(inside=False), 8, 48, seed=0)
    assert (around.cameras.centers - scene.means.mean(0)).norm(dim=1).min() > 3


def test_a_court_with_an_open_sky_is_no_room_unless_it_is_said():
    scene = gaussians_at(*COURT)
    assert "inside" not in orbit_of_gaussians(scene, FOUND, 8, 32, seed=0).words
    assert "inside" in orbit_of_gaussians(scene, OrbitConfig(inside=True), 8, 32, seed=0).words


def test_the_seed_turns_them_and_up_is_taken_as_given():
    scene = gaussians_at(BLOCK)
    first, again, other = (orbit_of_gaussians(scene, FOUND, 6, 32, seed=seed).cameras for seed in (0, 0, 1))
    assert torch.equal(first.c2w, again.c2w) and not torch.allclose(first.c2w, other.c2w)
    orbit = orbit_of_gaussians(scene, OrbitConfig(up=(0.0, -3.0, 0.0), elevation=(60.0, 80.0)), 6, 32, seed=0)
    assert "up is -y (teacher.orbit.up)" in orbit.words and (orbit.cameras.c2w[:, 1, 2] < -0.8).all()


def test_one_gaussian_and_nowhere_to_stand(caplog):
    caplog.set_level(logging.WARNING)
    assert len(orbit_of_gaussians(gaussians_at(np.array([[0, 0, 0, 0.1]])), FOUND, 4, 32, seed=0).cameras) == 4
    assert not caplog.records
    solid = gaussians_at(plane((-1, -1, -1), (1, 1, 1), 0.25))
    with pytest.raises(InputError, match="teacher.orbit: found 0 places to look at the middle from.*data.transforms"):
        orbit_of_gaussians(solid, OrbitConfig(distance=1.0), 4, 32, seed=0)


def test_a_few_gaussians_far_from_all_others_do_not_move_the_cameras():
    block = gaussians_at(plane((-1, -1, -1), (1, 1, 1)))
    floaters = gaussians_at(np.array([[150.0, 20, 30, 0.2], [-90, 80, -200, 0.2]]))
    both = Gaussians(*(torch.cat([getattr(part, key) for part in (block, floaters)]) for key in vars(block)))
    alone, beside = (orbit_of_gaussians(one, OrbitConfig(), 8, 32, 0).cameras for one in (block, both))
    torch.testing.assert_close(beside.centers, alone.centers, atol=0.05, rtol=0.02)
