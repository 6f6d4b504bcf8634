"""Cameras where there are none: upright, rigid, evenly spread, and so is every k-th of them."""

import math

import numpy as np
import pytest
import torch

from scene.orbits import posed_cameras, spiral_rotations

UPS = [(0, 0, 1), (0, -1, 0), (0.6, 0, 0.8), (-1, 0, 0)]


@pytest.mark.parametrize("up", UPS)
def test_axes_are_rigid_upright_and_between_the_elevations(up):
    up = np.array(up, float)
    rotations = spiral_rotations(50, -10, 60, up, start=0.7)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    right, above, back = rotations.transpose(2, 0, 1)
    np.testing.assert_allclose(right @ up, 0, atol=1e-12)  # the horizon is level
    assert (above @ up > 0).all()
    elevations = np.degrees(np.arcsin(back @ up))
    assert -10 < elevations.min() < -8 and 57 < elevations.max() < 60 and (np.diff(elevations) > 0).all()


def test_all_and_every_eighth_are_evenly_spread():
    back = spiral_rotations(128, -90, 90, np.array([0.0, 0, 1]))[:, :, 2]
    for chosen in (back, back[::8]):
        apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)
        nearest = np.sort(apart, axis=1)[:, 1]
        assert nearest.min() > 0.3 * math.sqrt(4 * math.pi / len(chosen))


def test_lens_and_places():
    rotations = spiral_rotations(3, 0, 30, np.array([0.0, 0, 1]))
    cameras = posed_cameras(rotations, 2 * rotations[:, :, 2], math.radians(45), 40, 30)
    torch.testing.assert_close(cameras.fx, torch.full((3,), 15.0))
    assert torch.equal(cameras.fx, cameras.fy) and cameras.cx.tolist() == [20.0] * 3 and cameras.cy[0] == 15
    torch.testing.assert_close(cameras.centers.norm(dim=1), torch.full((3,), 2.0))
