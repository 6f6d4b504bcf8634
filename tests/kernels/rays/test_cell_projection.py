"""Pixels that look at occupied cells, against rays that are marched."""

from __future__ import annotations

import pytest
import torch

from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells
from kernels.rays.cell_projection import pixels_of_cells
from tests.kernels.gaussians.gaussian_scenes import random_view


def met(cells, view):
    """(H, W) bool by marching."""
    pose = view.opencv_pose()
    x = (torch.arange(view.width) + 0.5 - view.cx) / view.fx
    y = (torch.arange(view.height) + 0.5 - view.cy) / view.fy
    y, x = torch.meshgrid(y, x, indexing="ij")
    rays = torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], -1) @ pose[:, :3].float(), dim=-1)
    rays = rays.reshape(-1, 3)
    origins = (-pose[:, :3].T @ pose[:, 3]).float().expand_as(rays)
    near, far = torch.zeros(len(rays)), torch.full((len(rays),), 6.0)
    found = march(origins, rays, near, far, cells, step=0.004, limit=1, implementation="numba")
    return (found.offsets.diff() > 0).view(view.height, view.width)


@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_is_missed_and_few_are_too_many(seed):
    occupied = (torch.rand((12, 8, 10), generator=torch.Generator().manual_seed(seed)) < 0.01).to(torch.uint8)
    cells, view = Cells((-0.6, -0.4, -0.5), 0.1, occupied), random_view(70, 50)
    found, expected = pixels_of_cells(cells, view), met(cells, view)
    assert expected.any() and not (expected & ~found).any()
    assert found.sum() < 2.5 * expected.sum()


def test_a_camera_among_the_cells_looks_at_them_everywhere():
    view = random_view(20, 20)
    eye = -view.opencv_pose()[:, :3].T @ view.opencv_pose()[:, 3]
    cells = Cells(tuple((eye - 0.05).tolist()), 0.1, torch.ones((1, 1, 1), dtype=torch.uint8))
    assert pixels_of_cells(cells, view).all()


def test_nothing_is_seen_of_what_is_behind_or_empty():
    view = random_view(20, 20)
    empty = torch.zeros((2, 2, 2), dtype=torch.uint8)
    assert not pixels_of_cells(Cells((0.0, 0.0, 0.0), 0.1, empty), view).any()
    eye = -view.opencv_pose()[:, :3].T @ view.opencv_pose()[:, 3]
    behind = eye - 2 * view.opencv_pose()[2, :3]
    assert not pixels_of_cells(Cells(tuple(behind.tolist()), 0.1, empty + 1), view).any()
