"""Triton twin of ray marching: one pass notes the occupied bins of every ray, another writes their samples.

The number of samples is not known before: the first pass counts them, and their places follow from a running sum. The
second takes the bins that the first has noted, see ``ray_bins_triton``, a bin a lane, so that a ray's samples are
written side by side, and asks no cell again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import sample_room_triton
from kernels.ray_bins_triton import RUN, grid_of, line_of, most_runs, note_bins, place_in_bins, sample, unpack
from kernels.ray_samples import Samples, room_for
from kernels.triton_support import launch_on

# A program is one warp: then no ray waits for another warp's.
_RAYS_TO_FIND, _RAYS_TO_FILL = 32, 4
_MOST_RUNS = 1 << 25  # noted at a time: a quarter of a GiB


@triton.jit(do_not_specialize=["rays", "first", "part", "limit", "seed"])
def _find(
    origins, directions, near, far, rays, first, part, step, seed, runs, first_bin, limit,
    lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz, counts, next_bin,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    place = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    ray = first + place
    there = (place < part) & (ray < rays)
    line = line_of((origins, directions, near, far), ray, there)
    grid = lower_x, lower_y, lower_z, inverse_size, occupied, empty_blocks, nx, ny, nz
    begin = tl.load(first_bin + ray, mask=there, other=-1)
    live, begin = begin >= 0, tl.minimum(begin, 1 << 30).to(tl.int32)
    in_bins = place_in_bins(ray, seed, CENTRED)
    found, onward, _ = note_bins(line, live, begin, in_bins, grid, step, limit, runs + place, part)
    tl.store(counts + ray, found.to(tl.int64), mask=there)
    tl.store(next_bin + ray, tl.where(live & (found == limit), onward, -1).to(tl.int64), mask=there)


@triton.jit(do_not_specialize=["rays", "first", "part", "seed", "total"])
def _fill(
    origins, directions, near, far, rays, first, part, step, seed, runs, offsets, total, positions, t_out, ray_index,
    CENTRED: tl.constexpr, SEED_IN_MEMORY: tl.constexpr, RAYS: tl.constexpr,
):  # fmt: skip
    if SEED_IN_MEMORY:
        seed = tl.load(seed)
    place = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    there, ray = (place < part) & (first + place < rays), (first + place)[:, None]
    # Counted from the program's first sample, where a sample goes is a number of 32 bits.
    base = tl.load(offsets + tl.minimum(first + tl.program_id(0) * RAYS, rays))
    target = (tl.load(offsets + first + place, mask=there, other=0) - base).to(tl.int32)
    end = (tl.load(offsets + first + place + 1, mask=there, other=0) - base).to(tl.int32)
    x_out, t_out, ray_index = positions + base, t_out + base, ray_index + base
    y_out, z_out = x_out + total, x_out + total + total
    line = line_of((origins, directions, near, far), ray, there[:, None])
    note, lane, in_bins = runs + place, tl.arange(0, RUN)[None, :], place_in_bins(ray, seed, CENTRED)
    # A ray that there is no room for ends where it begins.
    while tl.max((target < end).to(tl.int32), 0) > 0:
        run, bits = unpack(tl.load(note, mask=target < end, other=0))
        hit = (bits[:, None] >> lane) & 1
        t, x, y, z = sample(line, run[:, None] * RUN + lane, in_bins, step)
        slot = target[:, None] + tl.cumsum(hit, 1) - 1
        tl.store(t_out + slot, t, mask=hit != 0)
        tl.store(x_out + slot, x, mask=hit != 0)
        tl.store(y_out + slot, y, mask=hit != 0)
        tl.store(z_out + slot, z, mask=hit != 0)
        tl.store(ray_index + slot, tl.broadcast_to(ray, slot.shape).to(tl.int64), mask=hit != 0)
        target += tl.sum(hit, 1)
        note += part


def march(origins, directions, near, far, cells, step, limit, seed, first_bin, capacity) -> Samples:
    """See ``kernels.ray_marching.march``. Of more rays than notes fit into memory for, parts are marched twice."""
    count, device = len(origins), origins.device
    rays = *(each.contiguous() for each in (origins, directions, near, far)), count
    counts, next_bin = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
    most = most_runs(cells, step, limit)
    part = max(1, min(count, _MOST_RUNS // most))
    runs = torch.empty(most, part, dtype=torch.int64, device=device)
    options = {"CENTRED": seed is None, "SEED_IN_MEMORY": isinstance(seed, Tensor), "num_warps": 1}
    bins, cells_asked, seed = first_bin.contiguous(), grid_of(cells), _seed(seed)
    parts = range(0, count, part)

    def find(first: int) -> None:
        _find[(triton.cdiv(part, _RAYS_TO_FIND),)](
            *rays, first, part, step, seed, runs, bins, limit, *cells_asked, counts, next_bin, RAYS=_RAYS_TO_FIND,
            **options,
        )  # fmt: skip

    with launch_on(device):
        for first in parts:
            find(first)
    make_room = room_for if capacity is None else sample_room_triton.room_for
    samples = make_room(counts, next_bin, cells, step, capacity)
    positions, t = samples.positions.t(), samples.t
    with launch_on(device):
        for first in parts if len(t) else ():
            if len(parts) > 1:
                find(first)
            _fill[(triton.cdiv(part, _RAYS_TO_FILL),)](
                *rays, first, part, step, seed, runs, samples.offsets, len(t), positions, t, samples.ray_index,
                RAYS=_RAYS_TO_FILL, **options,
            )  # fmt: skip
    return samples


def _seed(seed: int | Tensor | None) -> int | Tensor:
    """The seed's low 32 bits as a signed number: all the hash uses, and always one type of argument."""
    if isinstance(seed, Tensor):
        return seed
    return ((seed or 0) + 2**31) % 2**32 - 2**31
