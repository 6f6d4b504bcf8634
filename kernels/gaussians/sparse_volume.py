"""Trilinear interpolation in a volume that stores its occupied cells alone: what a step asks at its samples."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.gaussians.sparse_volume_numba import FIXED_COLUMNS, query


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
    run = _query_torch if name == "torch" else query
    return VolumeSample(*run(positions.contiguous(), index, table, lower, cell_size))


def _query_torch(positions, index, table, lower, cell_size):
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
        total += torch.cat(
            [weight[:, None] * row[:, :FIXED_COLUMNS], weighted[:, None] * row[:, FIXED_COLUMNS:]], dim=1
        )
    total = torch.where(inside[:, None], total, 0)
    density = total[:, 0]
    features = torch.where(density[:, None] > 0, total[:, FIXED_COLUMNS:] / density[:, None], 0)
    return features.float(), density.float(), total[:, 1].float()
