"""Where the rays of a picture meet occupied cells, found before the fused renderers run any network.

A thread that only marches takes few registers, so that many run at a time and hide each other's loads; within the
renderers marching would be done by the few programs that the networks leave room for. What is found is small: the
occupied bins of a ray in runs of 32, a bit each, and only runs that have a bit. Places of samples are those of
``ray_marching.march`` without a seed.

A picture is cut into squares of TILE x TILE pixels, each a program here. ``place`` numbers the pixels square by square.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.marching.ray_samples import Cells

TILE = tl.constexpr(8)  # edge of a square of pixels
RUN = tl.constexpr(32)
_COARSE = tl.constexpr(4)  # cells per axis of a block
_FARTHEST = tl.constexpr(1e9)  # bins a ray can be sent ahead by
_MOST_RUNS = 1 << 26  # in memory at a time: half a GiB


@triton.jit
def line_of(rays, ray, live):
    """Near, far, origin and direction of rays."""
    origins, directions, near, far = rays
    ray = ray.to(tl.int64)
    origin, direction = origins + ray * 3, directions + ray * 3
    return (
        tl.load(near + ray, mask=live, other=0.0),
        tl.load(far + ray, mask=live, other=0.0),
        tl.load(origin, mask=live, other=0.0),
        tl.load(origin + 1, mask=live, other=0.0),
        tl.load(origin + 2, mask=live, other=0.0),
        tl.load(direction, mask=live, other=0.0),
        tl.load(direction + 1, mask=live, other=0.0),
        tl.load(direction + 2, mask=live, other=0.0),
    )


@triton.jit
def middle(line, number, step):
    """Distance and position of the middle of the rays' bins of these numbers."""
    near, _, ox, oy, oz, dx, dy, dz = line
    t = near + (number.to(tl.float32) + 0.5) * step
    return t, ox + t * dx, oy + t * dy, oz + t * dz


@triton.jit
def _to_face(x, dx, lower, upper):
    """Distance along the ray from grid coordinate x to where it leaves what is between two coordinates of one axis."""
    face = tl.where(dx > 0, upper, lower)
    return tl.where(dx == 0, float("inf"), (face - x) / tl.where(dx == 0, 1.0, dx))


@triton.jit
def _leave(x, dx, cell, block, away):
    """As ``_to_face``, from the empty cell, or from the empty blocks around, of which ``away`` - 1 are on each side."""
    lower = tl.where(away > 0, (block + 1 - away) * _COARSE, cell).to(tl.float32)
    upper = tl.where(away > 0, (block + away) * _COARSE, cell + 1).to(tl.float32)
    return _to_face(x, dx, lower, upper)


@triton.jit
def _look(number, line, asked, grid, step):
    """Whether the asked rays' bins are occupied, and the next bin to look at where they are not."""
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz = grid
    t, x, y, z = middle(line, number, step)
    x, y, z = (x - lower_x) * inverse_size, (y - lower_y) * inverse_size, (z - lower_z) * inverse_size
    cx, cy, cz = tl.floor(x), tl.floor(y), tl.floor(z)
    inside = asked & (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < nx) & (cy < ny) & (cz < nz)
    ix, iy, iz = cx.to(tl.int32), cy.to(tl.int32), cz.to(tl.int32)
    jx, jy, jz = ix // _COARSE, iy // _COARSE, iz // _COARSE
    my, mz = (ny + _COARSE - 1) // _COARSE, (nz + _COARSE - 1) // _COARSE
    # One load for what is far from everything; the cells are only asked in blocks that have some.
    away = tl.load(empty_blocks + ((jx * my + jy) * mz + jz), mask=inside, other=1).to(tl.int32)
    hit = tl.load(occupied + ((ix * ny + iy) * nz + iz), mask=inside & (away == 0), other=0) != 0
    dx, dy, dz = line[5] * inverse_size, line[6] * inverse_size, line[7] * inverse_size
    leave = tl.minimum(
        _leave(x, dx, ix, jx, away), tl.minimum(_leave(y, dy, iy, jy, away), _leave(z, dz, iz, jz, away))
    )
    # Bins that end before the empty space does have their middle in it. Outside the grid there is no cell to leave.
    ahead = tl.minimum((t + leave - line[0]) / step, _FARTHEST)
    return hit, tl.where(inside, tl.maximum(number + 1, ahead.to(tl.int32)), number + 1)


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
    number, taken, run, bits = slot * 0, slot * 0, slot * 0, slot * 0
    into = runs + place
    going = 1
    while going > 0:
        t, _, _, _ = middle(line, number, step)
        asked = there & (t < line[1]) & (taken < limit)
        hit, onward = _look(number, line, asked, grid, step)
        hit = hit & asked
        full = asked & (number // RUN != run) & (bits != 0)
        tl.store(into, pack(run, bits), mask=full)
        into += tl.where(full, places, 0)
        bits = tl.where(asked & (number // RUN != run), 0, bits)
        run = tl.where(asked, number // RUN, run)
        bits |= tl.where(hit, 1 << (number % RUN), 0)
        taken += hit.to(tl.int32)
        number = tl.where(asked, tl.where(hit, number + 1, onward), number)
        going = tl.max(asked.to(tl.int32), 0)
    tl.store(into, pack(run, bits), mask=bits != 0)
    into += tl.where(bits != 0, places, 0)
    tl.store(into, pack(run, slot * 0), mask=there)
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


@triton.jit
def pack(run, bits):
    """A run's number and its bits in one int64."""
    return (run.to(tl.int64) << 32) | (bits.to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def unpack(packed):
    """Of ``pack``: run, bits, both int32."""
    return (packed >> 32).to(tl.int32), packed.to(tl.int32)


@triton.jit
def lowest(bits):
    """The number of the lowest bit, 0 to 31; by way of a float's exponent, which every compiler and interpreter has."""
    alone = (bits & -bits).to(tl.float32)
    return ((alone.to(tl.int32, bitcast=True) >> 23) & 255) - 127


def _most_runs(cells: Cells, step: float, limit: int) -> int:
    """Runs that a ray can have: bins in the grid follow one another, a run at its beginning and end may be cut."""
    return min(cells.most_bins(step) // RUN.value + 2, limit)


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
    most = _most_runs(cells, step, limit) + 1
    part = min(squares, max(1, _MOST_RUNS // (most * pixels)))
    grid = *cells.lower, 1 / cells.size, cells.occupied.contiguous(), cells.block_distances, *cells.occupied.shape
    color, device = outputs[0], rays[2].device
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
