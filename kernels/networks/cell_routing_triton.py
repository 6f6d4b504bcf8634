"""Triton twin of the routing of points to cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 512


@triton.jit
def _axis(positions, axis_stride, box, axis, cells, live):
    """The cell on an axis, int32, and the coordinate in it, [-1, 1] inside."""
    lower, upper = tl.load(box + axis), tl.load(box + 3 + axis)
    position = tl.load(positions + axis * axis_stride, mask=live, other=0.0)
    place = (position - lower) * (cells / (upper - lower))
    corner = tl.minimum(tl.maximum(tl.floor(place), 0.0), cells - 1.0)
    return corner.to(tl.int32), 2 * (place - corner) - 1


@triton.jit
def _route(
    positions, row_stride, axis_stride, count, box, local, cell,
    CELLS_X: tl.constexpr, CELLS_Y: tl.constexpr, CELLS_Z: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    positions += point * row_stride
    x, along_x = _axis(positions, axis_stride, box, 0, CELLS_X, live)
    y, along_y = _axis(positions, axis_stride, box, 1, CELLS_Y, live)
    z, along_z = _axis(positions, axis_stride, box, 2, CELLS_Z, live)
    tl.store(local + point * 3, along_x, mask=live)
    tl.store(local + point * 3 + 1, along_y, mask=live)
    tl.store(local + point * 3 + 2, along_z, mask=live)
    tl.store(cell + point, (x * CELLS_Y + y) * CELLS_Z + z, mask=live)


def route(positions: Tensor, box: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Local coordinates (N, 3) and cells (N,) int16 where that is enough, else int32, as ``route_to_cells`` gives them.

    ``positions`` may have any strides.
    """
    count, device = len(positions), positions.device
    cells = grid[0] * grid[1] * grid[2]
    kind = torch.int16 if cells < torch.iinfo(torch.int16).max else torch.int32
    local, cell = torch.empty(count, 3, device=device), torch.empty(count, dtype=kind, device=device)
    if count:
        with launch_on(device):
            _route[(triton.cdiv(count, _BLOCK),)](
                positions, *positions.stride(), count, box.contiguous(), local, cell,
                CELLS_X=grid[0], CELLS_Y=grid[1], CELLS_Z=grid[2], BLOCK=_BLOCK,
            )  # fmt: skip
    return local, cell
