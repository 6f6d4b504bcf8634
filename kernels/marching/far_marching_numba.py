"""Numba twin of ``far_marching``: each part of a ray is walked twice, to count its samples and to write them."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch.nn import functional as F

from kernels.marching.ray_marching_numba import first_beyond, place_in_bins
from kernels.threads import COMPILED, parallel_for

_GRAIN = 256


def march_far_numba(origins, directions, starts, lengths, cells, middle, half, edges, seed):
    """See ``kernels.marching.far_marching.march_far``."""
    rays = len(origins)
    counts = torch.empty(2 * rays, dtype=torch.int64)
    given = (
        origins.contiguous(), directions.contiguous(), starts.contiguous(), lengths.contiguous(),
        np.array(cells.lower, np.float32), np.float32(1 / cells.size), cells.occupied, np.array(middle, np.float32),
        np.float32(half), np.array(edges, np.float32), -1 if seed is None else int(seed),
    )  # fmt: skip
    nothing = torch.empty(0, 3), torch.empty(0), torch.empty(0), torch.empty(0, dtype=torch.int64)
    parallel_for(_walk, 2 * rays, *given, counts, counts, False, *nothing, grain=_GRAIN)
    offsets = F.pad(counts.cumsum(0), (1, 0))
    total = int(offsets[-1])
    positions, t, dt, ray_index = (torch.empty(total, *part.shape[1:], dtype=part.dtype) for part in nothing)
    parallel_for(_walk, 2 * rays, *given, counts, offsets, True, positions, t, dt, ray_index, grain=_GRAIN)
    return positions, t, dt, ray_index, offsets


@njit(**COMPILED)
def _walk(
    start, stop, origins, directions, starts, lengths, lower, inverse_size, occupied, middle, half, edges, seed,
    counts, offsets, writes, positions, t_out, dt_out, ray_index,
):  # fmt: skip
    one, inverse_half = np.float32(1), np.float32(1) / half
    bins, rays = len(edges) - 1, len(origins)
    for part in range(start, stop):
        behind = part >= rays
        ray = part - rays if behind else part
        side = 1 if behind else 0
        length, begin = lengths[side, ray], starts[side, ray]
        used = np.int64(0)  # bins that begin before the part's end, or at it
        if length > 0:
            used = min(first_beyond(edges, length), bins)
        found, share = np.int64(0), place_in_bins(part, seed)
        for i in range(used):
            k = i if behind else used - 1 - i
            size = edges[k + 1] - edges[k]
            away = edges[k] + share * size
            if away >= length:
                continue
            t = begin + away if behind else begin - away
            x = (origins[ray, 0] + t * directions[ray, 0] - middle[0]) * inverse_half
            y = (origins[ray, 1] + t * directions[ray, 1] - middle[1]) * inverse_half
            z = (origins[ray, 2] + t * directions[ray, 2] - middle[2]) * inverse_half
            radius = max(max(max(abs(x), abs(y)), abs(z)), one)
            scale = (np.float32(2) - one / radius) / radius
            x, y, z = x * scale, y * scale, z * scale
            ix = min(np.int64((x - lower[0]) * inverse_size), occupied.shape[0] - 1)
            iy = min(np.int64((y - lower[1]) * inverse_size), occupied.shape[1] - 1)
            iz = min(np.int64((z - lower[2]) * inverse_size), occupied.shape[2] - 1)
            if occupied[np.uint64(ix), np.uint64(iy), np.uint64(iz)] == 0:
                continue
            if writes:
                place = offsets[part] + found
                positions[place, 0], positions[place, 1], positions[place, 2] = x, y, z
                t_out[place], dt_out[place], ray_index[place] = t, size / (half * radius), ray
            found += 1
        counts[part] = found
