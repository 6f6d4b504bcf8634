"""Triton twin of the terms that compare rendered rays with the teacher's: two launches forward, one backward.

Its reference is ``distill.losses.pictures``, which has the meaning of everything.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 256
_SUMS = 5  # errors of colour, alpha and depth, rays that count, and rays whose depth counts
_LEAST_ALPHA = tl.constexpr(1e-3)
_LEAST_RANGE = tl.constexpr(1e-6)
_CLAMP = tl.constexpr(1e-4)


@triton.jit
def _error(d, KIND: tl.constexpr, DELTA: tl.constexpr):
    if KIND == "l1":
        return tl.abs(d)
    elif KIND == "l2":
        return d * d
    elif KIND == "huber":
        return tl.where(tl.abs(d) <= DELTA, 0.5 * d * d, DELTA * (tl.abs(d) - 0.5 * DELTA))
    else:
        return tl.where(tl.abs(d) < DELTA, 0.5 * d * d / DELTA, tl.abs(d) - 0.5 * DELTA)


@triton.jit
def _slope(d, KIND: tl.constexpr, DELTA: tl.constexpr):
    """The derivative of ``_error``."""
    sign = tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, 0.0))
    if KIND == "l1":
        return sign
    elif KIND == "l2":
        return 2 * d
    elif KIND == "huber":
        return tl.where(tl.abs(d) <= DELTA, d, DELTA * sign)
    else:
        return tl.where(tl.abs(d) < DELTA, d / DELTA, sign)


@triton.jit
def _difference(rgb, target, background, through, ray, row, channel, live):
    """Of a channel of rays composited on their backgrounds, and what the background adds for each unit of light."""
    behind = tl.load(background + ray * row + channel, mask=live, other=0.0)
    own = tl.load(rgb + ray * 3 + channel, mask=live, other=0.0)
    return own + through * behind - tl.load(target + ray * 3 + channel, mask=live, other=0.0), behind


@triton.jit
def _depth(distance, alpha, depth, coverage, near, far, ray, kept, live, LEAST_COVERAGE: tl.constexpr):
    """Whether depth counts and is composited, the difference, its derivatives by distance and alpha, the target."""
    known = tl.load(depth + ray, mask=live, other=0.0)
    begin = tl.load(near + ray, mask=live, other=0.0)
    reach = tl.load(far + ray, mask=live, other=0.0) - begin
    valid = (known > 0) & (coverage >= LEAST_COVERAGE) & (reach > 0) & kept
    reach = tl.maximum(reach, _LEAST_RANGE)
    target = (known - begin) / reach
    seen = tl.maximum(alpha, _LEAST_ALPHA)
    there = tl.load(distance + ray, mask=live, other=0.0)
    difference = (there / seen - begin) / reach - target
    return valid, valid & (alpha > _LEAST_ALPHA), difference, 1 / (seen * reach), -there / (seen * seen * reach), target


@triton.jit
def _rays(alpha, coverage, kept, rays, BLOCK: tl.constexpr):
    """This program's rays: number, whether there is one, whether it counts, the student's alpha, the teacher's."""
    ray = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = ray < rays
    counts = tl.load(kept + ray, mask=live, other=0) != 0
    a = tl.load(alpha + ray, mask=live, other=0.0)
    return ray, live, counts, a, tl.load(coverage + ray, mask=live, other=0.0)


