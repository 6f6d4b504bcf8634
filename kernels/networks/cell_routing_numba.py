"""Numba twin of the routing of points to cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import FAST, parallel_for

_GRAIN = 8192
_ONE, _TWO = np.float32(1), np.float32(2)


def route(positions: Tensor, lower: Tensor, scale: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Local coordinates and cells; ``scale`` is in cells per world unit."""
    count = len(positions)
    local, cell = torch.empty(count, 3), torch.empty(count, dtype=torch.int64)
    where = positions.contiguous(), lower, scale, np.array(grid, dtype=np.int64)
    parallel_for(fill_cells, count, *where, local, cell, grain=_GRAIN)
    return local, cell


@njit(**FAST)
def fill_cells(start, stop, positions, lower, scale, grid, local, cell):
    """Writes local coordinates and cells of the points ``start .. stop``."""
    for i in range(start, stop):
        number = 0
        for axis in range(3):
            place = (positions[i, axis] - lower[axis]) * scale[axis]
            corner = min(max(int(np.floor(place)), 0), grid[axis] - 1)
            local[i, axis] = _TWO * (place - np.float32(corner)) - _ONE
            number = number * grid[axis] + corner
        cell[i] = number
