"""Triton twin of ray marching: a program looks at a run of bins of several rays at a time, side by side.

Two passes, as the number of samples is not known before: one counts them, and after a running sum of the counts the
other finds them again and writes each at its place. Neighbouring bins are neighbouring lanes, so a ray's samples are
written side by side.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.marching import sample_room_triton
from kernels.marching.ray_samples import Samples, room_for
from kernels.triton_support import launch_on

_RAYS = 16
_BINS = 32
_WARPS = 4


@triton.jit
def _place_in_bins(ray, seed, CENTRED: tl.constexpr):
    """(RAYS, 1) ``ray_marching.place_in_bins``, whose products wrap round at 32 bits, or the middle."""
    if CENTRED:
        return tl.full((ray.shape[0], 1), 0.5, tl.float32)
    else:
        h = ray.to(tl.uint32) * 0x9E3779B1 + seed.to(tl.uint32) * 0xC2B2AE3D
        h = (h ^ (h >> 15)) * 0x2C1B3C6D
        h = (h ^ (h >> 12)) * 0x297A2D39
        return (((h ^ (h >> 15)) >> 8).to(tl.float32) * 5.9604644775390625e-08)[:, None]  # 2**-24


@triton.jit
def _setup(ray, rays, near, far, first_bin, step):
    """Near, far, and the bins to look at, from the first to before the last, of each ray."""
    live = ray < rays
    near, far = tl.load(near + ray, mask=live, other=0.0), tl.load(far + ray, mask=live, other=0.0)
    first = tl.load(first_bin + ray, mask=live, other=-1)
    # One bin more than fit: rounding may put a sample of the bin beyond before ``far``.
    bins = tl.ceil(tl.minimum(tl.maximum((far - near) / step, 0.0), 1e9)).to(tl.int64) + 1
    return near, far, first, tl.where(first < 0, -1, bins)


@triton.jit
def _look(
    k, place, last, near, far, ox, oy, oz, dx, dy, dz, lower_x, lower_y, lower_z, inverse_size,
    occupied, nx, ny, nz, step,
):  # fmt: skip
    """Distance and position of the sample of each bin ``k`` (RAYS, BINS), and whether the cell there is occupied."""
    t = near[:, None] + (k.to(tl.float32) + place) * step
    x, y, z = ox[:, None] + t * dx[:, None], oy[:, None] + t * dy[:, None], oz[:, None] + t * dz[:, None]
    cx = tl.floor((x - lower_x) * inverse_size)
    cy = tl.floor((y - lower_y) * inverse_size)
    cz = tl.floor((z - lower_z) * inverse_size)
    inside = (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < nx) & (cy < ny) & (cz < nz)
    asked = (k < last[:, None]) & (t < far[:, None]) & inside
    cell = (cx.to(tl.int64) * ny + cy.to(tl.int64)) * nz + cz.to(tl.int64)
    return t, x, y, z, tl.load(occupied + cell, mask=asked, other=0) != 0


@triton.jit(do_not_specialize=["rays", "seed", "limit"])
def _count(
    origins, directions, near, far, first_bin, rays, lower_x, lower_y, lower_z, inverse_size, occupied, nx, ny, nz,
    step, limit, seed, counts, next_bin,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live = ray < rays
    near, far, start, last = _setup(ray, rays, near, far, first_bin, step)
    place = _place_in_bins(ray, seed, CENTRED)
    ox, oy, oz = _vector(origins, ray, live)
    dx, dy, dz = _vector(directions, ray, live)
    found = tl.zeros((RAYS,), tl.int32)
    onward = tl.full((RAYS,), -1, tl.int64)
    while tl.max(((start < last) & (found < limit)).to(tl.int32), axis=0) > 0:
        k = start[:, None] + tl.arange(0, BINS)[None, :]
        _, _, _, _, hit = _look(
            k, place, last, near, far, ox, oy, oz, dx, dy, dz, lower_x, lower_y, lower_z, inverse_size,
            occupied, nx, ny, nz, step,
        )  # fmt: skip
        rank = found[:, None] + tl.cumsum(hit.to(tl.int32), axis=1)
        # The bin after the one that fills the limit: no other is as large, so the maximum is it.
        filled = tl.max(tl.where(hit & (rank == limit), k + 1, -1), axis=1)
        onward = tl.maximum(onward, filled)
        found += tl.sum(hit.to(tl.int32), axis=1)
        start += BINS
    tl.store(counts + ray, tl.minimum(found, limit).to(tl.int64), mask=live)
    tl.store(next_bin + ray, onward, mask=live)


@triton.jit(do_not_specialize=["rays", "seed", "total"])
def _fill(
    origins, directions, near, far, first_bin, rays, lower_x, lower_y, lower_z, inverse_size, occupied, nx, ny, nz,
    step, seed, offsets, total, positions, t_out, ray_index,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live = ray < rays
    near, far, start, last = _setup(ray, rays, near, far, first_bin, step)
    place = _place_in_bins(ray, seed, CENTRED)
    ox, oy, oz = _vector(origins, ray, live)
    dx, dy, dz = _vector(directions, ray, live)
    target = tl.load(offsets + ray, mask=live, other=0)
    end = tl.load(offsets + ray + 1, mask=live, other=0)
    while tl.max(((start < last) & (target < end)).to(tl.int32), axis=0) > 0:
        k = start[:, None] + tl.arange(0, BINS)[None, :]
        t, x, y, z, hit = _look(
            k, place, last, near, far, ox, oy, oz, dx, dy, dz, lower_x, lower_y, lower_z, inverse_size,
            occupied, nx, ny, nz, step,
        )  # fmt: skip
        slot = target[:, None] + tl.cumsum(hit.to(tl.int64), axis=1) - 1
        hit = hit & (slot < end[:, None])
        tl.store(t_out + slot, t, mask=hit)
        tl.store(positions + slot, x, mask=hit)
        tl.store(positions + total + slot, y, mask=hit)
        tl.store(positions + 2 * total + slot, z, mask=hit)
        tl.store(ray_index + slot, tl.broadcast_to(ray.to(tl.int64)[:, None], slot.shape), mask=hit)
        target += tl.sum(hit.to(tl.int64), axis=1)
        start += BINS


@triton.jit
def _vector(vectors, ray, live):
    """The three components of a contiguous (R, 3) tensor's rows."""
    row = vectors + ray.to(tl.int64) * 3
    x, y = tl.load(row, mask=live, other=0.0), tl.load(row + 1, mask=live, other=0.0)
    return x, y, tl.load(row + 2, mask=live, other=0.0)