@triton.jit(do_not_specialize=["rays"])
def _errors(
    rgb, alpha, distance, target, background, row, coverage, depth, near, far, kept, rays, sums, valid, normalized,
    RGB: tl.constexpr, RGB_DELTA: tl.constexpr, ALPHA: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DELTA: tl.constexpr,
    LEAST_COVERAGE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    ray, live, counts, a, shown = _rays(alpha, coverage, kept, rays, BLOCK)
    color = tl.zeros((BLOCK,), tl.float32)
    for channel in tl.static_range(3):
        d, _ = _difference(rgb, target, background, 1 - a, ray, row, channel, live)
        color += _error(d, RGB, RGB_DELTA) / 3
    sums += tl.program_id(0) * 5
    tl.store(sums, tl.sum(tl.where(counts, color, 0.0), axis=0))
    if ALPHA == "bce":
        opaque = tl.minimum(tl.maximum(a, _CLAMP), 1 - _CLAMP)
        error = -(shown * tl.log(opaque) + (1 - shown) * tl.log(1 - opaque))
    else:
        error = (a - shown) * (a - shown)
    tl.store(sums + 1, tl.sum(tl.where(counts, error, 0.0), axis=0))
    tl.store(sums + 3, tl.sum(counts.to(tl.float32), axis=0))
    if DEPTH != "":
        used, seen, d, _, _, goal = _depth(distance, a, depth, shown, near, far, ray, counts, live, LEAST_COVERAGE)
        tl.store(valid + ray, used, mask=live)
        tl.store(normalized + ray, goal, mask=live)
        tl.store(sums + 2, tl.sum(tl.where(seen, _error(d, DEPTH, DEPTH_DELTA), 0.0), axis=0))
        tl.store(sums + 4, tl.sum(used.to(tl.float32), axis=0))
    else:
        tl.store(sums + 2, 0.0)
        tl.store(sums + 4, 0.0)


@triton.jit
def _weights(weights, IN_MEMORY: tl.constexpr):
    if IN_MEMORY:
        return tl.load(weights[0]), tl.load(weights[0] + 1), tl.load(weights[0] + 2)
    else:
        return weights[0], weights[1], weights[2]


@triton.jit(do_not_specialize=["blocks"])
def _total(sums, blocks, weights, terms, total, counted, IN_MEMORY: tl.constexpr, BLOCK: tl.constexpr):
    """Means of the sums of all blocks, added up in the same order every time, and the weighted sum of them."""
    rows = tl.zeros((BLOCK, 8), tl.float32)
    first, column = tl.zeros((), tl.int32), tl.arange(0, 8)
    while first < blocks:
        row = first + tl.arange(0, BLOCK)
        mask = (row < blocks)[:, None] & (column < 5)[None, :]
        rows += tl.load(sums + row[:, None] * 5 + column[None, :], mask=mask, other=0.0)
        first += BLOCK
    whole = tl.sum(rows, axis=0)
    rays = tl.maximum(tl.sum(tl.where(column == 3, whole, 0.0), axis=0), 1.0)
    deep = tl.maximum(tl.sum(tl.where(column == 4, whole, 0.0), axis=0), 1.0)
    color = tl.sum(tl.where(column == 0, whole, 0.0), axis=0) / rays
    opacity = tl.sum(tl.where(column == 1, whole, 0.0), axis=0) / rays
    depth = tl.sum(tl.where(column == 2, whole, 0.0), axis=0) / deep
    tl.store(terms, color)
    tl.store(terms + 1, opacity)
    tl.store(terms + 2, depth)
    tl.store(counted, rays)
    tl.store(counted + 1, deep)
    by_color, by_opacity, by_depth = _weights(weights, IN_MEMORY)
    tl.store(total, by_color * color + by_opacity * opacity + by_depth * depth)


@triton.jit(do_not_specialize=["rays"])
def _gradients(
    rgb, alpha, distance, target, background, row, coverage, depth, near, far, kept, rays, counted, weights, grad_total,
    grad_terms, grad_rgb, grad_alpha, grad_distance,
    RGB: tl.constexpr, RGB_DELTA: tl.constexpr, ALPHA: tl.constexpr, DEPTH: tl.constexpr, DEPTH_DELTA: tl.constexpr,
    LEAST_COVERAGE: tl.constexpr, IN_MEMORY: tl.constexpr, OF_TOTAL: tl.constexpr, OF_TERMS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    by_color, by_opacity, by_depth = 0.0, 0.0, 0.0
    if OF_TOTAL:
        scale = tl.load(grad_total)
        heavy, middle, deep = _weights(weights, IN_MEMORY)
        by_color, by_opacity, by_depth = scale * heavy, scale * middle, scale * deep
    if OF_TERMS:
        by_color += tl.load(grad_terms)
        by_opacity += tl.load(grad_terms + 1)
        by_depth += tl.load(grad_terms + 2)
    ray, live, counts, a, shown = _rays(alpha, coverage, kept, rays, BLOCK)
    of_alpha = tl.zeros((BLOCK,), tl.float32)
    share = tl.where(counts, 1.0 / tl.load(counted), 0.0)
    for channel in tl.static_range(3):
        d, behind = _difference(rgb, target, background, 1 - a, ray, row, channel, live)
        slope = by_color * share * _slope(d, RGB, RGB_DELTA) / 3
        tl.store(grad_rgb + ray * 3 + channel, slope, mask=live)
        of_alpha -= slope * behind
    if ALPHA == "bce":
        opaque = tl.minimum(tl.maximum(a, _CLAMP), 1 - _CLAMP)
        of_alpha += by_opacity * share * ((1 - shown) / (1 - opaque) - shown / opaque)
    elif ALPHA == "l2":
        of_alpha += by_opacity * share * 2 * (a - shown)
    of_distance = tl.zeros((BLOCK,), tl.float32)
    if DEPTH != "":
        _, seen, d, by_distance, by_alpha, _ = _depth(
            distance, a, depth, shown, near, far, ray, counts, live, LEAST_COVERAGE
        )
        slope = tl.where(seen, by_depth * _slope(d, DEPTH, DEPTH_DELTA) / tl.load(counted + 1), 0.0)
        of_distance += slope * by_distance
        of_alpha += slope * by_alpha
    tl.store(grad_alpha + ray, of_alpha, mask=live)
    tl.store(grad_distance + ray, of_distance, mask=live)


class PictureTermsTriton(torch.autograd.Function):
    """Total () and the terms rgb, alpha and depth (3,) of R rays, ``valid`` and ``normalized`` of ``DepthStatistics``.

    Gradients are those of the composite's rgb (R, 3), alpha (R,) and distance (R,). ``depth`` is the teacher's, of
    which None gives a term of 0; ``weights`` are three numbers or a tensor (3,) float32. ``options`` are the kinds of
    error and their numbers, as the kernels name them.
    """

    @staticmethod
    def forward(ctx, rgb, alpha, distance, target, background, coverage, depth, near, far, kept, weights, options):
        rays, device = len(alpha), alpha.device
        options = options | {"DEPTH": "" if depth is None else options["DEPTH"], "BLOCK": _BLOCK}
        columns = [rgb, alpha, distance, target]
        columns = [column.contiguous() for column in columns]
        shared = background.stride(0) == 0
        background = background if shared else background.contiguous()
        others = (
            coverage.contiguous(),
            near if depth is None else depth.contiguous(),
            near.contiguous(),
            far.contiguous(),
        )
        inputs = *columns, background, 0 if shared else 3, *others, kept, rays
        blocks = triton.cdiv(rays, _BLOCK)
        sums = torch.empty(blocks, _SUMS, device=device)
        total, terms, counted = (torch.empty(shape, device=device) for shape in ((), 3, 2))
        valid, normalized = torch.empty(rays, dtype=torch.bool, device=device), torch.empty(rays, device=device)
        ctx.in_memory = isinstance(weights, Tensor)
        weights = (weights,) if ctx.in_memory else tuple(map(float, weights))
        with launch_on(device):
            if rays:
                _errors[(blocks,)](*inputs, sums, valid, normalized, **options)
            _total[(1,)](sums, blocks, weights, terms, total, counted, IN_MEMORY=ctx.in_memory, BLOCK=_BLOCK)
        ctx.inputs, ctx.options, ctx.weights, ctx.counted = inputs, options, weights, counted
        ctx.mark_non_differentiable(valid, normalized)
        ctx.set_materialize_grads(False)
        return total, terms, valid, normalized

    @staticmethod
    def backward(ctx, grad_total, grad_terms, *_):
        rgb, alpha = ctx.inputs[:2]
        grads = torch.empty_like(rgb), torch.empty_like(alpha), torch.empty_like(alpha)
        if len(alpha):
            upstream = [ctx.counted if grad is None else grad.contiguous() for grad in (grad_total, grad_terms)]
            with launch_on(alpha.device):
                _gradients[(triton.cdiv(len(alpha), _BLOCK),)](
                    *ctx.inputs, ctx.counted, ctx.weights, *upstream, *grads,
                    IN_MEMORY=ctx.in_memory, OF_TOTAL=grad_total is not None, OF_TERMS=grad_terms is not None,
                    **ctx.options,
                )  # fmt: skip
        return *grads, *[None] * 9
