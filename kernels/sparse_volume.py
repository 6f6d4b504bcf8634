"""Trilinear interpolation in a volume that stores its occupied cells alone: what a training step asks at its samples.

The torch reference is written for clarity; the numba twin reads each cell's row once, its values side by side.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.threads import parallel_for

FIXED_COLUMNS = 2  # density, confidence; features follow
_GRAIN = 1024


class VolumeSample(NamedTuple):
    """A volume's values at N points.

    Attributes:
        features: (N, C) float32, 0 where the density is 0.
        density: (N,) float32, at least 0.
        confidence: (N,) float32.
    """

    features: Tensor
    density: Tensor
    confidence: Tensor


def sparse_volume(
    positions: Tensor,
    index: Tensor,
    table: Tensor,
    lower: tuple[float, float, float],
    cell_size: float,
    *,
    implementation: str = "auto",
) -> VolumeSample:
    """Density and confidence interpolated between the centres of the eight cells around each point, features too,
    with interpolation weight times density: an empty neighbour thins the density out and does not pull at features.

    Nothing has a gradient. Points further than half a cell outside the grid, or not finite, get zeros.

    Args:
        positions: (N, 3) float32 world.
        index: (X + 2, Y + 2, Z + 2) int32: row of ``table`` of each cell of the grid, which has a rim of one empty
            cell; 0 is empty.
        table: (M + 1, 2 + C) float32 density, confidence, features of each occupied cell; row 0 is zero.
        lower: world position of the corner of the grid within the rim; cell_size: world units.
        implementation: "auto", "torch" or "numba".
    """
    name = resolve("sparse_volume", implementation, positions.device, ("torch", "numba"))
    positions, table = positions.detach(), table.detach()
    run = _query_torch if name == "torch" else _query_numba
    return run(positions.contiguous(), index, table, lower, cell_size)


def _query_torch(positions, index, table, lower, cell_size) -> VolumeSample:
    corner = constant(tuple(lower), positions.device, torch.float64)
    place = (positions.double() - corner) / cell_size + 0.5
    limit = constant(tuple(index.shape), positions.device, torch.int64) - 1
    inside = ((place >= 0) & (place < limit)).all(-1)
    place = torch.where(inside[:, None], place, 0)
    below = place.long()
    part = place - below
    total = table.new_zeros(len(positions), table.shape[1], dtype=torch.float64)
    for offset in itertools.product((0, 1), repeat=3):
        cell = below + constant(offset, positions.device, torch.int64)
        weight = torch.where(constant(offset, positions.device) > 0, part, 1 - part).prod(-1)
        row = table[index[cell[:, 0], cell[:, 1], cell[:, 2]].long()].double()
        weighted = weight * row[:, 0]
        total += torch.cat([weight[:, None] * row[:, :2], weighted[:, None] * row[:, 2:]], dim=1)
    total = torch.where(inside[:, None], total, 0)
    density = total[:, 0]
    features = torch.where(density[:, None] > 0, total[:, 2:] / density[:, None], 0)
    return VolumeSample(features.float(), density.float(), total[:, 1].float())


def _query_numba(positions, index, table, lower, cell_size) -> VolumeSample:
    count, features = len(positions), table.shape[1] - FIXED_COLUMNS
    out = torch.empty(count, features), torch.empty(count), torch.empty(count)
    arrays = [part.numpy() for part in (positions, index, table)]
    corner = np.array(lower, np.float64)
    parallel_for(_query, count, *arrays, corner, float(cell_size), *(part.numpy() for part in out), grain=_GRAIN)
    return VolumeSample(*out)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
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
