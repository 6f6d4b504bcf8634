"""Which pixels of a view look at occupied cells."""

from __future__ import annotations

from math import ceil, floor, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.gaussians.rasterize import View
from kernels.marching.ray_samples import Cells
from kernels.threads import COMPILED, INNER, parallel_for


def pixels_of_cells(cells: Cells, view: View) -> Tensor:
    """(H, W) bool: a superset of the pixels whose rays meet an occupied cell; at most about a cell's width too many.

    The ball around each cell is projected, as the square around its ellipse. On the CPU, like the cells.
    """
    wanted = torch.zeros(view.height, view.width, dtype=torch.uint8)
    intrinsics = np.array([view.fx, view.fy, view.cx, view.cy])
    parallel_for(
        _project, len(cells.places), cells.places, np.array(cells.lower), float(cells.size), view.opencv_pose().numpy(),
        intrinsics, wanted, grain=1 << 15,
    )  # fmt: skip
    return wanted.bool()


@njit(**COMPILED)
def _project(start, stop, cells, lower, size, pose, intrinsics, wanted):
    """Threads may set a pixel at the same time: what they write is the same."""
    fx, fy, cx, cy = intrinsics
    height, width = wanted.shape
    radius = size * sqrt(3.0) / 2
    for i in range(start, stop):
        x, y, z = pose[0, 3], pose[1, 3], pose[2, 3]
        for axis in range(3):
            centre = lower[axis] + (cells[i, axis] + 0.5) * size
            x += pose[0, axis] * centre
            y += pose[1, axis] * centre
            z += pose[2, axis] * centre
        if z <= -radius:
            continue
        left, right, top, bottom = 0, width, 0, height
        if z > radius:
            # What is within the radius of (x, z) is seen under these slopes (Mara and McGuire 2013).
            depth = z * z - radius * radius
            across, up = radius * sqrt(x * x + depth), radius * sqrt(y * y + depth)
            left, right = _between(fx * (x * z - across) / depth + cx, fx * (x * z + across) / depth + cx, width)
            top, bottom = _between(fy * (y * z - up) / depth + cy, fy * (y * z + up) / depth + cy, height)
        wanted[top:bottom, left:right] = 1


@njit(**COMPILED, **INNER)
def _between(low, high, count):
    """First and past-the-last pixel whose centre lies in an interval."""
    return int(min(max(ceil(low - 0.5), 0), count)), int(min(max(floor(high - 0.5) + 1, 0), count))
