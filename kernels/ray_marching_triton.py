"""Triton twin of ray marching: a program looks at windows of bins of several rays at a time, side by side.

First the middles of 32 windows of each ray are looked up in the coarse cells, as many of these around counted in as a
window is long: so a ray's empty windows are left out at one glance, and only bins of the others are looked at. Which
of these hold samples is noted, a bit for each. After a running sum of their number the second pass writes each sample
at its place, and looks at no cell again. Neighbouring bins are neighbouring lanes, so a ray's samples are written side
by side.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import sample_room_triton
from kernels.ray_samples import COARSE, Cells, Samples, room_for
from kernels.triton_support import launch_on

_RAYS = 16
WINDOW = 32  # bins of a window, and windows that are looked up at a time: the bits of a note
_WARPS = 4
_SLACK = 0.05  # cells that rounding may put a place off by
_COARSE = tl.constexpr(COARSE)
_NONE = tl.constexpr(1 << 30)


@triton.jit
def _stratified(ray, k, seed):
    """The place in a bin, [0, 1): ``ray_marching._hash_torch``, whose products wrap round at 32 bits."""
    h = ray * 0x9E3779B1 + k * 0x85EBCA77 + seed * 0xC2B2AE3D
    h = (h ^ (h >> 15)) * 0x2C1B3C6D
    h = (h ^ (h >> 12)) * 0x297A2D39
    return ((h ^ (h >> 15)) >> 8).to(tl.float32) * 5.9604644775390625e-08  # 2**-24


@triton.jit
def _setup(ray, rays, near, far, first_bin, step):
    """Near, far, and the bins to look at, from the first to before the last, of each ray."""
    live = ray < rays
    near, far = tl.load(near + ray, mask=live, other=0.0), tl.load(far + ray, mask=live, other=0.0)
    first = tl.load(first_bin + ray, mask=live, other=-1)
    # One bin more than fit: rounding may put a sample of the bin beyond before ``far``.
    bins = tl.ceil(tl.minimum(tl.maximum((far - near) / step, 0.0), 1e9)).to(tl.int32) + 1
    return near, far, tl.minimum(first, 1 << 30).to(tl.int32), tl.where(first < 0, -1, bins)


@triton.jit
def _place(ray, k, near, o, d, step, seed, CENTRED: tl.constexpr):
    """Distance and position of the sample of each bin ``k`` (RAYS, WINDOW)."""
    if CENTRED:
        place = tl.full(k.shape, 0.5, tl.float32)
    else:
        place = _stratified(ray.to(tl.uint32)[:, None], k.to(tl.uint32), seed.to(tl.uint32))
    t = near[:, None] + (k.to(tl.float32) + place) * step
    return t, o[0][:, None] + t * d[0][:, None], o[1][:, None] + t * d[1][:, None], o[2][:, None] + t * d[2][:, None]


@triton.jit
def _block(x, blocks, inverse_size, longest):
    """The coarse cell on one axis nearest to a place, and whether what is ``longest`` cells from it may be in one."""
    x = x * inverse_size
    inside = tl.minimum(tl.maximum(x, 0.0), blocks * _COARSE)
    block = tl.minimum(tl.floor(inside * (1.0 / _COARSE)).to(tl.int32), blocks - 1)
    return block, tl.abs(x - inside) <= longest


@triton.jit
def _may_hold(t, o, d, lower_x, lower_y, lower_z, inverse_size, around, mx, my, mz, asked, longest):
    """Whether windows with their middles at ``t`` (RAYS, WINDOW) may hold samples."""
    bx, by_x = _block(o[0][:, None] + t * d[0][:, None] - lower_x, mx, inverse_size, longest)
    by, by_y = _block(o[1][:, None] + t * d[1][:, None] - lower_y, my, inverse_size, longest)
    bz, by_z = _block(o[2][:, None] + t * d[2][:, None] - lower_z, mz, inverse_size, longest)
    asked = asked & by_x & by_y & by_z
    return tl.load(around + ((bx * my + by) * mz + bz), mask=asked, other=0) != 0


@triton.jit(do_not_specialize=["rays", "seed", "limit", "notes"])
def _find(
    origins, directions, near, far, first_bin, rays, lower_x, lower_y, lower_z, inverse_size, occupied, nx, ny, nz,
    around, longest, step, limit, seed, notes, counts, next_bin, windows, bits, noted, looked,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live = ray < rays
    near, far, start, last = _setup(ray, rays, near, far, first_bin, step)
    o, d = _vector(origins, ray, live), _vector(directions, ray, live)
    mx, my, mz = (nx + _COARSE - 1) // _COARSE, (ny + _COARSE - 1) // _COARSE, (nz + _COARSE - 1) // _COARSE
    lane = tl.arange(0, WINDOW)
    found, onward = tl.zeros((RAYS,), tl.int32), tl.full((RAYS,), -1, tl.int32)
    entries, looks = tl.zeros((RAYS,), tl.int32), tl.zeros((RAYS,), tl.int32)
    note = ray.to(tl.int64) * notes
    going = start < last
    first = tl.min(tl.where(going, start, _NONE), axis=0) // (WINDOW * WINDOW) * WINDOW
    while tl.max((going & (first * WINDOW < last) & (found < limit)).to(tl.int32), axis=0) > 0:
        window = first + lane
        asked = (window[None, :] * WINDOW < last[:, None]) & ((window[None, :] + 1) * WINDOW > start[:, None])
        middle = near[:, None] + ((window * WINDOW).to(tl.float32) + WINDOW * 0.5)[None, :] * step
        ahead = _may_hold(
            middle, o, d, lower_x, lower_y, lower_z, inverse_size, around, mx, my, mz, asked & going[:, None], longest
        )  # fmt: skip
        current = tl.min(tl.where(ahead, window[None, :], _NONE), axis=1)
        open_ = (current < _NONE) & (found < limit)
        while tl.max(open_.to(tl.int32), axis=0) > 0:
            k = tl.where(open_, current, 0)[:, None] * WINDOW + lane[None, :]
            t, x, y, z = _place(ray, k, near, o, d, step, seed, CENTRED)
            cx = tl.floor((x - lower_x) * inverse_size)
            cy = tl.floor((y - lower_y) * inverse_size)
            cz = tl.floor((z - lower_z) * inverse_size)
            hit = (cx >= 0) & (cy >= 0) & (cz >= 0) & (cx < nx) & (cy < ny) & (cz < nz) & open_[:, None]
            hit = hit & (k >= start[:, None]) & (k < last[:, None]) & (t < far[:, None])
            cell = (cx.to(tl.int64) * ny + cy.to(tl.int64)) * nz + cz.to(tl.int64)
            hit = tl.load(occupied + cell, mask=hit, other=0) != 0
            rank = found[:, None] + tl.cumsum(hit.to(tl.int32), axis=1)
            # The bin after the one that fills the limit: no other is as large, so the maximum is it.
            onward = tl.maximum(onward, tl.max(tl.where(hit & (rank == limit), k + 1, -1), axis=1))
            hit = hit & (rank <= limit)
            found += tl.sum(hit.to(tl.int32), axis=1)
            bit = tl.sum(tl.where(hit, (tl.full((RAYS, WINDOW), 1, tl.int32) << lane[None, :]), 0), axis=1)
            some = bit != 0
            tl.store(windows + note + entries, current, mask=some)
            tl.store(bits + note + entries, bit, mask=some)
            entries += some.to(tl.int32)
            looks += open_.to(tl.int32)
            ahead = ahead & (window[None, :] > current[:, None])
            current = tl.min(tl.where(ahead, window[None, :], _NONE), axis=1)
            open_ = (current < _NONE) & (found < limit)
        first += WINDOW
    tl.store(counts + ray, found.to(tl.int64), mask=live)
    tl.store(next_bin + ray, onward.to(tl.int64), mask=live)
    tl.store(noted + ray, entries, mask=live)
    tl.store(looked + ray, looks, mask=live)


@triton.jit(do_not_specialize=["rays", "seed", "total", "notes"])
def _fill(
    origins, directions, near, rays, step, seed, notes, windows, bits, noted, offsets, total, positions, t_out,
    ray_index,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    live = ray < rays
    near = tl.load(near + ray, mask=live, other=0.0)
    o, d = _vector(origins, ray, live), _vector(directions, ray, live)
    target = tl.load(offsets + ray, mask=live, other=0)
    end = tl.load(offsets + ray + 1, mask=live, other=0)
    note, lane, entry = ray.to(tl.int64) * notes, tl.arange(0, WINDOW), 0
    # A ray that there is no room for ends where it begins.
    entries = tl.where(target < end, tl.load(noted + ray, mask=live, other=0), 0)
    most = tl.max(entries, axis=0)
    while entry < most:
        there = entry < entries
        k = tl.load(windows + note + entry, mask=there, other=0)[:, None] * WINDOW + lane[None, :]
        hit = (tl.load(bits + note + entry, mask=there, other=0)[:, None] >> lane[None, :]) & 1
        slot = target[:, None] + tl.cumsum(hit, axis=1) - 1
        t, x, y, z = _place(ray, k, near, o, d, step, seed, CENTRED)
        tl.store(t_out + slot, t, mask=hit != 0)
        tl.store(positions + slot, x, mask=hit != 0)
        tl.store(positions + total + slot, y, mask=hit != 0)
        tl.store(positions + 2 * total + slot, z, mask=hit != 0)
        tl.store(ray_index + slot, tl.broadcast_to(ray.to(tl.int64)[:, None], slot.shape), mask=hit != 0)
        target += tl.sum(hit, axis=1)
        entry += 1


@triton.jit
def _vector(vectors, ray, live):
    """The three components of a contiguous (R, 3) tensor's rows."""
    row = vectors + ray.to(tl.int64) * 3
    x, y = tl.load(row, mask=live, other=0.0), tl.load(row + 1, mask=live, other=0.0)
    return x, y, tl.load(row + 2, mask=live, other=0.0)