def march(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    """See ``kernels.marching.ray_marching.march``."""
    count, device = len(origins), origins.device
    counts, next_bin = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
    grid = *cells.lower, 1 / cells.size, cells.occupied.contiguous(), *cells.occupied.shape
    rays = *(part.contiguous() for part in (origins, directions, near, far, first_bin)), count, *grid
    options = {"CENTRED": seed is None, "SEED_IN_MEMORY": isinstance(seed, Tensor), "RAYS": _RAYS, "BINS": _BINS}
    programs = (triton.cdiv(count, _RAYS),)
    seed = _seed(seed)
    if count:
        with launch_on(device):
            _count[programs](*rays, step, limit, seed, counts, next_bin, **options, num_warps=_WARPS)
    make_room = room_for if capacity is None else sample_room_triton.room_for
    samples = make_room(counts, next_bin, cells, step, capacity)
    positions, t = samples.positions.t(), samples.t
    if len(t) and count:
        with launch_on(device):
            _fill[programs](
                *rays, step, seed, samples.offsets, len(t), positions, t, samples.ray_index, **options,
                num_warps=_WARPS,
            )  # fmt: skip
    return samples


def _seed(seed: int | Tensor | None) -> int | Tensor:
    """The seed's low 32 bits as a signed number: all the hash uses, and always one type of argument."""
    if isinstance(seed, Tensor):
        return seed
    return ((seed or 0) + 2**31) % 2**32 - 2**31
