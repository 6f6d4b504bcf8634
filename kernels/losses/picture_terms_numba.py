"""Numba twin of the terms that compare rendered rays with the teacher's: one pass forward, one backward.

Its reference is ``distill.losses.pictures``, which has the meaning of everything.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.threads import FAST, INNER, parallel_for

_GRAIN = 512
_KINDS = {"": 0, "l1": 1, "l2": 2, "bce": 3, "huber": 4, "smooth_l1": 5}
_NONE, _L1, _L2, _BCE, _HUBER = (np.int64(_KINDS[name]) for name in ("", "l1", "l2", "bce", "huber"))
_SUMS = 5  # errors of colour, alpha and depth, rays that count, and rays whose depth counts
_ZERO, _HALF, _ONE, _TWO, _THREE = (np.float32(value) for value in (0, 0.5, 1, 2, 3))
_LEAST_ALPHA, _LEAST_RANGE, _CLAMP = np.float32(1e-3), np.float32(1e-6), np.float32(1e-4)


class PictureTermsNumba(torch.autograd.Function):
    """Arguments and results as of ``PictureTermsTriton``; ``kept`` may be None, for all rays."""

    @staticmethod
    def forward(ctx, rgb, alpha, distance, target, background, coverage, depth, near, far, kept, weights, options):
        rays = len(alpha)
        shared = background.stride(0) == 0
        columns = rgb, alpha, distance, target, background[:1] if shared else background, coverage
        columns = [column.detach().contiguous() for column in columns]
        ends = [near if depth is None else depth, near, far]
        counts = torch.ones(rays, dtype=torch.bool) if kept is None else kept
        names = options["RGB"], options["ALPHA"], "" if depth is None else options["DEPTH"]
        kinds = tuple(_KINDS[name] for name in names)
        numbers = tuple(np.float32(options[name]) for name in ("RGB_DELTA", "DEPTH_DELTA", "LEAST_COVERAGE"))
        ctx.arguments = *columns, *(end.contiguous() for end in ends), counts, kinds, numbers
        valid, normalized = torch.zeros(rays, dtype=torch.bool), torch.empty(rays)
        sums = torch.zeros(max(1, -(-rays // _GRAIN)), _SUMS, dtype=torch.float64)
        parallel_for(_errors, rays, *ctx.arguments, sums, valid, normalized, _GRAIN, grain=_GRAIN)
        *errors, counted, deep = sums.sum(0).tolist()
        ctx.counted = counted, deep = max(counted, 1.0), max(deep, 1.0)
        means = [errors[0] / counted, errors[1] / counted, errors[2] / deep]
        ctx.weights = [float(weight) for weight in weights]
        total = sum(weight * mean for weight, mean in zip(ctx.weights, means, strict=True))
        ctx.mark_non_differentiable(valid, normalized)
        ctx.set_materialize_grads(False)
        return torch.tensor(total), torch.tensor(means), valid, normalized

    @staticmethod
    def backward(ctx, grad_total, grad_terms, *_):
        rgb, alpha, *_ = ctx.arguments
        upstream = [0.0] * 3 if grad_terms is None else grad_terms.tolist()
        if grad_total is not None:
            whole = grad_total.item()
            upstream = [own + whole * weight for own, weight in zip(upstream, ctx.weights, strict=True)]
        shares = ctx.counted[0], ctx.counted[0], ctx.counted[1]
        factors = tuple(np.float32(grad / share) for grad, share in zip(upstream, shares, strict=True))
        grads = torch.empty_like(rgb), torch.empty_like(alpha), torch.empty_like(alpha)
        parallel_for(_gradients, len(alpha), *ctx.arguments, factors, *grads, grain=_GRAIN)
        return *grads, *[None] * 9


@njit(**FAST, **INNER)
def _error(d, kind, delta):
    size = abs(d)
    if kind == _L1:
        return size
    if kind == _L2:
        return d * d
    if kind == _HUBER:
        return _HALF * d * d if size <= delta else delta * (size - _HALF * delta)
    return _HALF * d * d / delta if size < delta else size - _HALF * delta


@njit(**FAST, **INNER)
def _slope(d, kind, delta):
    """The derivative of ``_error``."""
    sign = _ONE if d > _ZERO else (-_ONE if d < _ZERO else _ZERO)
    if kind == _L1:
        return sign
    if kind == _L2:
        return _TWO * d
    if kind == _HUBER:
        return d if abs(d) <= delta else delta * sign
    return d / delta if abs(d) < delta else sign


@njit(**FAST, **INNER)
def _difference(ray, channel, rgb, opacity, background, target):
    """Of a channel of a ray composited on its background, and that background; all rays may share one."""
    behind = background[min(ray, len(background) - 1), channel]
    return rgb[ray, channel] + (_ONE - opacity) * behind - target[ray, channel], behind


@njit(**FAST, **INNER)
def _depth(ray, alpha, distance, coverage, depth, near, far, least_coverage):
    """Whether depth counts and is composited, the difference, its derivatives by distance and alpha, the target."""
    known, begin, reach = depth[ray], near[ray], far[ray] - near[ray]
    valid = known > _ZERO and coverage[ray] >= least_coverage and reach > _ZERO
    inverse = _ONE / max(reach, _LEAST_RANGE)
    target = (known - begin) * inverse
    seen = max(alpha[ray], _LEAST_ALPHA)
    difference = (distance[ray] / seen - begin) * inverse - target
    by_distance = inverse / seen
    by_alpha = -distance[ray] / seen * by_distance
    return valid, valid and alpha[ray] > _LEAST_ALPHA, difference, by_distance, by_alpha, target


@njit(**FAST)
def _errors(
    start, stop, rgb, alpha, distance, target, background, coverage, depth, near, far, kept, kinds, numbers, sums,
    valid, normalized, grain,
):  # fmt: skip
    """Adds the errors of ``start:stop`` to row ``start // grain`` of ``sums``; fills the depth's statistics."""
    of_rgb, of_alpha, of_depth = kinds
    rgb_delta, depth_delta, least_coverage = numbers
    total = sums[start // grain]
    for ray in range(start, stop):
        opacity, shown = alpha[ray], coverage[ray]
        if of_depth != _NONE:
            counts, seen, d, _, _, goal = _depth(ray, alpha, distance, coverage, depth, near, far, least_coverage)
            counts = counts and kept[ray]
            valid[ray], normalized[ray] = counts, goal
            if counts:
                total[4] += 1
                if seen:
                    total[2] += _error(d, of_depth, depth_delta)
        if not kept[ray]:
            continue
        color = _ZERO
        for c in range(3):
            d, _ = _difference(ray, c, rgb, opacity, background, target)
            color += _error(d, of_rgb, rgb_delta)
        total[0] += color / _THREE
        if of_alpha == _BCE:
            opaque = min(max(opacity, _CLAMP), _ONE - _CLAMP)
            total[1] -= shown * np.log(opaque) + (_ONE - shown) * np.log(_ONE - opaque)
        else:
            total[1] += (opacity - shown) * (opacity - shown)
        total[3] += 1


@njit(**FAST)
def _gradients(
    start, stop, rgb, alpha, distance, target, background, coverage, depth, near, far, kept, kinds, numbers, factors,
    grad_rgb, grad_alpha, grad_distance,
):  # fmt: skip
    """Fills the gradients of ``start:stop``; ``factors``: of each term's error of a ray."""
    of_rgb, of_alpha, of_depth = kinds
    rgb_delta, depth_delta, least_coverage = numbers
    by_color, by_opacity, by_depth = factors
    for ray in range(start, stop):
        opacity, shown = alpha[ray], coverage[ray]
        through = grad_depth = _ZERO
        grad_rgb[ray] = _ZERO
        if kept[ray]:
            for c in range(3):
                d, behind = _difference(ray, c, rgb, opacity, background, target)
                slope = by_color * _slope(d, of_rgb, rgb_delta) / _THREE
                grad_rgb[ray, c] = slope
                through -= slope * behind
            if of_alpha == _BCE:
                opaque = min(max(opacity, _CLAMP), _ONE - _CLAMP)
                through += by_opacity * ((_ONE - shown) / (_ONE - opaque) - shown / opaque)
            else:
                through += by_opacity * _TWO * (opacity - shown)
            if of_depth != _NONE:
                _, seen, d, by_distance, by_alpha, _ = _depth(
                    ray, alpha, distance, coverage, depth, near, far, least_coverage
                )
                if seen:
                    slope = by_depth * _slope(d, of_depth, depth_delta)
                    grad_depth += slope * by_distance
                    through += slope * by_alpha
        grad_alpha[ray], grad_distance[ray] = through, grad_depth
