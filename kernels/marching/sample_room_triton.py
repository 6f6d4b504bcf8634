"""Room for a fixed number of samples in Triton, in one launch: ``kernels.marching.ray_samples.room_for``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.marching.ray_samples import Cells, Samples
from kernels.triton_support import launch_on

_BLOCK = 512


@triton.jit(do_not_specialize=["rays"])
def _room(
    counts, ends, rays, capacity, lower_x, lower_y, lower_z, step, offsets, kept, positions, t, dt, ray_index,
    BLOCK: tl.constexpr,
):  # fmt: skip
    # The last sample that there is room for. A ray that ends behind the capacity is left out, and all that follow end
    # behind it too: their offsets are the same.
    low, high = tl.program_id(0) * 0, rays
    while low < high:
        middle = (low + high) // 2
        fits = tl.load(ends + middle) <= capacity
        low = tl.where(fits, middle + 1, low)
        high = tl.where(fits, high, middle)
    taken = tl.load(ends + low - 1, mask=low > 0, other=0)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = place < rays
    end = tl.load(ends + place, mask=live, other=0)
    tl.store(kept + place, (end <= capacity) | (tl.load(counts + place, mask=live, other=0) == 0), mask=live)
    tl.store(offsets + place + 1, tl.minimum(end, taken), mask=live)
    tl.store(offsets + place, tl.zeros((BLOCK,), tl.int64), mask=place == 0)
    there = place < capacity
    tl.store(dt + place, tl.where(place < taken, step, 0.0), mask=there)
    there = there & (place >= taken)
    tl.store(positions + place, tl.zeros((BLOCK,), tl.float32) + lower_x, mask=there)
    tl.store(positions + capacity + place, tl.zeros((BLOCK,), tl.float32) + lower_y, mask=there)
    tl.store(positions + 2 * capacity + place, tl.zeros((BLOCK,), tl.float32) + lower_z, mask=there)
    tl.store(t + place, tl.zeros((BLOCK,), tl.float32), mask=there)
    tl.store(ray_index + place, tl.zeros((BLOCK,), tl.int64), mask=there)


def room_for(counts: Tensor, next_bin: Tensor, cells: Cells, step: float, capacity: int) -> Samples:
    """As ``kernels.marching.ray_samples.room_for`` with a capacity."""
    rays, device = len(counts), counts.device
    ends = counts.cumsum(0)
    offsets = torch.empty(rays + 1, dtype=torch.int64, device=device)
    kept = torch.empty(rays, dtype=torch.bool, device=device)
    positions = torch.empty(3, capacity, device=device)
    t, dt = torch.empty(capacity, device=device), torch.empty(capacity, device=device)
    ray_index = torch.empty(capacity, dtype=torch.int64, device=device)
    with launch_on(device):
        _room[(triton.cdiv(max(rays, capacity, 1), _BLOCK),)](
            counts, ends, rays, capacity, *cells.lower, step, offsets, kept, positions, t, dt, ray_index, BLOCK=_BLOCK
        )
    wanted = ends[-1] if rays else torch.zeros((), dtype=torch.int64, device=device)
    return Samples(positions.t(), t, dt, ray_index, offsets, next_bin, kept, wanted)
