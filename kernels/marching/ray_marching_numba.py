"""Numba twin of ray marching: a ray walks from bin to bin and leaps over empty cells, coarse ones first."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.marching.ray_samples import COARSE, Samples, cell_bit, room_for
from kernels.threads import COMPILED, INNER, parallel_for

_GRAIN = 256
_ROUNDING = np.float32(0.01)  # of a bin: more than rounding may move a sample
_MIDDLE = np.float32(0.5)
_LEVEL, _STEEP = np.float32(1e-12), np.float32(1e12)
_ZERO, _ONE = np.float32(0), np.float32(1)
_COARSE, _BIT = np.uint64(COARSE), np.uint64(1)


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
    if seed < 0:
        return _MIDDLE
    h = (ray * 0x9E3779B1 + seed * 0xC2B2AE3D) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return np.float32((h ^ (h >> 15)) >> 8) * np.float32(2.0**-24)


@njit(**COMPILED, **INNER)
def cell_direction(direction, inverse_size):
    """A direction's component in cells, and its inverse: an axis that a ray goes along is one of no faces."""
    component = direction * inverse_size
    return component, _ONE / component if abs(component) > _LEVEL else _STEEP


@njit(**COMPILED)
def next_bin(k, place, near, far, ox, oy, oz, dx, dy, dz, jx, jy, jz, blocks, empty, step, steps):
    """The first bin from ``k`` on whose sample is in an occupied cell, and that sample's t; -1 if there is none.

    ``place`` is the samples', in their bins, [0, 1).
    Origin, direction and its inverse are in cells: edge 1; t stays in world units. ``steps`` is 1 / step.
    """
    nx, ny, nz = np.uint64(blocks.shape[0]), np.uint64(blocks.shape[1]), np.uint64(blocks.shape[2])
    late = place + _ROUNDING
    while True:
        t = near + (np.float32(k) + place) * step
        if t >= far:
            return -1, t
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        ix, iy, iz = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
        bx, by, bz = np.uint64(ix) // _COARSE, np.uint64(iy) // _COARSE, np.uint64(iz) // _COARSE
        if bx >= nx or by >= ny or bz >= nz:  # numbers below zero have become large ones
            k += 1
            continue
        block, size, around = blocks[bx, by, bz], 1, 0
        if block == 0:
            size, around = COARSE, np.int64(empty[bx, by, bz]) - 1
            ix, iy, iz = np.int64(bx), np.int64(by), np.int64(bz)
        elif block >> cell_bit(np.uint64(ix), np.uint64(iy), np.uint64(iz)) & _BIT:
            return k, t
        leave = min(_leave(x, jx, ix, size, around), _leave(y, jy, iy, size, around))
        leave = min(leave, _leave(z, jz, iz, size, around))
        # Bins whose sample comes before the empty cells' end hold none.
        k = max(k + 1, np.int64(np.ceil((t + leave - near) * steps - late)))


@njit(**COMPILED, **INNER)
def _leave(x, inverse, cell, size, around):
    """Ray length from ``x`` out of a cell of an edge, on one axis, with as many cells as that around it.

    Along an axis of no faces ``inverse`` is large and above zero, which gives a length that no other axis exceeds.
    """
    face = cell + 1 + around if inverse > _ZERO else cell - around
    return (np.float32(face * size) - x) * inverse


@njit(**COMPILED)
def _scan(
    start, stop, origins, directions, near, far, lower, inverse_size, blocks, empty, step, limit, seed,
    first_bin, places, counts, next_bins,
):  # fmt: skip
    """Writes the t of each chunk's samples one after another from ``places[start * limit]``."""
    cursor, steps = start * limit, _ONE / step
    for ray in range(start, stop):
        ox = (origins[ray, 0] - lower[0]) * inverse_size
        oy = (origins[ray, 1] - lower[1]) * inverse_size
        oz = (origins[ray, 2] - lower[2]) * inverse_size
        dx, jx = cell_direction(directions[ray, 0], inverse_size)
        dy, jy = cell_direction(directions[ray, 1], inverse_size)
        dz, jz = cell_direction(directions[ray, 2], inverse_size)
        k, count, place = first_bin[ray], 0, place_in_bins(ray, seed)
        while k >= 0 and count < limit:
            k, t = next_bin(
                k, place, near[ray], far[ray], ox, oy, oz, dx, dy, dz, jx, jy, jz, blocks, empty, step, steps
            )
            if k >= 0:
                places[cursor] = t
                cursor += 1
                count += 1
                k += 1
        counts[ray], next_bins[ray] = count, k


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
