"""Numba twin of the interpolation in a sparse volume: it reads each cell's row once, its values side by side."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, parallel_for

FIXED_COLUMNS = 2  # density, confidence; features follow
_GRAIN = 1024


def query(positions: Tensor, index: Tensor, table: Tensor, lower: tuple[float, ...], cell_size: float):
    """Features, density and confidence; see ``kernels.gaussians.sparse_volume``."""
    count = len(positions)
    out = torch.empty(count, table.shape[1] - FIXED_COLUMNS), torch.empty(count), torch.empty(count)
    corner = np.array(lower, np.float64)
    parallel_for(_query, count, positions, index, table, corner, float(cell_size), *out, grain=_GRAIN)
    return out


@njit(**COMPILED, fastmath={"contract"})
def _query(start, stop, positions, index, table, lower, cell_size, features, density, confidence):
    one, zero = np.float32(1), np.float32(0)
    width = features.shape[1]
    for n in range(start, stop):
        density[n], confidence[n] = zero, zero
        found = features[n]
        found[:] = zero
        x = (positions[n, 0] - lower[0]) / cell_size + 0.5
        y = (positions[n, 1] - lower[1]) / cell_size + 0.5
        z = (positions[n, 2] - lower[2]) / cell_size + 0.5
        # Written so that it fails for what is not a number.
        if not (0 <= x < index.shape[0] - 1 and 0 <= y < index.shape[1] - 1 and 0 <= z < index.shape[2] - 1):
            continue
        ix, iy, iz = int(x), int(y), int(z)
        fx, fy, fz = np.float32(x - ix), np.float32(y - iy), np.float32(z - iz)
        total, sure = zero, zero
        for corner in range(8):
            dx, dy, dz = corner >> 2, corner >> 1 & 1, corner & 1
            row = np.uint32(index[ix + dx, iy + dy, iz + dz])  # unsigned: no check for negative indices
            if row == 0:
                continue
            values = table[row]
            weight = (fx if dx else one - fx) * (fy if dy else one - fy) * (fz if dz else one - fz)
            sure += weight * values[1]
            weight *= values[0]
            total += weight
            for c in range(width):
                found[c] += weight * values[FIXED_COLUMNS + c]
        density[n], confidence[n] = total, sure
        scale = one / total if total > 0 else zero
        for c in range(width):
            found[c] *= scale
