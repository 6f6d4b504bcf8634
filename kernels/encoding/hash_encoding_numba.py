"""Numba twin of the hash encoding: a block of points on a level after another, gathered or scattered."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.added_gradients import room_for_gradient
from kernels.encoding.hash_corners_numba import PLANE, corners_of, new_points, pairs_of
from kernels.encoding.hash_layout import HashLayout
from kernels.networks.layers_numba import BLOCK, any_nonzero
from kernels.optimization.updates import ROWS_PER_FLAG, TouchedRows
from kernels.simd import joined, load, prefetch, splat, store
from kernels.threads import FAST, INNER, parallel_for

_GRAIN = 4096


class HashEncodeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, layout: HashLayout, touched: TouchedRows | None) -> Tensor:
        # An axis after another, as ray marching has them.
        x, out = x.detach().t().contiguous(), torch.empty(len(x), layout.output_width)
        levels = layout.offsets, layout.resolutions, layout.scales, layout.kinds
        entry = (0,) * layout.features
        values = table.detach().contiguous().view(-1)
        parallel_for(_encode, len(out), x, values, entry, *levels, out.view(-1), grain=_GRAIN)
        ctx.x, ctx.table, ctx.levels, ctx.touched, ctx.entry = x, table, levels, touched, entry
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        table = ctx.table
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        total, returned = room_for_gradient(table)
        touched, levels, features = ctx.touched or TouchedRows(len(table)), len(ctx.levels[1]), len(ctx.entry)
        # Each level's gradients side by side, of the points that have any: a level reads no other's.
        points, grads = torch.empty(3, len(grad)), torch.empty(levels, len(grad) * features)
        counts = np.empty(-(-len(grad) // _GRAIN), np.int64)
        parallel_for(
            _pick_points, len(grad), ctx.x, grad.contiguous(), ctx.entry, points, grads, counts, _GRAIN, grain=_GRAIN
        )
        # A thread owns whole levels, so no two threads add to one entry and the sum's order never changes.
        parallel_for(
            _encode_backward, levels, points, grads, counts, _GRAIN, ctx.entry, *ctx.levels, total.view(-1),
            touched.flags, grain=1,
        )  # fmt: skip
        return None, returned, None, None


@njit(**FAST, **INNER)
def _prefetch(n, index, table, features, corners):
    """Asks for the entries of a block's points; those side by side along x mostly share a cache line."""
    for corner in range(0, corners * BLOCK, 2 * BLOCK):
        for k in range(corner, corner + n):
            prefetch(table, np.intp(index[k]) * features)


@njit(**FAST, **INNER)
def _interpolate(n, index, weight, table, entry, corners, rows, at, channels):
    """Writes the values of a block's n points on one level to the flat ``rows`` at ``at``, ``channels`` apart."""
    features = len(entry)
    for k in range(n):
        value = splat(weight[k], entry) * load(table, np.intp(index[k]) * features, entry)
        for corner in range(BLOCK, corners * BLOCK, BLOCK):
            start = np.intp(index[corner + k]) * features
            value = value + splat(weight[corner + k], entry) * load(table, start, entry)
        store(rows, at + k * channels, value)


@njit(**FAST, **INNER)
def encode_block(n, points, table, entry, offsets, resolutions, scales, kinds, rows, first, stride):
    """Writes the encodings of a block's n points, ``stride`` apart, to the flat ``rows`` from ``first`` on.

    ``table`` is flat, float32 or the bits of float16; ``entry`` a tuple of as many members as an entry has features.
    """
    features = len(entry)
    _, index, weight = points
    for level in range(len(scales)):
        offset, size, kind = offsets[level], offsets[level + 1] - offsets[level], kinds[level]
        corners_of(n, points, offset, size, resolutions[level], scales[level], kind)
        at = first + level * features
        if kind & 1:
            _prefetch(n, index, table, features, 8 if kind < PLANE else 4)
        if kind < PLANE:
            _interpolate(n, index, weight, table, entry, 8, rows, at, stride)
        else:
            _interpolate(n, index, weight, table, entry, 4, rows, at, stride)


@njit(**FAST, **INNER)
def _load_points(x, first, n, points):
    for axis in range(3):
        for k in range(n):
            points[0][axis, k] = x[axis, first + k]


@njit(**FAST)
def _encode(start, stop, x, table, entry, offsets, resolutions, scales, kinds, out):
    """Fills rows ``start:stop`` of the flat ``out``, (N, levels * features), from ``x`` (3, N)."""
    points, channels = new_points(), len(scales) * len(entry)
    for first in range(start, stop, BLOCK):
        n = min(stop - first, BLOCK)
        _load_points(x, first, n, points)
        encode_block(n, points, table, entry, offsets, resolutions, scales, kinds, out, first * channels, channels)


