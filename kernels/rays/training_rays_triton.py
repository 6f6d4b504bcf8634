"""Triton twin of ``distill.training.ray_sampler``'s drawing: rays through chosen pixels, and what is seen there."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.rays.training_rays_numba import Drawn, Pixels
from kernels.triton_support import launch_on

_BLOCK = 128


@triton.jit
def _slab(origin, direction, lower, upper, entry, exit_):
    """Where a ray is between two planes too; parallel to them it is so for ever or never."""
    parallel = direction == 0.0
    safe = tl.where(parallel, 1.0, direction)
    first, second = (lower - origin) / safe, (upper - origin) / safe
    within = (origin >= lower) & (origin <= upper)
    begins = tl.where(parallel, tl.where(within, -float("inf"), float("inf")), tl.minimum(first, second))
    ends = tl.where(parallel, tl.where(within, float("inf"), -float("inf")), tl.maximum(first, second))
    return tl.maximum(entry, begins), tl.minimum(exit_, ends)


@triton.jit
def store_interval(origin, direction, box, least, most, ray, live, near, far):
    """Where rays are in the box, from ``least`` to ``most``; those that miss it have no length, at ``least``."""
    entry, exit_ = tl.zeros_like(direction[0]) + least, tl.zeros_like(direction[0]) + most
    for axis in tl.static_range(3):
        entry, exit_ = _slab(origin[axis], direction[axis], box[axis], box[3 + axis], entry, exit_)
    missed = exit_ <= entry
    tl.store(near + ray, tl.where(missed, least, entry), mask=live)
    tl.store(far + ray, tl.where(missed, least, exit_), mask=live)


@triton.jit
def _turned(c2w, axis, live, x, y):
    """A world axis of the direction (x, y, -1) in camera axes, and the camera's place on it."""
    row = c2w + axis * 4
    along = tl.load(row, mask=live, other=0.0) * x + tl.load(row + 1, mask=live, other=0.0) * y
    return along - tl.load(row + 2, mask=live, other=0.0), tl.load(row + 3, mask=live, other=0.0)


@triton.jit(do_not_specialize=["rays", "views"])
def _draw(
    chosen, rays, table, ends, views, c2w, fx, fy, cx, cy, width, height, lower_x, lower_y, lower_z, upper_x, upper_y,
    upper_z, least, most, background, row, rgb, alpha, coverage, distance, reach, origins, directions, near, far,
    out_rgb, out_coverage, out_distance, out_reach,
    POOLED: tl.constexpr, ALPHA: tl.constexpr, DISTANCE: tl.constexpr, REACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = ray < rays
    pixel, size = tl.load(chosen + ray, mask=live, other=0), width * height
    if POOLED:
        # The first view whose pixels end behind the chosen one.
        low, high = tl.zeros((BLOCK,), tl.int64), tl.zeros((BLOCK,), tl.int64) + views - 1
        while tl.max(high - low, axis=0) > 0:
            middle = (low + high) // 2
            beyond = tl.load(ends + middle) > pixel
            open_ = low < high
            high = tl.where(open_ & beyond, middle, high)
            low = tl.where(open_ & (beyond == 0), middle + 1, low)
        start = tl.load(ends + low - 1, mask=live & (low > 0), other=0)
        pixel = low * size + tl.load(table + low * size + pixel - start, mask=live, other=0)
    frame = pixel // size
    line = (pixel % size) // width
    x = ((pixel % width) + 0.5 - tl.load(cx + frame, mask=live, other=0.0)) / tl.load(fx + frame, mask=live, other=1.0)
    y = (tl.load(cy + frame, mask=live, other=0.0) - line - 0.5) / tl.load(fy + frame, mask=live, other=1.0)
    pose = c2w + frame * 16
    dx, ox = _turned(pose, 0, live, x, y)
    dy, oy = _turned(pose, 1, live, x, y)
    dz, oz = _turned(pose, 2, live, x, y)
    length = tl.maximum(tl.sqrt_rn(dx * dx + dy * dy + dz * dz), 1e-12)
    dx, dy, dz = dx / length, dy / length, dz / length
    box = lower_x, lower_y, lower_z, upper_x, upper_y, upper_z
    store_interval((ox, oy, oz), (dx, dy, dz), box, least, most, ray, live, near, far)
    tl.store(origins + ray * 3, ox, mask=live)
    tl.store(origins + ray * 3 + 1, oy, mask=live)
    tl.store(origins + ray * 3 + 2, oz, mask=live)
    tl.store(directions + ray * 3, dx, mask=live)
    tl.store(directions + ray * 3 + 1, dy, mask=live)
    tl.store(directions + ray * 3 + 2, dz, mask=live)
    opaque = tl.zeros((BLOCK,), tl.float32) + 1.0
    if ALPHA:
        opaque = tl.load(alpha + pixel, mask=live, other=0).to(tl.float32) / 255
    for channel in tl.static_range(3):
        value = tl.load(rgb + pixel * 3 + channel, mask=live, other=0).to(tl.float32) / 255
        if ALPHA:
            behind = tl.load(background + ray * row + channel, mask=live, other=0.0)
            value = value * opaque + (1 - opaque) * behind
        tl.store(out_rgb + ray * 3 + channel, value, mask=live)
    tl.store(out_coverage + ray, tl.load(coverage + pixel, mask=live, other=0).to(tl.float32) / 255, mask=live)
    if DISTANCE:
        tl.store(out_distance + ray, tl.load(distance + pixel, mask=live, other=0.0), mask=live)
    if REACH:
        tl.store(out_reach + ray, tl.load(reach + pixel, mask=live, other=0.0).to(tl.float32), mask=live)


def draw(
    chosen: Tensor,
    background: Tensor,
    pixels: Pixels,
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    near: float,
    far: float,
) -> Drawn:
    """As ``kernels.rays.training_rays_numba.draw``."""
    rays, device = len(chosen), chosen.device
    shapes = (3,), (3,), (), (), (3,), (), (), ()
    outputs = [torch.empty((rays, *shape), device=device) for shape in shapes]
    has_alpha, has_distance, has_reach = (part is not None for part in (pixels.alpha, pixels.distance, pixels.reach))
    optional = [pixels.rgb if part is None else part for part in (pixels.alpha, pixels.distance, pixels.reach)]
    table, ends = pixels.pool or (chosen, chosen)
    row = 0 if background.stride(0) == 0 else 3
    background = background if row == 0 else background.contiguous()
    if rays:
        with launch_on(device):
            _draw[(triton.cdiv(rays, _BLOCK),)](
                chosen, rays, table, ends, len(ends), pixels.c2w, *pixels.intrinsics, *pixels.size, *lower, *upper,
                near, far, background, row, pixels.rgb, optional[0], pixels.coverage, *optional[1:], *outputs,
                POOLED=pixels.pool is not None, ALPHA=has_alpha, DISTANCE=has_distance, REACH=has_reach, BLOCK=_BLOCK,
            )  # fmt: skip
    *known, distance, reach = outputs
    return Drawn(*known, distance if has_distance else None, reach if has_reach else None)
