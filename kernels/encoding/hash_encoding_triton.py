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
def level_of(level, offsets, resolutions, scales, kinds):
    """First entry of a level (int64), its number of entries and vertices per axis (uint32), scale, kind (int32)."""
    offset = tl.load(offsets + level)
    size = (tl.load(offsets + level + 1) - offset).to(tl.uint32)
    resolution = tl.load(resolutions + level).to(tl.uint32)
    return offset, size, resolution, tl.load(scales + level), tl.load(kinds + level).to(tl.int32)


@triton.jit
def _vertices(x, x_axis, live, scale, normal, PLANES: tl.constexpr):
    """The vertex below each point on a level, and the fractions beyond it; a plane has its two axes first, and 0."""
    if PLANES:
        first, second = tl.where(normal == 1, 1, 0), tl.where((normal == 1) | (normal == 2), 2, 1)
    else:
        first, second = 0, 1
    ix, fx = _place(x + first * x_axis, live, scale)
    iy, fy = _place(x + second * x_axis, live, scale)
    iz, fz = _place(x + 2 * x_axis, live, scale)
    if PLANES:
        iz, fz = tl.where(normal == 0, iz, 0), tl.where(normal == 0, fz, 0.0)
    return (ix, iy, iz), (fx, fy, fz)


@triton.jit
def _corner(corner: tl.constexpr, vertex, fraction, resolution, size, kind, wanted, PLANES: tl.constexpr):
    """A corner's entry in its level, its weight, and what is ``wanted`` of it: nothing of the upper four of a plane."""
    bx: tl.constexpr = corner & 1
    by: tl.constexpr = (corner >> 1) & 1
    bz: tl.constexpr = corner >> 2
    fx, fy, fz = fraction
    weight = (fx if bx else 1.0 - fx) * (fy if by else 1.0 - fy) * (fz if bz else 1.0 - fz)
    row = entry(vertex[0] + bx, vertex[1] + by, vertex[2] + bz, resolution, size, (kind & 1) != 0)
    if PLANES and bz:
        wanted = wanted & (kind < 2)
    return row, weight, wanted


@triton.jit
def _encode(
    x, x_row, x_axis, count, table, offsets, resolutions, scales, kinds, out, out_row, out_channel,
    FEATURES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    offset, size, resolution, scale, kind = level_of(level, offsets, resolutions, scales, kinds)
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    feature = tl.arange(0, PADDED)
    wanted = live[:, None] & (feature < FEATURES)[None, :]
    vertex, fraction = _vertices(x + point * x_row, x_axis, live, scale, kind >> 1, PLANES)
    value = tl.zeros((BLOCK, PADDED), tl.float32)
    for corner in tl.static_range(8):
        row, weight, read = _corner(corner, vertex, fraction, resolution, size, kind, wanted, PLANES)
        row = offset + row
        held = tl.load(table + row[:, None] * FEATURES + feature[None, :], mask=read, other=0.0)
        value += weight[:, None] * held.to(tl.float32)
    channel = level.to(tl.int64) * FEATURES + feature
    tl.store(out + point[:, None] * out_row + channel[None, :] * out_channel, value, mask=wanted)


@triton.jit
def _encode_backward(
    x, x_row, x_axis, count, grad, grad_row, grad_channel, offsets, resolutions, scales, kinds, table_grad,
    FEATURES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    level = tl.program_id(1)
    offset, size, resolution, scale, kind = level_of(level, offsets, resolutions, scales, kinds)
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
    vertex, fraction = _vertices(x + point * x_row, x_axis, live, scale, kind >> 1, PLANES)
    for corner in tl.static_range(8):
        row, weight, added = _corner(corner, vertex, fraction, resolution, size, kind, wanted, PLANES)
        place = table_grad + (offset + row)[:, None] * FEATURES + feature[None, :]
        tl.atomic_add(place, weight[:, None] * upstream, mask=added, sem="relaxed")


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
        ctx.programs = triton.cdiv(count, _BLOCK), layout.count
        ctx.options = {"FEATURES": features, "PADDED": padded(features), "BLOCK": _BLOCK, "num_warps": _WARPS}
        ctx.options["PLANES"] = bool(layout.planes)
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
