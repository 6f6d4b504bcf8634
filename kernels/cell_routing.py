"""Which cells of a grid evaluate a point: its own, and near a face the neighbours it is blended with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.threads import FASTMATH, parallel_for

_OPTIONS = {"cache": True, "nogil": True, "fastmath": FASTMATH, "error_model": "numpy"}
_GRAIN = 8192
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


class Evaluations(NamedTuple):
    """What to ask of which cell: M = N without blending, else up to eight times as many, in the points' order.

    ``local`` (M, 3) in the cell's coordinates, [-1, 1] inside it; ``cell`` (M,) int64, z fastest; ``point`` (M,)
    int64, the point it is for; ``weight`` (M,) in (0, 1], 1 in all for a point. Without blending the last two are
    None: every point has one evaluation of weight 1.
    """

    local: Tensor
    cell: Tensor
    point: Tensor | None
    weight: Tensor | None


@torch.no_grad()
def route_to_cells(
    positions: Tensor, box: Tensor, grid: Sequence[int], blend: float, *, implementation: str = "auto"
) -> Evaluations:
    """Cells and weights of points. A point outside the box belongs to the nearest cell.

    Weights fall linearly across the margins of a face, from all on one side to all on the other; along an edge and
    at a corner they are the products over the axes, so they are continuous everywhere.

    Args:
        positions: (N, 3) world.
        box: (2, 3) lower and upper corner of the grid.
        grid: cells along x, y, z.
        blend: width of the margin on either side of a face, as a fraction of a cell, 0 (off) to 0.5.
        implementation: "auto", "torch" or "numba". On a GPU blending waits for the number of evaluations, axis by axis.
    """
    scale = constant(tuple(grid), positions.device, positions.dtype) / (box[1] - box[0])
    if resolve("cell_routing", implementation, positions.device, ("torch", "numba")) == "torch":
        return _route_torch((positions - box[0]) * scale, grid, blend)
    arguments = (
        positions.detach().contiguous().numpy(),
        box[0].numpy(),
        scale.numpy(),
        np.array(grid, dtype=np.int64),
        np.float32(blend),
    )
    ends = torch.arange(1, len(positions) + 1)
    if blend > 0:
        counts = torch.empty(len(positions), dtype=torch.int64)
        parallel_for(_count, len(positions), *arguments, counts.numpy(), grain=_GRAIN)
        ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    local, cell = torch.empty(total, 3), torch.empty(total, dtype=torch.int64)
    point, weight = torch.empty(total, dtype=torch.int64), torch.empty(total)
    outputs = (output.numpy() for output in (local, cell, point, weight))
    parallel_for(_fill, len(positions), *arguments, ends.numpy(), *outputs, grain=_GRAIN)
    return Evaluations(local, cell, point, weight) if blend > 0 else Evaluations(local, cell, None, None)


def _route_torch(place: Tensor, grid: Sequence[int], blend: float) -> Evaluations:
    """``place`` is in units of cells."""
    cells = constant(tuple(grid), place.device, place.dtype)
    corner = place.floor().clamp(min=0).minimum(cells - 1)
    point, weight = torch.arange(len(place), device=place.device), place.new_ones(len(place))
    for axis in range(3 if blend > 0 else 0):
        offset = place[point, axis] - corner[:, axis] - 0.5
        neighbour = corner[:, axis] + torch.where(offset < 0, -1, 1)
        to_face = 0.5 - offset.abs()
        near = ((to_face < blend) & (neighbour >= 0) & (neighbour < cells[axis])).nonzero()[:, 0]
        given = weight[near] * (0.5 - to_face[near] / (2 * blend))
        beyond = corner[near]
        beyond[:, axis] = neighbour[near]
        weight[near] -= given
        corner, point = torch.cat([corner, beyond]), torch.cat([point, point[near]])
        weight = torch.cat([weight, given])
    order = torch.argsort(point, stable=True)
    corner, point, weight = corner[order], point[order], weight[order]
    x, y, z = corner.long().unbind(-1)
    cell, local = (x * grid[1] + y) * grid[2] + z, 2 * (place[point] - corner) - 1
    return Evaluations(local, cell, point, weight) if blend > 0 else Evaluations(local, cell, None, None)


@njit(**_OPTIONS)
def _locate(place, cells, blend):
    """On one axis: the cell, the step to the neighbour a place is blended with (0: none), and that one's share."""
    corner = min(max(int(np.floor(place)), 0), cells - 1)
    offset = place - np.float32(corner) - _HALF
    step = -1 if offset < 0 else 1
    to_face = _HALF - abs(offset)
    if to_face < blend and 0 <= corner + step < cells:
        return corner, step, _HALF - to_face / (_TWO * blend)
    return corner, 0, np.float32(0)


@njit(**_OPTIONS)
def _count(start, stop, positions, lower, scale, grid, blend, counts):
    """Evaluations that each of the points ``start .. stop`` needs."""
    for i in range(start, stop):
        count = 1
        for axis in range(3):
            _, step, _ = _locate((positions[i, axis] - lower[axis]) * scale[axis], grid[axis], blend)
            count <<= step != 0
        counts[i] = count


@njit(**_OPTIONS)
def _fill(start, stop, positions, lower, scale, grid, blend, ends, local, cell, point, weight):
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
