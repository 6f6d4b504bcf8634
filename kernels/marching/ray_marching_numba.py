"""Numba twin of ray marching: a ray leaps over empty coarse cells, and looks at many bins at a time elsewhere."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.marching.ray_samples import COARSE, Samples, cell_bit, room_for
from kernels.simd import trailing_zeros
from kernels.threads import COMPILED, INNER, UNCALLED, parallel_for

_GRAIN = 256
_ROUNDING = np.float32(0.01)  # of a bin: more than rounding may move a sample
_MIDDLE = np.float32(0.5)
_LEVEL, _STEEP = np.float32(1e-12), np.float32(1e12)
_ZERO, _ONE = np.float32(0), np.float32(1)
_COARSE, _BIT, _NONE = np.uint64(COARSE), np.uint64(1), np.uint64(0)
int32 = np.int32  # what numba adds up of these is wider, and takes twice the registers, unless it is made one again
_SHIFT, _LAST, _OUTSIDE = int32(COARSE.bit_length() - 1), int32(COARSE**3 - 1), int32(COARSE**3)  # of a block's cells
LOOK = 16
"""Bins that are looked at together."""
_WORTH_A_LEAP = 2  # empty blocks around one: with fewer a look goes farther


def march(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    """See ``kernels.marching.ray_marching.march``."""
    rays = len(origins)
    origins, directions = origins.contiguous(), directions.contiguous()
    # Untouched pages of this buffer cost nothing: each chunk packs its samples at the front of its part.
    places = np.empty(rays * limit, np.float32)
    counts, next_bins = torch.empty(rays, dtype=torch.int64), torch.empty(rays, dtype=torch.int64)
    parallel_for(
        _scan, rays, origins, directions, near.contiguous(), far.contiguous(), np.array(cells.lower, np.float32),
        np.float32(1 / cells.size), cells.blocks, cells.empty_blocks, np.float32(step), limit,
        -1 if seed is None else int(seed), first_bin.contiguous(), places, counts, next_bins, grain=_GRAIN,
    )  # fmt: skip
    samples = room_for(counts, next_bins, cells, step, capacity)
    outputs = samples.positions.t(), samples.t, samples.ray_index
    parallel_for(_fill, rays, origins, directions, limit, places, samples.offsets, *outputs, grain=_GRAIN)
    return samples


@njit(**COMPILED, **INNER)
def place_in_bins(ray, seed):
    """Where a ray's samples are in their bins, of which 1 is the length: random in [0, 1), or the middle (seed < 0)."""
    if seed < 0:
        return _MIDDLE
    h = (ray * 0x9E3779B1 + seed * 0xC2B2AE3D) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return np.float32((h ^ (h >> 15)) >> 8) * np.float32(2.0**-24)


@njit(**COMPILED, **INNER)
def first_beyond(bounds, value):
    """The first of rising ``bounds`` above a value, by halves; their number where none is."""
    low, high = 0, len(bounds)
    while low < high:
        middle = (low + high) // 2
        if bounds[middle] > value:
            high = middle
        else:
            low = middle + 1
    return low


@njit(**COMPILED, **INNER)
def cell_direction(direction, inverse_size):
    """A direction's component in cells, and its inverse: an axis that a ray goes along is one of no faces."""
    component = direction * inverse_size
    return component, _ONE / component if abs(component) > _LEVEL else _STEEP


@njit(**COMPILED, **UNCALLED)
def new_look():
    """Room for a look at ``LOOK`` bins: where in a grid of blocks each bin's cell is, and which cell of the block."""
    return np.empty(LOOK, np.int32), np.empty(LOOK, np.int32)


@njit(**COMPILED)
def next_bins(k, place, near, far, ox, oy, oz, dx, dy, dz, jx, jy, jz, blocks, empty, step, steps, look):
    """``LOOK`` bins from ``k`` on, of which one is occupied at least: the first, and a bit for each that is.

    A bin is occupied if the cell at its sample's place is. Without such a bin before ``far`` there are no bits.

    ``place`` is the samples', in their bins, [0, 1). Origin, direction and its inverse are in cells: edge 1; t stays
    in world units. ``steps`` is 1 / step; ``look`` is room for one.
    """
    nx, ny, nz = np.uint64(blocks.shape[0]), np.uint64(blocks.shape[1]), np.uint64(blocks.shape[2])
    late = place + _ROUNDING
    while True:
        t = time_of(k, place, near, step)
        if t >= far:
            return k, _NONE
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        ix, iy, iz = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
        bx, by, bz = np.uint64(ix) // _COARSE, np.uint64(iy) // _COARSE, np.uint64(iz) // _COARSE
        if bx >= nx or by >= ny or bz >= nz:  # numbers below zero have become large ones
            k += 1
            continue
        around = np.int64(empty[bx, by, bz]) - 1
        if around >= _WORTH_A_LEAP:
            ix, iy, iz = np.int64(bx), np.int64(by), np.int64(bz)
            leave = min(_leave(x, jx, ix, around), _leave(y, jy, iy, around))
            leave = min(leave, _leave(z, jz, iz, around))
            # Bins whose sample comes before the empty blocks' end hold none.
            k = max(k + 1, np.int64(np.ceil((t + leave - near) * steps - late)))
            continue
        bits = _occupied(k, place, near, ox, oy, oz, dx, dy, dz, blocks, step, look)
        if time_of(k + LOOK - 1, place, near, step) >= far:
            for i in range(LOOK):
                if time_of(k + i, place, near, step) >= far:
                    bits &= (_BIT << np.uint64(i)) - _BIT
                    break
        if bits != _NONE:
            return k, bits
        k += LOOK


