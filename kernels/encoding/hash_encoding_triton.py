"""Triton twin of the hash encoding: a program handles a block of points on one level.

Programs of one level run after one another, so that its part of the table stays in the L2 cache. A table entry's
values are one vector load; encodings and their gradients are read and written along the points.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.added_gradients import room_for_gradient
from kernels.encoding.hash_layout import HashLayout, levels_on
from kernels.triton_support import launch_on, padded

_BLOCK = 256
_WARPS = 4


@triton.jit
def place_on(x, scale):
    """The vertex below a coordinate on one axis of the level's grid, uint32, and the fraction beyond it."""
    position = tl.minimum(tl.maximum(x, 0.0), 1.0) * scale + 0.5
    corner = tl.floor(position)
    return corner.to(tl.int32).to(tl.uint32), position - corner


@triton.jit
def _place(x, live, scale):
    return place_on(tl.load(x, mask=live, other=0.0).to(tl.float32), scale)


@triton.jit
def entry(ix, iy, iz, resolution, size, hashed):
    """Entry of a vertex within its level; uint32 products wrap round as the hash wants it."""
    spatial = ix ^ (iy * 2654435761) ^ (iz * 805459861)
    dense = ix + resolution * (iy + resolution * iz)
    # A vertex one past the far face wraps round, as in tiny-cuda-nn.
    dense = tl.where(dense < size, dense, dense - size)
    return tl.where(hashed, spatial & (size - 1), dense).to(tl.int64)


@triton.jit
def level_of(level, offsets, resolutions, scales, hashes):
    """First entry of a level (int64), its number of entries and vertices per axis (uint32), scale, whether hashed."""
    offset = tl.load(offsets + level)
    size = (tl.load(offsets + level + 1) - offset).to(tl.uint32)
    resolution = tl.load(resolutions + level).to(tl.uint32)
    return offset, size, resolution, tl.load(scales + level), tl.load(hashes + level) != 0


@triton.jit
def _encode(
    x, x_row, x_axis, count, table, offsets, resolutions, scales, hashes, out, out_row, out_channel,
    FEATURES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    offset, size, resolution, scale, hashed = level_of(level, offsets, resolutions, scales, hashes)
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    feature = tl.arange(0, PADDED)
    wanted = live[:, None] & (feature < FEATURES)[None, :]
    ix, fx = _place(x + point * x_row, live, scale)
    iy, fy = _place(x + point * x_row + x_axis, live, scale)
    iz, fz = _place(x + point * x_row + 2 * x_axis, live, scale)
    value = tl.zeros((BLOCK, PADDED), tl.float32)
    for corner in tl.static_range(8):
        bx, by, bz = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (fx if bx else 1.0 - fx) * (fy if by else 1.0 - fy) * (fz if bz else 1.0 - fz)
        row = offset + entry(ix + bx, iy + by, iz + bz, resolution, size, hashed)
        held = tl.load(table + row[:, None] * FEATURES + feature[None, :], mask=wanted, other=0.0)
        value += weight[:, None] * held.to(tl.float32)
    channel = level.to(tl.int64) * FEATURES + feature
    tl.store(out + point[:, None] * out_row + channel[None, :] * out_channel, value, mask=wanted)


@triton.jit
def _encode_backward(
    x, x_row, x_axis, count, grad, grad_row, grad_channel, offsets, resolutions, scales, hashes, table_grad,
    FEATURES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    offset, size, resolution, scale, hashed = level_of(level, offsets, resolutions, scales, hashes)
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    feature = tl.arange(0, PADDED)
    wanted = live[:, None] & (feature < FEATURES)[None, :]
    channel = level.to(tl.int64) * FEATURES + feature
    upstream = tl.load(grad + point[:, None] * grad_row + channel[None, :] * grad_channel, mask=wanted, other=0.0)
    upstream = upstream.to(tl.float32)
    # Padding has no gradient and lies at one place, where additions would queue up. An entry's values are masked
    # together, so that they are one addition.
    wanted = wanted & (tl.max((upstream != 0.0).to(tl.int32), axis=1) > 0)[:, None]
    ix, fx = _place(x + point * x_row, live, scale)
    iy, fy = _place(x + point * x_row + x_axis, live, scale)
    iz, fz = _place(x + point * x_row + 2 * x_axis, live, scale)
    for corner in tl.static_range(8):
        bx, by, bz = corner & 1, (corner >> 1) & 1, corner >> 2
        weight = (fx if bx else 1.0 - fx) * (fy if by else 1.0 - fy) * (fz if bz else 1.0 - fz)
        row = offset + entry(ix + bx, iy + by, iz + bz, resolution, size, hashed)
        place = table_grad + row[:, None] * FEATURES + feature[None, :]
        tl.atomic_add(place, weight[:, None] * upstream, mask=wanted, sem="relaxed")


class HashEncodeTriton(torch.autograd.Function):
    """``x`` may have any strides.

    The order of the additions to an entry's gradient, and with it the last bits of their sum, differs from run to run.
    """

    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, layout: HashLayout, precision: torch.dtype) -> Tensor:
        count, features = len(x), table.shape[1]
        out = torch.empty((layout.output_width, count), dtype=precision, device=x.device).t()
        held = table.contiguous() if precision == torch.float32 else table.contiguous().to(precision)
        ctx.save_for_backward(x)
        ctx.table, ctx.levels = table, levels_on(layout, x.device)
        ctx.programs = triton.cdiv(count, _BLOCK), layout.levels
        ctx.options = {"FEATURES": features, "PADDED": padded(features), "BLOCK": _BLOCK, "num_warps": _WARPS}
        if count:
            with launch_on(x.device):
                _encode[ctx.programs](x, *x.stride(), count, held, *ctx.levels, out, *out.stride(), **ctx.options)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        (x,), table = ctx.saved_tensors, ctx.table
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        # In float32: half precision would lose small additions to a large sum.
        total, returned = room_for_gradient(table)
        if len(x):
            with launch_on(x.device):
                _encode_backward[ctx.programs](
                    x, *x.stride(), len(x), grad, *grad.stride(), *ctx.levels, total, **ctx.options
                )
        return None, None if returned is None else returned.to(table.dtype), None, None
