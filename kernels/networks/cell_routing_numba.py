"""Numba twin of the routing of points to cells: one pass counts a point's evaluations, a second writes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import FAST, parallel_for

_GRAIN = 8192
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


def route(positions: Tensor, lower: Tensor, scale: Tensor, grid: Sequence[int], blend: float) -> tuple[Tensor, ...]:
    """Local coordinates, cells, points and weights of the evaluations; ``scale`` is in cells per world unit."""
    count = len(positions)
    arguments = positions.contiguous(), lower, scale, np.array(grid, dtype=np.int64), np.float32(blend)
    ends = torch.arange(1, count + 1)
    if blend > 0:
        counts = torch.empty(count, dtype=torch.int64)
        parallel_for(count_evaluations, count, *arguments, counts, grain=_GRAIN)
        ends = counts.cumsum(0)
    total = int(ends[-1]) if count else 0
    local, cell = torch.empty(total, 3), torch.empty(total, dtype=torch.int64)
    outputs = local, cell, torch.empty(total, dtype=torch.int64), torch.empty(total)
    parallel_for(fill_evaluations, count, *arguments, ends, *outputs, grain=_GRAIN)
    return outputs


@njit(**FAST)
def _locate(place, cells, blend):
    """On one axis: the cell, the step to the neighbour a place is blended with (0: none), and that one's share."""
    corner = min(max(int(np.floor(place)), 0), cells - 1)
    offset = place - np.float32(corner) - _HALF
    step = -1 if offset < 0 else 1
    to_face = _HALF - abs(offset)
    if to_face < blend and 0 <= corner + step < cells:
        return corner, step, _HALF - to_face / (_TWO * blend)
    return corner, 0, np.float32(0)


@njit(**FAST)
def count_evaluations(start, stop, positions, lower, scale, grid, blend, counts):
    """Evaluations that each of the points ``start .. stop`` needs."""
    for i in range(start, stop):
        count = 1
        for axis in range(3):
            _, step, _ = _locate((positions[i, axis] - lower[axis]) * scale[axis], grid[axis], blend)
            count <<= step != 0
        counts[i] = count


@njit(**FAST)
def fill_evaluations(start, stop, positions, lower, scale, grid, blend, ends, local, cell, point, weight):
    """The evaluations of the points ``start .. stop``; those of point i end before ``ends[i]``."""
    target = 0 if start == 0 else ends[start - 1]
    for i in range(start, stop):
        px = (positions[i, 0] - lower[0]) * scale[0]
        py = (positions[i, 1] - lower[1]) * scale[1]
        pz = (positions[i, 2] - lower[2]) * scale[2]
        x, x_step, x_share = _locate(px, grid[0], blend)
        y, y_step, y_share = _locate(py, grid[1], blend)
        z, z_step, z_share = _locate(pz, grid[2], blend)
        for beyond_z in range(1 + (z_step != 0)):
            cz, wz = (z + z_step, z_share) if beyond_z else (z, _ONE - z_share)
            for beyond_y in range(1 + (y_step != 0)):
                cy, wy = (y + y_step, y_share) if beyond_y else (y, _ONE - y_share)
                for beyond_x in range(1 + (x_step != 0)):
                    cx, wx = (x + x_step, x_share) if beyond_x else (x, _ONE - x_share)
                    local[target, 0] = _TWO * (px - np.float32(cx)) - _ONE
                    local[target, 1] = _TWO * (py - np.float32(cy)) - _ONE
                    local[target, 2] = _TWO * (pz - np.float32(cz)) - _ONE
                    cell[target], point[target] = (cx * grid[1] + cy) * grid[2] + cz, i
                    weight[target] = wx * wy * wz
                    target += 1
