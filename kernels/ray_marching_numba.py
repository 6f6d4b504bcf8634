"""Numba twin of ray marching: a ray walks from bin to bin and leaps over empty cells, coarse ones first."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.ray_samples import COARSE, Samples, room_for
from kernels.threads import COMPILED, parallel_for

_GRAIN = 256


def march(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    """See ``kernels.ray_marching.march``."""
    rays = len(origins)
    origins, directions = origins.contiguous(), directions.contiguous()
    # Untouched pages of this buffer cost nothing: each chunk packs its samples at the front of its part.
    places = np.empty(rays * limit, np.float32)
    counts, next_bin = torch.empty(rays, dtype=torch.int64), torch.empty(rays, dtype=torch.int64)
    parallel_for(
        _scan, rays, origins, directions, near.contiguous(), far.contiguous(), np.array(cells.lower, np.float32),
        np.float32(1 / cells.size), cells.occupied, cells.coarse, np.float32(step), limit,
        -1 if seed is None else int(seed), first_bin.contiguous(), places, counts, next_bin, grain=_GRAIN,
    )  # fmt: skip
    samples = room_for(counts, next_bin, cells, step, capacity)
    outputs = samples.positions.t(), samples.t, samples.ray_index
    parallel_for(_fill, rays, origins, directions, limit, places, samples.offsets, *outputs, grain=_GRAIN)
    return samples


@njit(**COMPILED)
def _place(ray, k, seed):
    if seed < 0:
        return np.float32(0.5)
    h = (ray * 0x9E3779B1 + k * 0x85EBCA77 + seed * 0xC2B2AE3D) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return np.float32((h ^ (h >> 15)) >> 8) * np.float32(2.0**-24)


@njit(**COMPILED)
def _exit_distance(x, dx, cell, size):
    """Ray length from grid coordinate ``x`` to the face by which it leaves ``cell`` on one axis."""
    if dx > 0:
        return ((cell + 1) * size - x) / dx
    if dx < 0:
        return (cell * size - x) / dx
    return np.float32(np.inf)


@njit(**COMPILED)
def next_sample(ray, k, seed, origins, directions, near, far, lower, inverse_size, occupied, coarse, step):
    """The first bin from ``k`` on whose sample is in an occupied cell, plus one, and that sample's t; -1 if none is."""
    nx, ny, nz = occupied.shape
    block = np.float32(COARSE)
    # In grid coordinates a cell has edge 1; t stays in world units.
    ox = (origins[ray, 0] - lower[0]) * inverse_size
    oy = (origins[ray, 1] - lower[1]) * inverse_size
    oz = (origins[ray, 2] - lower[2]) * inverse_size
    dx = directions[ray, 0] * inverse_size
    dy = directions[ray, 1] * inverse_size
    dz = directions[ray, 2] * inverse_size
    while True:
        t = near[ray] + (k + _place(ray, k, seed)) * step
        if t >= far[ray]:
            return -1, t
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
        if ix < 0 or iy < 0 or iz < 0 or ix >= nx or iy >= ny or iz >= nz:
            k += 1
            continue
        if occupied[ix, iy, iz] != 0:
            return k + 1, t
        edge, cx, cy, cz = np.float32(1), ix, iy, iz
        if coarse[ix >> 2, iy >> 2, iz >> 2] == 0:
            edge, cx, cy, cz = block, ix >> 2, iy >> 2, iz >> 2
        leave = min(_exit_distance(y, dy, cy, edge), _exit_distance(z, dz, cz, edge))
        leave = min(_exit_distance(x, dx, cx, edge), leave)
        # Bins that end before the empty cell does cannot hold a sample, wherever their place is.
        k = max(k + 1, int((t + leave - near[ray]) / step))


@njit(**COMPILED)
def _scan(
    start, stop, origins, directions, near, far, lower, inverse_size, occupied, coarse, step, limit, seed,
    first_bin, places, counts, next_bin,
):  # fmt: skip
    """Writes the t of each chunk's samples one after another from ``places[start * limit]``."""
    cursor = start * limit
    for ray in range(start, stop):
        k, count = first_bin[ray], 0
        while k >= 0 and count < limit:
            k, t = next_sample(
                ray, k, seed, origins, directions, near, far, lower, inverse_size, occupied, coarse, step
            )
            if k >= 0:
                places[cursor] = t
                cursor += 1
                count += 1
        counts[ray], next_bin[ray] = count, k


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
