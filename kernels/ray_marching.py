"""Samples along rays, placed only inside the occupied cells of a grid.

A ray's interval [near, far) is cut into bins of one fixed length; a bin yields one sample at a stratified random
place (or at its centre), kept if the cell at that place is occupied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.threads import parallel_for

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_GRAIN = 256
_COARSE = 4  # fine cells per axis of a coarse cell, by which empty space is skipped


@dataclass(frozen=True)
class Cells:
    """Occupancy of a grid of cubic cells.

    Args:
        lower: (3,) world position of the grid's corner.
        size: edge of a cell in world units.
        occupied: (X, Y, Z) uint8, nonzero where samples are wanted.
    """

    lower: tuple[float, float, float]
    size: float
    occupied: Tensor

    @cached_property
    def coarse(self) -> Tensor:
        """(ceil(X/4), ceil(Y/4), ceil(Z/4)) uint8: whether any fine cell of the block is occupied."""
        pad = [amount for extent in reversed(self.occupied.shape) for amount in (0, -extent % _COARSE)]
        padded = F.pad(self.occupied, pad)
        x, y, z = (extent // _COARSE for extent in padded.shape)
        return padded.view(x, _COARSE, y, _COARSE, z, _COARSE).amax((1, 3, 5)).contiguous()


class Samples(NamedTuple):
    """Packed samples; those of ray r are ``offsets[r] : offsets[r + 1]``, front to back.

    With a capacity, samples from ``offsets[-1]`` on are padding that belongs to no ray: at the grid's lower corner,
    with t, dt and ray_index 0.
    """

    positions: Tensor  # (N, 3) world; memory is channel-major
    t: Tensor  # (N,) distance along the ray
    dt: Tensor  # (N,) interval length
    ray_index: Tensor  # (N,) int64
    offsets: Tensor  # (R + 1,) int64
    next_bin: Tensor  # (R,) int64 bin to go on from; -1 when the ray has left its interval
    kept: Tensor | None = None  # (R,) bool, rays whose samples fit into the capacity; None without one
    wanted: Tensor | None = None  # () int64, samples of all rays, those that did not fit among them; None likewise


def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    cells: Cells,
    *,
    step: float,
    limit: int,
    seed: int | Tensor | None = None,
    first_bin: Tensor | None = None,
    capacity: int | None = None,
    implementation: str = "auto",
) -> Samples:
    """Places samples inside occupied cells.

    Args:
        origins, directions: (R, 3) world; directions are unit.
        near, far: (R,) interval; far <= near yields no samples. Places outside the grid are empty.
        step: bin length in world units.
        limit: most samples per ray; a ray that reaches it reports where to go on in ``next_bin``.
        seed: random place in each bin, the same for the same (seed, ray, bin); a () int64 tensor is read where it is,
            when the march runs. None takes the centres.
        first_bin: (R,) int64 bin to start from; -1 skips the ray. None starts all at 0.
        capacity: samples to make room for, and to return, whatever their number: nothing then waits for a GPU to tell
            it. Rays are served in order; one whose samples do not fit any more is left without any (``kept``). None:
            exactly the samples there are, for whose number a GPU is waited for.
        implementation: "auto", "torch", "numba" or "triton".
    """
    rays = len(origins)
    if first_bin is None:
        first_bin = torch.zeros(rays, dtype=torch.int64, device=origins.device)
    arguments = (origins, directions, near, far, cells, step, limit, seed, first_bin, capacity)
    march_by = {"torch": _march_torch, "numba": _march_numba, "triton": _march_triton}
    return march_by[resolve("ray_marching", implementation, origins.device, tuple(march_by))](*arguments)


def _hash_torch(ray: Tensor, bin_index: Tensor, seed: int | Tensor) -> Tensor:
    mask = 0xFFFFFFFF
    h = (ray * 0x9E3779B1 + bin_index * 0x85EBCA77 + seed * 0xC2B2AE3D) & mask
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & mask
    h = ((h ^ (h >> 12)) * 0x297A2D39) & mask
    return ((h ^ (h >> 15)) >> 8).float() * 2.0**-24


def _fit(counts: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets of the samples that fit, the rays they belong to, and how many samples all rays have."""
    ends = counts.cumsum(0)
    kept = (ends <= capacity) | (counts == 0)
    return F.pad((counts * kept).cumsum(0), (1, 0)), kept, ends[-1:].sum()


