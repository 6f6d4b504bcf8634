"""Samples along rays, placed only inside the occupied cells of a grid.

A ray's interval [near, far) is cut into bins of one fixed length; a bin yields one sample at a random place (or at its
centre), kept if the cell at that place is occupied. All bins of a ray have one place: its samples are then a step
apart, as in pictures, and what it shows varies less from step to step than with a place for each bin. Students learn
0.7 dB from that (docs/experiments/lego_400.md).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.marching import ray_marching_numba
from kernels.marching.ray_samples import Cells, Samples, fit, padding


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
        seed: a random place in all bins of a ray, the same for the same (seed, ray); a () int64 tensor is read where
            it is, when the march runs. None takes the centres.
        first_bin: (R,) int64 bin to start from; -1 skips the ray. None starts all at 0.
        capacity: samples to make room for, and to return, whatever their number: nothing then waits for a GPU to tell
            it. Rays are served in order; one whose samples do not fit any more is left without any (``kept``). None:
            exactly the samples there are, for whose number a GPU is waited for.
        implementation: "auto", "torch", "numba" or "triton".
    """
    rays = len(origins)
    if first_bin is None:
        first_bin = torch.zeros(rays, dtype=torch.int64, device=origins.device)
    limit = min(limit, cells.most_bins(step))  # numba makes room for as many samples of every ray
    arguments = (origins, directions, near, far, cells, step, limit, seed, first_bin, capacity)
    name = resolve("ray_marching", implementation, origins.device, ("torch", "numba", "triton"))
    if name == "torch":
        return _march_torch(*arguments)
    if name == "numba":
        return ray_marching_numba.march(*arguments)
    from kernels.marching import ray_marching_triton

    return ray_marching_triton.march(*arguments)


def place_in_bins(ray: Tensor, seed: int | Tensor) -> Tensor:
    """Random places in [0, 1) of rays' bins, of the shape of ``ray``: a function of ray and seed."""
    mask = 0xFFFFFFFF
    h = (ray * 0x9E3779B1 + (seed * 0xC2B2AE3D & mask)) & mask
    h = ((h ^ (h >> 15)) * 0x2C1B3C6D) & mask
    h = ((h ^ (h >> 12)) * 0x297A2D39) & mask
    return ((h ^ (h >> 15)) >> 8).float() * 2.0**-24


def seed_from_ray(seed: int, first: int) -> int:
    """The seed that gives rays 0, 1, ... the places that ``seed`` gives rays ``first``, ``first + 1``, ..."""
    return (seed + first * 0x9E3779B1 * pow(0xC2B2AE3D, -1, 1 << 32)) % (1 << 32)


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
    return first[:, None] + torch.arange(cells.most_bins(step), device=near.device)


def _march_torch(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    rays, device = len(origins), origins.device
    k = _bins_torch(origins, directions, near, far, cells, step, capacity)
    ray = torch.arange(rays, device=device)[:, None].expand(k.shape)
    place = 0.5 if seed is None else place_in_bins(ray, seed)
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
    offsets, kept, wanted = fit(keep.sum(1), capacity)
    places, distances, dt, ray_index = padding(capacity + 1, cells, step, offsets)
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
