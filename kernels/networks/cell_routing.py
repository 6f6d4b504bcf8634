"""Which cell of a grid a point is in, and where in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.networks import cell_routing_numba


@torch.no_grad()
def route_to_cells(
    positions: Tensor, box: Tensor, grid: Sequence[int], *, implementation: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Cells of points. A point outside the box belongs to the nearest cell.

    Args:
        positions: (N, 3) world.
        box: (2, 3) lower and upper corner of the grid.
        grid: cells along x, y, z.
        implementation: "auto", "torch", "numba" or "triton".

    Returns:
        (N, 3) in the cell's coordinates, [-1, 1] inside it, and (N,) the cell, z fastest: int64, or from Triton int16
        or int32.
    """
    name = resolve("cell_routing", implementation, positions.device, ("torch", "numba", "triton"))
    if name == "triton":
        from kernels.networks import cell_routing_triton

        return cell_routing_triton.route(positions, box, grid)
    scale = constant(tuple(grid), positions.device, positions.dtype) / (box[1] - box[0])
    if name == "numba":
        return cell_routing_numba.route(positions, box[0], scale, grid)
    place, cells = (positions - box[0]) * scale, constant(tuple(grid), positions.device, positions.dtype)
    corner = place.floor().clamp(min=0).minimum(cells - 1)
    x, y, z = corner.long().unbind(-1)
    return 2 * (place - corner) - 1, (x * grid[1] + y) * grid[2] + z