class Notes(NamedTuple):
    """Where samples are, before there is room for them; of each of R rays.

    counts, next_bin (R,) int64: as for ``room_for``. windows, bits (R, most) int32, of which ``noted`` (R,) int32 are
    filled: windows that hold samples, and in which of their bins. looked (R,) int32: windows whose bins were looked at.
    """

    counts: Tensor
    next_bin: Tensor
    windows: Tensor
    bits: Tensor
    noted: Tensor
    looked: Tensor


def find(origins, directions, near, far, cells, step, limit, seed, first_bin) -> Notes:
    """The first of ``march``'s passes; all but the cells are contiguous, and so are these."""
    count, device = len(origins), origins.device
    most = min(limit, _most_windows(cells, step))
    counts, next_bin = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
    windows, bits = (torch.empty(count, most, dtype=torch.int32, device=device) for _ in range(2))
    noted, looked = (torch.empty(count, dtype=torch.int32, device=device) for _ in range(2))
    notes = Notes(counts, next_bin, windows, bits, noted, looked)
    if count:
        half = WINDOW / 2 * step / cells.size + _SLACK
        around = cells.coarse_within(math.ceil(half / COARSE))
        grid = *cells.lower, 1 / cells.size, cells.occupied.contiguous(), *cells.occupied.shape
        with launch_on(device):
            _find[(triton.cdiv(count, _RAYS),)](
                origins, directions, near, far, first_bin, count, *grid, around, half, step, limit, _seed(seed), most,
                *notes, **_options(seed), num_warps=_WARPS,
            )  # fmt: skip
    return notes