@njit(**COMPILED, **INNER)
def time_of(k, place, near, step):
    """Of a bin's sample."""
    return near + (np.float32(k) + place) * step


@njit(**COMPILED, **INNER)
def _occupied(k, place, near, ox, oy, oz, dx, dy, dz, blocks, step, look):
    """A bit for each of ``LOOK`` bins from ``k`` on whose sample is in an occupied cell.

    The loops have neither branches nor a step that waits for the one before: a processor takes many bins at a time.
    """
    index, bit = look
    nx, ny, nz = int32(blocks.shape[0]), int32(blocks.shape[1]), int32(blocks.shape[2])
    first = np.float32(k)
    for i in range(LOOK):
        t = time_of(first + np.float32(int32(i)), place, near, step)
        ix, iy, iz = int32(np.floor(ox + t * dx)), int32(np.floor(oy + t * dy)), int32(np.floor(oz + t * dz))
        bx, by, bz = int32(ix >> _SHIFT), int32(iy >> _SHIFT), int32(iz >> _SHIFT)
        cx, cy, cz = _within(bx, nx), _within(by, ny), _within(bz, nz)
        index[i] = int32(int32(int32(cx * ny) + cy) * nz) + cz
        outside = int32(bx ^ cx) | int32(by ^ cy) | int32(bz ^ cz)
        bit[i] = _OUTSIDE if outside else cell_bit(ix, iy, iz)
    flat, bits = blocks.reshape(-1), _NONE
    for i in range(LOOK):
        found = flat[np.uint64(index[i])] >> np.uint64(bit[i] & _LAST) & _BIT
        bits |= (found if bit[i] <= _LAST else _NONE) << np.uint64(i)
    return bits


@njit(**COMPILED, **INNER)
def _within(block, count):
    return min(max(block, int32(0)), int32(count - int32(1)))


@njit(**COMPILED, **INNER)
def _leave(x, inverse, block, around):
    """Ray length from ``x`` out of a coarse cell, on one axis, with as many of these as that around it.

    Along an axis of no faces ``inverse`` is large and above zero, which gives a length that no other axis exceeds.
    """
    face = block + 1 + around if inverse > _ZERO else block - around
    return (np.float32(face * COARSE) - x) * inverse


@njit(**COMPILED)
def _scan(
    start, stop, origins, directions, near, far, lower, inverse_size, blocks, empty, step, limit, seed,
    first_bin, places, counts, onward,
):  # fmt: skip
    """Writes the t of each chunk's samples one after another from ``places[start * limit]``."""
    cursor, steps, look = start * limit, _ONE / step, new_look()
    for ray in range(start, stop):
        ox = (origins[ray, 0] - lower[0]) * inverse_size
        oy = (origins[ray, 1] - lower[1]) * inverse_size
        oz = (origins[ray, 2] - lower[2]) * inverse_size
        dx, jx = cell_direction(directions[ray, 0], inverse_size)
        dy, jy = cell_direction(directions[ray, 1], inverse_size)
        dz, jz = cell_direction(directions[ray, 2], inverse_size)
        k, count, place = first_bin[ray], 0, place_in_bins(ray, seed)
        while k >= 0 and count < limit:
            k, bits = next_bins(
                k, place, near[ray], far[ray], ox, oy, oz, dx, dy, dz, jx, jy, jz, blocks, empty, step, steps, look
            )
            first = k
            k = k + LOOK if bits != _NONE else -1
            while bits != _NONE and count < limit:
                last = first + trailing_zeros(bits)
                places[cursor] = time_of(last, place, near[ray], step)
                bits &= bits - _BIT
                cursor += 1
                count += 1
                if count == limit:
                    k = last + 1
        counts[ray], onward[ray] = count, k


@njit(**COMPILED)
def _fill(start, stop, origins, directions, limit, places, offsets, positions, t_out, ray_index):
    source = start * limit
    for ray in range(start, stop):
        for i in range(offsets[ray], offsets[ray + 1]):
            t = places[source]
            source += 1
            t_out[i], ray_index[i] = t, ray
            for axis in range(3):
                positions[axis, i] = origins[ray, axis] + t * directions[ray, axis]