@njit(**FAST)
def _pick_points(start, stop, x, grad, entry, points, grads, counts, grain):
    """Copies what of ``start:stop`` has a gradient, the rows of ``grad`` (N, C), to places from ``start`` on."""
    end, channels, features = start, grad.shape[1], len(entry)
    flat, levels = grad.reshape(-1), grad.shape[1] // len(entry)
    for point in range(start, stop):
        if not any_nonzero(grad, point):
            continue
        for axis in range(3):
            points[axis, end] = x[axis, point]
        for level in range(levels):
            store(grads[level], end * features, load(flat, point * channels + level * features, entry))
        end += 1
    counts[start // grain] = end - start


@njit(**FAST, **INNER)
def _scatter(n, points, grad, at, entry, corners, table_grad, touched):
    """Adds the gradients of a block's n points on one level, in ``grad`` from ``at`` on."""
    features = len(entry)
    _, index, weight = points
    for k in range(n):
        value = load(grad, at + k * features, entry)
        for corner in range(k, corners * BLOCK, BLOCK):
            row = np.intp(index[corner])
            touched[row // ROWS_PER_FLAG] = 1
            sum_ = load(table_grad, row * features, entry) + splat(weight[corner], entry) * value
            store(table_grad, row * features, sum_)


@njit(**FAST, **INNER)
def _scatter_pairs(n, points, grad, at, entry, pairs, table_grad, touched):
    """As ``_scatter``, to ``pairs`` of neighbouring entries, whose first tells the cell.

    Samples of a ray follow one another, and on a coarse level mostly lie in one cell: their gradients are added up
    before the table's are read.
    """
    features, both = len(entry), entry + entry
    _, index, weight = points
    one, none = splat(np.float32(1), entry), splat(np.float32(0), both)
    sum0 = sum1 = sum2 = sum3 = none
    for k in range(n):
        value, share = load(grad, at + k * features, entry), splat(weight[4 * BLOCK + k], entry)
        values = joined((one - share) * value, share * value)
        sum0 = sum0 + splat(weight[k], both) * values
        sum1 = sum1 + splat(weight[BLOCK + k], both) * values
        if pairs == 4:
            sum2 = sum2 + splat(weight[2 * BLOCK + k], both) * values
            sum3 = sum3 + splat(weight[3 * BLOCK + k], both) * values
        if k + 1 < n and index[k + 1] == index[k]:
            continue
        _add_pair(np.intp(index[k]), sum0, features, both, table_grad, touched)
        _add_pair(np.intp(index[BLOCK + k]), sum1, features, both, table_grad, touched)
        if pairs == 4:
            _add_pair(np.intp(index[2 * BLOCK + k]), sum2, features, both, table_grad, touched)
            _add_pair(np.intp(index[3 * BLOCK + k]), sum3, features, both, table_grad, touched)
        sum0 = sum1 = sum2 = sum3 = none


@njit(**FAST, **INNER)
def _add_pair(row, values, features, both, table_grad, touched):
    touched[row // ROWS_PER_FLAG] = touched[(row + 1) // ROWS_PER_FLAG] = 1
    store(table_grad, row * features, load(table_grad, row * features, both) + values)


@njit(**FAST)
def _encode_backward(
    first_level, last_level, x, grads, counts, grain, entry, offsets, resolutions, scales, kinds, table_grad, touched
):  # fmt: skip
    """Adds the gradients of what ``_pick_points`` has picked to the flat ``table_grad`` for some levels.

    Levels are counted from the last: the finest grid, which takes longest, is among the first, so that threads end
    together.
    """
    features, points = len(entry), new_points()
    _, index, _ = points
    for level in range(len(scales) - 1 - first_level, len(scales) - 1 - last_level, -1):
        offset, size, grad, kind = offsets[level], offsets[level + 1] - offsets[level], grads[level], kinds[level]
        for part in range(len(counts)):
            end = part * grain + counts[part]
            for first in range(part * grain, end, BLOCK):
                n = min(end - first, BLOCK)
                _load_points(x, first, n, points)
                pairs = 0 if kind & 1 else pairs_of(n, points, offset, size, resolutions[level], scales[level], kind)
                if pairs == 4:
                    _scatter_pairs(n, points, grad, first * features, entry, 4, table_grad, touched)
                    continue
                if pairs == 2:
                    _scatter_pairs(n, points, grad, first * features, entry, 2, table_grad, touched)
                    continue
                corners_of(n, points, offset, size, resolutions[level], scales[level], kind)
                if kind & 1:
                    _prefetch(n, index, table_grad, features, 8 if kind < PLANE else 4)
                if kind < PLANE:
                    _scatter(n, points, grad, first * features, entry, 8, table_grad, touched)
                else:
                    _scatter(n, points, grad, first * features, entry, 4, table_grad, touched)