def march(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    """See ``kernels.ray_marching.march``."""
    origins, directions, near, far, first_bin = (
        part.contiguous() for part in (origins, directions, near, far, first_bin)
    )
    notes = find(origins, directions, near, far, cells, step, limit, seed, first_bin)
    make_room = room_for if capacity is None else sample_room_triton.room_for
    samples = make_room(notes.counts, notes.next_bin, cells, step, capacity)
    positions, t = samples.positions.t(), samples.t
    count = len(origins)
    if len(t) and count:
        with launch_on(origins.device):
            _fill[(triton.cdiv(count, _RAYS),)](
                origins, directions, near, count, step, _seed(seed), notes.windows.shape[1], notes.windows, notes.bits,
                notes.noted, samples.offsets, len(t), positions, t, samples.ray_index, **_options(seed),
                num_warps=_WARPS,
            )  # fmt: skip
    return samples


def _most_windows(cells: Cells, step: float) -> int:
    """Windows of a ray that can hold samples at most: those that the cells' bounding sphere is crossed in."""
    return math.ceil(math.hypot(*cells.occupied.shape) * cells.size / step / WINDOW) + 2


def _options(seed: int | Tensor | None) -> dict[str, int | bool]:
    return {"CENTRED": seed is None, "SEED_IN_MEMORY": isinstance(seed, Tensor), "RAYS": _RAYS, "WINDOW": WINDOW}


def _seed(seed: int | Tensor | None) -> int | Tensor:
    """The seed's low 32 bits as a signed number: all the hash uses, and always one type of argument."""
    if isinstance(seed, Tensor):
        return seed
    return ((seed or 0) + 2**31) % 2**32 - 2**31
