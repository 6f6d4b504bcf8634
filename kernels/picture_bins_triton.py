"""Where the rays of a picture meet occupied cells, found before the fused renderers run any network.

Within the renderers marching would be done by the few programs that the networks leave room for. What is found are runs
of bins, see ``ray_bins_triton``, in the middles of which samples are.

A picture is cut into squares of TILE x TILE pixels, each a program here. ``place`` numbers the pixels square by square.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.ray_bins_triton import grid_of, line_of, most_runs, note_bins, pack
from kernels.ray_samples import Cells

TILE = tl.constexpr(8)  # edge of a square of pixels
_MOST_RUNS = 1 << 26  # in memory at a time: half a GiB


@triton.jit(do_not_specialize=["first", "places", "width", "height", "limit"])
def _find(
    origins, directions, near, far, width, height, first, places, step, limit,
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz,
    runs, order, lives, next_square, out_color, out_alpha, out_distance, CHANNELS: tl.constexpr,
):  # fmt: skip
    square, slot = tl.program_id(0), tl.arange(0, TILE * TILE)
    place = square * TILE * TILE + slot
    across = (width + TILE - 1) // TILE
    row = (first + square) // across * TILE + slot // TILE
    column = (first + square) % across * TILE + slot % TILE
    there, ray = (row < height) & (column < width), row * width + column
    line = line_of((origins, directions, near, far), ray, there)
    grid = lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz
    taken, _, into = note_bins(line, there, slot * 0, 0.5, grid, step, limit, runs + place, places)
    tl.store(into, pack(slot * 0, slot * 0), mask=there)
    live = taken > 0
    tl.store(order + square * TILE * TILE + tl.cumsum(live.to(tl.int32), 0) - 1, place, mask=live)
    tl.store(lives + square, tl.sum(live.to(tl.int32), 0))
    tl.store(next_square, 0, mask=square == 0)
    # What meets nothing is not rendered.
    dark, ray = there & (taken == 0), ray.to(tl.int64)
    for channel in range(CHANNELS):
        tl.store(out_color + ray * CHANNELS + channel, 0.0, mask=dark)
    tl.store(out_alpha + ray, 0.0, mask=dark)
    tl.store(out_distance + ray, 0.0, mask=dark)


def find_bins(
    rays: tuple[Tensor, ...],
    width: int,
    cells: Cells,
    march: tuple[float, int],
    outputs: tuple[Tensor, Tensor, Tensor],
) -> Iterator[tuple]:
    """Marches a picture's rays, as many squares at a time as there is room for; the parts share their memory.

    Args:
        rays, width, cells: see ``FusedRenderer``; march: step and limit.
        outputs: color (R, C), alpha, distance (R,); zero is written where rays meet nothing.

    Yields:
        Of each part what the renderers take: runs, (runs of a ray, places) int64, of which the last is without a bit;
        order, the places of a square's rays that meet something from its first place on; how many these are, for each
        square; room for the number of the next square, 0; the part's first square, its squares and its places.
    """
    step, limit = march
    height, pixels = len(rays[2]) // width, TILE.value**2
    squares = triton.cdiv(width, TILE.value) * triton.cdiv(height, TILE.value)
    most = most_runs(cells, step, limit) + 1
    part = min(squares, max(1, _MOST_RUNS // (most * pixels)))
    color, device, grid = outputs[0], rays[2].device, grid_of(cells)
    runs = torch.empty(most, part * pixels, dtype=torch.int64, device=device)
    order = torch.empty(part * pixels, dtype=torch.int32, device=device)
    lives, next_square = torch.empty(part, dtype=torch.int32, device=device), order.new_empty(1)
    for first in range(0, squares, part):
        here = min(part, squares - first)
        found = runs, order, lives, next_square
        _find[(here,)](
            *rays, width, height, first, part * pixels, step, limit, *grid, *found, *outputs,
            CHANNELS=color.shape[1], num_warps=2,
        )  # fmt: skip
        yield *found, first, here, part * pixels
