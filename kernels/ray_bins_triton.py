"""Which bins of rays are in occupied cells, for training's march and for the marching of pictures: a thread owns a ray.

A thread that only marches takes few registers, so that many run at a time and hide each other's loads. It looks at one
bin, and what it sees holds for all bins up to where the ray leaves the cell, or the empty blocks around. What is found
is small: the occupied bins of a ray in runs of 32, a bit each, and only runs that have a bit. Places of samples, and so
the bins, are those of ``ray_marching.march``.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor

from kernels.ray_samples import COARSE, Cells
from kernels.training_rays_triton import slab

RUN = tl.constexpr(32)
_COARSE = tl.constexpr(COARSE)
_FARTHEST = tl.constexpr(1e9)  # bins a ray can be sent ahead by
# Bins are taken together only where the ray is this far, in cells, from the face that it comes to. Rounding moves what
# is computed of places, faces and distances by 2**-24 of the longest distance or coordinate each time, some 30 times:
# for up to 8,000 cells that is less. The faces behind need no margin: of a ray's bins the rounded distance never falls,
# so that each rounded coordinate never turns back.
_MARGIN = tl.constexpr(1 / 64)


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
    return sample(line, number, 0.5, step)


@triton.jit
def sample(line, number, place, step):
    """Distance and position of the rays' samples in the bins of these numbers, of which they have that place."""
    near, _, ox, oy, oz, dx, dy, dz = line
    t = near + (number.to(tl.float32) + place) * step
    return t, ox + t * dx, oy + t * dy, oz + t * dz