def _padding(capacity: int, cells: Cells, step: float, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Positions (3, N), t, dt and ray index, to be filled up to ``offsets[-1]``; dt is whole already."""
    device = offsets.device
    positions = torch.empty(3, capacity, device=device)
    for axis, corner in zip(positions, cells.lower, strict=True):
        axis.fill_(corner)
    dt = (torch.arange(capacity, device=device) < offsets[-1]) * step
    return positions, torch.zeros(capacity, device=device), dt, torch.zeros_like(dt, dtype=torch.int64)


def _bins_torch(origins, directions, near, far, cells, step, capacity) -> Tensor:
    """(R, K) bins to look at: all of a ray, or those in the grid's bounding sphere, whose number needs no waiting."""
    if capacity is None:
        last = int(torch.ceil((far - near) / step).clamp(min=0).max()) + 1 if len(near) else 1
        return torch.arange(last, device=near.device).expand(len(near), last)
    sides = [extent * cells.size for extent in cells.occupied.shape]
    centre = tuple(low + side / 2 for low, side in zip(cells.lower, sides, strict=True))
    radius = math.hypot(*sides) / 2
    middle = ((constant(centre, near.device) - origins) * directions).sum(-1)
    first = ((middle - radius - near) / step).floor().clamp(min=0).long()
    return first[:, None] + torch.arange(math.ceil(2 * radius / step) + 2, device=near.device)


def _march_torch(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    rays, device = len(origins), origins.device
    k = _bins_torch(origins, directions, near, far, cells, step, capacity)
    ray = torch.arange(rays, device=device)[:, None].expand(k.shape)
    place = torch.full(k.shape, 0.5, device=device) if seed is None else _hash_torch(ray, k, seed)
    t = near[:, None] + (k + place) * step
    positions = origins[:, None] + t[..., None] * directions[:, None]
    cell = torch.floor((positions - constant(cells.lower, device)) * (1 / cells.size)).long()
    shape = constant(tuple(cells.occupied.shape), device, torch.int64)
    inside = ((cell >= 0) & (cell < shape)).all(-1)
    x, y, z = cell.clamp(min=0).minimum(shape - 1).unbind(-1)
    live = (k >= first_bin[:, None]) & (first_bin >= 0)[:, None] & (t < far[:, None])
    keep = live & inside & (cells.occupied[x, y, z] != 0)
    rank = keep.cumsum(1)
    full = rank[:, -1] >= limit
    last = (rank < limit).sum(1, keepdim=True)  # where the limit-th sample is, if there is one
    keep = keep & (rank <= limit)
    next_bin = torch.where(full, k.gather(1, last.clamp(max=k.shape[1] - 1))[:, 0] + 1, -1)
    if capacity is None:
        offsets = F.pad(keep.sum(1).cumsum(0), (1, 0))
        return Samples(positions[keep], t[keep], torch.full_like(t[keep], step), ray[keep], offsets, next_bin)
    offsets, kept, wanted = _fit(keep.sum(1), capacity)
    places, distances, dt, ray_index = _padding(capacity + 1, cells, step, offsets)
    # What is not a sample goes into one place more than there are.
    slot = torch.where(keep & kept[:, None], offsets[:-1, None] + rank - 1, capacity).flatten()
    for axis in range(3):
        places[axis].scatter_(0, slot, positions[..., axis].flatten())
    distances.scatter_(0, slot, t.flatten())
    ray_index.scatter_(0, slot, ray.flatten())
    return Samples(
        places[:, :capacity].t(), distances[:capacity], dt[:capacity], ray_index[:capacity], offsets, next_bin, kept,
        wanted,
    )  # fmt: skip


@njit(**_OPTIONS)
def _place(ray, k, seed):
    if seed < 0:
        return np.float32(0.5)
    h = (ray * 0x9E3779B1 + k * 0x85EBCA77 + seed * 0xC2B2AE3D) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    h = ((h ^ (h >> 12)) * 0x297A2D39) & 0xFFFFFFFF
    return np.float32((h ^ (h >> 15)) >> 8) * np.float32(2.0**-24)


@njit(**_OPTIONS)
def _exit_distance(x, dx, cell, size):
    """Ray length from grid coordinate ``x`` to the face by which it leaves ``cell`` on one axis."""
    if dx > 0:
        return ((cell + 1) * size - x) / dx
    if dx < 0:
        return (cell * size - x) / dx
    return np.float32(np.inf)


@njit(**_OPTIONS)
def _scan(
    start, stop, origins, directions, near, far, lower, inverse_size, occupied, coarse, step, limit, seed,
    first_bin, places, counts, next_bin,
):  # fmt: skip
    """Writes the t of each chunk's samples one after another from ``places[start * limit]``."""
    nx, ny, nz = occupied.shape
    cursor = start * limit
    block = np.float32(_COARSE)
    for ray in range(start, stop):
        counts[ray], next_bin[ray] = 0, -1
        k = first_bin[ray]
        if k < 0:
            continue
        # In grid coordinates a cell has edge 1; t stays in world units.
        ox = (origins[ray, 0] - lower[0]) * inverse_size
        oy = (origins[ray, 1] - lower[1]) * inverse_size
        oz = (origins[ray, 2] - lower[2]) * inverse_size
        dx, dy, dz = (
            directions[ray, 0] * inverse_size,
            directions[ray, 1] * inverse_size,
            directions[ray, 2] * inverse_size,
        )
        while True:
            t = near[ray] + (k + _place(ray, k, seed)) * step
            if t >= far[ray]:
                break
            x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
            ix, iy, iz = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
            if ix < 0 or iy < 0 or iz < 0 or ix >= nx or iy >= ny or iz >= nz:
                k += 1
                continue
            if occupied[ix, iy, iz] != 0:
                places[cursor] = t
                cursor += 1
                counts[ray] += 1
                k += 1
                if counts[ray] == limit:
                    next_bin[ray] = k
                    break
                continue
            edge, cx, cy, cz = np.float32(1), ix, iy, iz
            if coarse[ix >> 2, iy >> 2, iz >> 2] == 0:
                edge, cx, cy, cz = block, ix >> 2, iy >> 2, iz >> 2
            leave = min(
                _exit_distance(x, dx, cx, edge),
                min(_exit_distance(y, dy, cy, edge), _exit_distance(z, dz, cz, edge)),
            )
            # Bins that end before the empty cell does cannot hold a sample, wherever their place is.
            k = max(k + 1, int((t + leave - near[ray]) / step))


@njit(**_OPTIONS)
def _fill(
    start, stop, origins, directions, limit, places, offsets, positions, t_out, ray_index
):  # fmt: skip
    source = start * limit
    for ray in range(start, stop):
        for i in range(offsets[ray], offsets[ray + 1]):
            t = places[source]
            source += 1
            t_out[i], ray_index[i] = t, ray
            for axis in range(3):
                positions[axis, i] = origins[ray, axis] + t * directions[ray, axis]


def _march_numba(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    rays = len(origins)
    origins, directions = origins.contiguous().numpy(), directions.contiguous().numpy()
    # Untouched pages of this buffer cost nothing: each chunk packs its samples at the front of its part.
    places = np.empty(rays * limit, np.float32)
    counts, next_bin = np.empty(rays, np.int64), torch.empty(rays, dtype=torch.int64)
    parallel_for(
        _scan, rays, origins, directions, near.contiguous().numpy(), far.contiguous().numpy(),
        np.array(cells.lower, np.float32), np.float32(1 / cells.size),
        cells.occupied.numpy(), cells.coarse.numpy(), np.float32(step), limit, -1 if seed is None else int(seed),
        first_bin.contiguous().numpy(), places, counts, next_bin.numpy(), grain=_GRAIN,
    )  # fmt: skip
    kept = wanted = None
    if capacity is None:
        offsets = torch.zeros(rays + 1, dtype=torch.int64)
        np.cumsum(counts, out=offsets.numpy()[1:])
        total = int(offsets[-1])
        positions, t = torch.empty(3, total), torch.empty(total)
        dt, ray_index = torch.full_like(t, step), torch.empty(total, dtype=torch.int64)
    else:
        offsets, kept, wanted = _fit(torch.from_numpy(counts), capacity)
        positions, t, dt, ray_index = _padding(capacity, cells, step, offsets)
    parallel_for(
        _fill, rays, origins, directions, limit, places, offsets.numpy(), positions.numpy(), t.numpy(),
        ray_index.numpy(), grain=_GRAIN,
    )  # fmt: skip
    return Samples(positions.t(), t, dt, ray_index, offsets, next_bin, kept, wanted)


def _march_triton(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    from kernels import ray_marching_triton as triton_twin

    device, count = origins.device, len(origins)
    rays = tuple(part.contiguous() for part in (origins, directions, near, far, first_bin))
    counts, next_bin = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
    if count:
        triton_twin.count(rays, cells, step, limit, seed, counts, next_bin)
    kept = wanted = None
    if capacity is None:
        offsets = F.pad(counts.cumsum(0), (1, 0))
        total = int(offsets[-1])
        positions, t = torch.empty(3, total, device=device), torch.empty(total, device=device)
        dt, ray_index = torch.full_like(t, step), torch.empty(total, dtype=torch.int64, device=device)
    else:
        offsets, kept, wanted = _fit(counts, capacity)
        positions, t, dt, ray_index = _padding(capacity, cells, step, offsets)
    if len(t) and count:
        triton_twin.fill(rays, cells, step, seed, offsets, positions, t, ray_index)
    return Samples(positions.t(), t, dt, ray_index, offsets, next_bin, kept, wanted)
