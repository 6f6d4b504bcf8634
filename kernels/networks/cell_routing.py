"""Which cells of a grid evaluate a point: its own, and near a face the neighbours it is blended with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.networks import cell_routing_numba


class Evaluations(NamedTuple):
    """What to ask of which cell: M = N without blending, else up to eight times as many, in the points' order.

    ``local`` (M, 3) in the cell's coordinates, [-1, 1] inside it; ``cell`` (M,) int64, or from Triton int16 or int32,
    z fastest; ``point`` (M,) int64, the point it is for; ``weight`` (M,) in (0, 1], 1 in all for a point. Without
    blending the last two are None: every point has one evaluation of weight 1.
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
        implementation: "auto", "torch", "numba", or without blending "triton". On a GPU blending waits for the number
            of evaluations, axis by axis.
    """
    twins = ("torch", "numba") if blend > 0 else ("torch", "numba", "triton")
    name = resolve("cell_routing", implementation, positions.device, twins)
    if name == "triton":
        from kernels.networks import cell_routing_triton

        return Evaluations(*cell_routing_triton.route(positions, box, grid), None, None)
    scale = constant(tuple(grid), positions.device, positions.dtype) / (box[1] - box[0])
    if name == "torch":
        return _route_torch((positions - box[0]) * scale, grid, blend)
    local, cell, point, weight = cell_routing_numba.route(positions, box[0], scale, grid, blend)
    return Evaluations(local, cell, point, weight) if blend > 0 else Evaluations(local, cell, None, None)


def _route_torch(place: Tensor, grid: Sequence[int], blend: float) -> Evaluations:
    """``place`` is in units of cells."""
    cells = constant(tuple(grid), place.device, place.dtype)
    corner = place.floor().clamp(min=0).minimum(cells - 1)
    if blend == 0:
        return Evaluations(2 * (place - corner) - 1, _number(corner, grid), None, None)
    point, weight = torch.arange(len(place), device=place.device), place.new_ones(len(place))
    for axis in range(3):
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
    return Evaluations(2 * (place[point] - corner) - 1, _number(corner, grid), point, weight)


def _number(corner: Tensor, grid: Sequence[int]) -> Tensor:
    x, y, z = corner.long().unbind(-1)
    return (x * grid[1] + y) * grid[2] + z