@triton.jit
def place_in_bins(ray, seed, CENTRED: tl.constexpr):
    """Of rays: ``ray_marching.place_in_bins``, whose products wrap round at 32 bits, or the middle."""
    if CENTRED:
        return 0.5
    else:
        h = ray.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32) * 0xC2B2AE3D
        h = (h ^ (h >> 15)) * 0x2C1B3C6D
        h = (h ^ (h >> 12)) * 0x297A2D39
        return ((h ^ (h >> 15)) >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2**-24


@triton.jit
def _reach(line, grid, step):
    """First and one past the last bin that may be in the grid; and the bin before which all end before ``far``."""
    near, far, ox, oy, oz, dx, dy, dz = line
    lower_x, lower_y, lower_z, inverse_size, _, _, nx, ny, nz = grid
    size = 1.0 / inverse_size
    margin = size * _MARGIN
    enter, leave = slab(ox, dx, lower_x - margin, lower_x + nx * size + margin, near, far)
    enter, leave = slab(oy, dy, lower_y - margin, lower_y + ny * size + margin, enter, leave)
    enter, leave = slab(oz, dz, lower_z - margin, lower_z + nz * size + margin, enter, leave)
    # One bin more than fit: rounding may put a sample of the bin beyond before ``far``.
    return (
        tl.minimum((enter - near) / step, _FARTHEST).to(tl.int32),
        tl.maximum(tl.minimum((leave - near) / step, _FARTHEST), -2.0).to(tl.int32) + 2,
        tl.maximum(tl.minimum((far - near - margin) / step, _FARTHEST), 0.0).to(tl.int32),
    )


@triton.jit
def _inverse(dx, inverse_size):
    """Distance along the ray that a cell's edge on one axis takes."""
    return 1.0 / tl.where(dx == 0, 1.0, dx * inverse_size)


@triton.jit
def _leave(x, dx, inverse, cell, block, away):
    """Distance along the ray from grid coordinate x to ``_MARGIN`` before where it leaves the cell on one axis, or the
    empty blocks around, of which ``away`` - 1 are on each side."""
    lower = tl.where(away > 0, (block + 1 - away) * _COARSE, cell).to(tl.float32)
    upper = tl.where(away > 0, (block + away) * _COARSE, cell + 1).to(tl.float32)
    face = tl.where(dx > 0, upper - _MARGIN, lower + _MARGIN)
    return tl.where(dx == 0, float("inf"), (face - x) * inverse)


@triton.jit
def _look(number, where, place, line, inverse, asked, grid, steps):
    """Whether the asked rays' bins are occupied, and the next bin of which this is not known by that.

    where: distance and position of their samples, which have that place in them.
    """
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz = grid
    t, x, y, z = where
    x, y, z = (x - lower_x) * inverse_size, (y - lower_y) * inverse_size, (z - lower_z) * inverse_size
    cx, cy, cz = tl.floor(x), tl.floor(y), tl.floor(z)
    inside = asked & (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < nx) & (cy < ny) & (cz < nz)
    ix, iy, iz = cx.to(tl.int32), cy.to(tl.int32), cz.to(tl.int32)
    jx, jy, jz = ix // _COARSE, iy // _COARSE, iz // _COARSE
    my, mz = (ny + _COARSE - 1) // _COARSE, (nz + _COARSE - 1) // _COARSE
    # Both are asked at once: cells of a block that has some need not wait for the answer that it does.
    away = tl.load(empty_blocks + ((jx * my + jy) * mz + jz), mask=inside, other=1).to(tl.int32)
    hit = tl.load(occupied + ((ix * ny + iy) * nz + iz), mask=inside, other=0) != 0
    leave = tl.minimum(
        _leave(x, line[5], inverse[0], ix, jx, away),
        tl.minimum(_leave(y, line[6], inverse[1], iy, jy, away), _leave(z, line[7], inverse[2], iz, jz, away)),
    )
    # Outside the grid there is no cell to leave.
    ahead = tl.minimum((t + leave - line[0]) * steps + (1 - place), _FARTHEST)
    return hit, tl.where(inside, tl.maximum(number + 1, ahead.to(tl.int32)), number + 1)


@triton.jit
def note_bins(line, live, first, place, grid, step, limit, into, stride):
    """Notes the occupied bins of rays from their ``first`` on, at most ``limit``: their runs, see ``pack``, from
    ``into`` on, each ``stride`` behind the one before. Samples have that ``place`` in their bins, [0, 1).

    Returns:
        how many bins are noted; the bin after the last one, where they are ``limit``; where the next run would be.
    """
    start, last, whole = _reach(line, grid, step)
    inverse = _inverse(line[5], grid[3]), _inverse(line[6], grid[3]), _inverse(line[7], grid[3])
    steps = 1.0 / step
    number = tl.maximum(first, start)
    taken, run, bits = number * 0, number * 0, number * 0
    going = 1
    while going > 0:
        where = sample(line, number, place, step)
        asked = live & (number < last) & (where[0] < line[1]) & (taken < limit)
        hit, onward = _look(number, where, place, line, inverse, asked, grid, steps)
        other = asked & (number // RUN != run)
        tl.store(into, pack(run, bits), mask=other & (bits != 0))
        into += tl.where(other & (bits != 0), stride, 0)
        bits = tl.where(other, 0, bits)
        run = tl.where(asked, number // RUN, run)
        # Occupied bins are taken together within a run, up to the limit, where none may begin behind ``far``.
        room = tl.minimum(number // RUN * RUN + RUN - number, limit - taken)
        count = tl.minimum(tl.minimum(onward, tl.maximum(number + 1, whole)) - number, room)
        bits |= tl.where(hit, ((2 << (count - 1)) - 1) << (number % RUN), 0)
        taken += tl.where(hit, count, 0)
        number = tl.where(asked, tl.where(hit, number + count, onward), number)
        going = tl.max(asked.to(tl.int32), 0)
    tl.store(into, pack(run, bits), mask=bits != 0)
    return taken, number, into + tl.where(bits != 0, stride, 0)


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


def most_runs(cells: Cells, step: float, limit: int) -> int:
    """Runs that a ray can have: bins in the grid follow one another, a run at its beginning and end may be cut."""
    bins = math.dist((0, 0, 0), cells.occupied.shape) * cells.size / step + 2
    return int(min(bins // RUN.value + 2, limit))


def grid_of(cells: Cells) -> tuple[float | int | Tensor, ...]:
    """The cells as kernels take them: lower corner, inverse size, occupancy, distances of blocks, extent."""
    occupied = cells.occupied.contiguous()
    return *cells.lower, 1 / cells.size, occupied, cells.block_distances, *cells.occupied.shape
