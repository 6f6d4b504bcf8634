"""Numba twin of the hash encoding: vertices and weights of a block of points, then gather or scatter."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.added_gradients import room_for_gradient
from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z, HashLayout
from kernels.networks.layers_numba import BLOCK, any_nonzero
from kernels.optimization.updates import ROWS_PER_FLAG, TouchedRows
from kernels.simd import (
    LANES,
    first_half,
    joined,
    load,
    maximum,
    minimum,
    prefetch,
    second_half,
    splat,
    store,
    to_float,
    to_integer,
)
from kernels.threads import FAST, INNER, UNCALLED, parallel_for

_GRAIN = 4096
_PRIMES = np.array([PRIME_Y, PRIME_Z], np.uint32).view(np.int32)
_PRIME_Y, _PRIME_Z = _PRIMES
_PLANE = 2  # kinds from here on are planes, see HashLayout


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


@njit(**FAST, **UNCALLED)
def new_points():
    """Room for a block of points: x, y, z in the unit cube; their 8 table entries and weights, BLOCK by BLOCK."""
    return np.zeros((3, BLOCK), np.float32), np.empty(8 * BLOCK, np.int32), np.empty(8 * BLOCK, np.float32)


@njit(**FAST, **INNER)
def _corners(n, points, offset, size, resolution, scale, kind):
    """Fills the table entries and weights of a block's first n points on one level."""
    if kind < _PLANE:
        _corners_of_grid(n, points, offset, size, resolution, scale, kind & 1)
    else:
        _corners_of_plane(n, points, offset, size, resolution, scale, kind)


@njit(**FAST, **INNER)
def _corners_of_plane(n, points, offset, size, resolution, scale, kind):
    x, index, weight = points
    # The axes that a plane across x, y or z has.
    u, v = np.intp(kind < _PLANE + 2), 2 - np.intp(kind >= _PLANE + 4)
    half, one, zero = splat(np.float32(0.5), LANES), splat(np.float32(1), LANES), splat(np.float32(0), LANES)
    stretch, base, whole = splat(scale, LANES), splat(np.int32(offset), LANES), splat(np.int32(size), LANES)
    unit, row = splat(np.int32(1), LANES), splat(np.int32(resolution), LANES)
    prime, mask = splat(_PRIME_Y, LANES), splat(np.int32(size - 1), LANES)
    for k in range(0, n, LANES):
        pu = minimum(maximum(load(x[u], k, LANES), zero), one) * stretch + half
        pv = minimum(maximum(load(x[v], k, LANES), zero), one) * stretch + half
        iu, iv = to_integer(pu), to_integer(pv)
        fu, fv = pu - to_float(iu), pv - to_float(iv)
        if kind & 1:
            ju, v0 = iu + unit, iv * prime
            v1 = v0 + prime
            store(index, k, base + ((iu ^ v0) & mask))
            store(index, BLOCK + k, base + ((ju ^ v0) & mask))
            store(index, 2 * BLOCK + k, base + ((iu ^ v1) & mask))
            store(index, 3 * BLOCK + k, base + ((ju ^ v1) & mask))
        else:
            a = iu + row * iv
            b, c = a + unit, a + row
            d = c + unit
            store(index, k, base + minimum(a, a - whole))
            store(index, BLOCK + k, base + minimum(b, b - whole))
            store(index, 2 * BLOCK + k, base + minimum(c, c - whole))
            store(index, 3 * BLOCK + k, base + minimum(d, d - whole))
        gu, gv = one - fu, one - fv
        store(weight, k, gu * gv)
        store(weight, BLOCK + k, fu * gv)
        store(weight, 2 * BLOCK + k, gu * fv)
        store(weight, 3 * BLOCK + k, fu * fv)


@njit(**FAST, **INNER)
def _corners_of_grid(n, points, offset, size, resolution, scale, hashed):
    x, index, weight = points
    half, one, zero = splat(np.float32(0.5), LANES), splat(np.float32(1), LANES), splat(np.float32(0), LANES)
    stretch, base, whole = splat(scale, LANES), splat(np.int32(offset), LANES), splat(np.int32(size), LANES)
    unit, row = splat(np.int32(1), LANES), splat(np.int32(resolution), LANES)
    prime_y, prime_z, mask = splat(_PRIME_Y, LANES), splat(_PRIME_Z, LANES), splat(np.int32(size - 1), LANES)
    layer = row * row
    for k in range(0, n, LANES):
        px = minimum(maximum(load(x[0], k, LANES), zero), one) * stretch + half
        py = minimum(maximum(load(x[1], k, LANES), zero), one) * stretch + half
        pz = minimum(maximum(load(x[2], k, LANES), zero), one) * stretch + half
        ix, iy, iz = to_integer(px), to_integer(py), to_integer(pz)
        fx, fy, fz = px - to_float(ix), py - to_float(iy), pz - to_float(iz)
        if hashed:
            jx, y0, z0 = ix + unit, iy * prime_y, iz * prime_z
            y1, z1 = y0 + prime_y, z0 + prime_z
            yz00, yz10, yz01, yz11 = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
            store(index, k, base + ((ix ^ yz00) & mask))
            store(index, BLOCK + k, base + ((jx ^ yz00) & mask))
            store(index, 2 * BLOCK + k, base + ((ix ^ yz10) & mask))
            store(index, 3 * BLOCK + k, base + ((jx ^ yz10) & mask))
            store(index, 4 * BLOCK + k, base + ((ix ^ yz01) & mask))
            store(index, 5 * BLOCK + k, base + ((jx ^ yz01) & mask))
            store(index, 6 * BLOCK + k, base + ((ix ^ yz11) & mask))
            store(index, 7 * BLOCK + k, base + ((jx ^ yz11) & mask))
        else:
            # A vertex one past the far face wraps round, as in tiny-cuda-nn: less than nothing is a large number.
            a = ix + row * iy + layer * iz
            b, c = a + unit, a + row
            d, e, f, g = c + unit, a + layer, b + layer, c + layer
            h = d + layer
            store(index, k, base + minimum(a, a - whole))
            store(index, BLOCK + k, base + minimum(b, b - whole))
            store(index, 2 * BLOCK + k, base + minimum(c, c - whole))
            store(index, 3 * BLOCK + k, base + minimum(d, d - whole))
            store(index, 4 * BLOCK + k, base + minimum(e, e - whole))
            store(index, 5 * BLOCK + k, base + minimum(f, f - whole))
            store(index, 6 * BLOCK + k, base + minimum(g, g - whole))
            store(index, 7 * BLOCK + k, base + minimum(h, h - whole))
        gx, gy, gz = one - fx, one - fy, one - fz
        yz00w, yz10w, yz01w, yz11w = gy * gz, fy * gz, gy * fz, fy * fz
        store(weight, k, gx * yz00w)
        store(weight, BLOCK + k, fx * yz00w)
        store(weight, 2 * BLOCK + k, gx * yz10w)
        store(weight, 3 * BLOCK + k, fx * yz10w)
        store(weight, 4 * BLOCK + k, gx * yz01w)
        store(weight, 5 * BLOCK + k, fx * yz01w)
        store(weight, 6 * BLOCK + k, gx * yz11w)
        store(weight, 7 * BLOCK + k, fx * yz11w)


@njit(**FAST, **INNER)
def _pairs(n, points, offset, size, resolution, scale, kind):
    """Corners of a block's first n points on a dense level, two by two: those along the first axis are neighbours.

    Fills the table entries of the first of each pair, the weights along the other axes, and behind the room for four of
    these the weight of the second.

    Returns:
        pairs of a point; 0 if a vertex lies past the far face, and its entry at the other end of the level.
    """
    x, index, weight = points
    flat, share = kind >= _PLANE, 4 * BLOCK
    u, v = np.intp(flat and kind < _PLANE + 2), np.intp(1 + (flat and kind < _PLANE + 4))
    half, one, zero = splat(np.float32(0.5), LANES), splat(np.float32(1), LANES), splat(np.float32(0), LANES)
    stretch, base, row = splat(scale, LANES), splat(np.int32(offset), LANES), splat(np.int32(resolution), LANES)
    layer = row * row
    for k in range(0, n, LANES):
        pu = minimum(maximum(load(x[u], k, LANES), zero), one) * stretch + half
        pv = minimum(maximum(load(x[v], k, LANES), zero), one) * stretch + half
        iu, iv = to_integer(pu), to_integer(pv)
        a, fv = base + iu + row * iv, pv - to_float(iv)
        gv = one - fv
        store(weight, share + k, pu - to_float(iu))
        if flat:
            store(index, k, a)
            store(index, BLOCK + k, a + row)
            store(weight, k, gv)
            store(weight, BLOCK + k, fv)
        else:
            pw = minimum(maximum(load(x[2], k, LANES), zero), one) * stretch + half
            iw = to_integer(pw)
            a, fw = a + layer * iw, pw - to_float(iw)
            c, gw = a + layer, one - fw
            store(index, k, a)
            store(index, BLOCK + k, a + row)
            store(index, 2 * BLOCK + k, c)
            store(index, 3 * BLOCK + k, c + row)
            store(weight, k, gv * gw)
            store(weight, BLOCK + k, fv * gw)
            store(weight, 2 * BLOCK + k, gv * fw)
            store(weight, 3 * BLOCK + k, fv * fw)
    pairs, last = 2 if flat else 4, np.int32(0)
    for k in range((pairs - 1) * BLOCK, (pairs - 1) * BLOCK + n):
        last = max(last, index[k])
    return pairs if last + 1 < offset + size else 0


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
def _interpolate_pairs(n, index, weight, table, entry, pairs, rows, at, channels):
    """As ``_interpolate``, of ``pairs`` of neighbouring entries."""
    features, both = len(entry), entry + entry
    one = splat(np.float32(1), entry)
    for k in range(n):
        value = splat(weight[k], both) * load(table, np.intp(index[k]) * features, both)
        for pair in range(BLOCK, pairs * BLOCK, BLOCK):
            start = np.intp(index[pair + k]) * features
            value = value + splat(weight[pair + k], both) * load(table, start, both)
        share = splat(weight[4 * BLOCK + k], entry)
        store(rows, at + k * channels, (one - share) * first_half(value) + share * second_half(value))


@njit(**FAST, **INNER)
def encode_block(n, points, table, entry, offsets, resolutions, scales, kinds, rows, first, stride):
    """Writes the encodings of a block's n points, ``stride`` apart, to the flat ``rows`` from ``first`` on.

    ``table`` is flat, float32 or the bits of float16; ``entry`` a tuple of as many members as an entry has features.
    """
    features = len(entry)
    _, index, weight = points
    for level in range(len(scales)):
        offset, size, kind = offsets[level], offsets[level + 1] - offsets[level], kinds[level]
        at = first + level * features
        pairs = 0 if kind & 1 else _pairs(n, points, offset, size, resolutions[level], scales[level], kind)
        if pairs == 4:
            _interpolate_pairs(n, index, weight, table, entry, 4, rows, at, stride)
            continue
        if pairs == 2:
            _interpolate_pairs(n, index, weight, table, entry, 2, rows, at, stride)
            continue
        _corners(n, points, offset, size, resolutions[level], scales[level], kind)
        if kind & 1:
            _prefetch(n, index, table, features, 8 if kind < _PLANE else 4)
        if kind < _PLANE:
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
    """As ``_scatter``, to ``pairs`` of neighbouring entries."""
    features, both = len(entry), entry + entry
    _, index, weight = points
    one = splat(np.float32(1), entry)
    for k in range(n):
        value, share = load(grad, at + k * features, entry), splat(weight[4 * BLOCK + k], entry)
        values = joined((one - share) * value, share * value)
        for pair in range(k, pairs * BLOCK, BLOCK):
            row = np.intp(index[pair])
            touched[row // ROWS_PER_FLAG] = touched[(row + 1) // ROWS_PER_FLAG] = 1
            sum_ = load(table_grad, row * features, both) + splat(weight[pair], both) * values
            store(table_grad, row * features, sum_)


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
                pairs = 0 if kind & 1 else _pairs(n, points, offset, size, resolutions[level], scales[level], kind)
                if pairs == 4:
                    _scatter_pairs(n, points, grad, first * features, entry, 4, table_grad, touched)
                    continue
                if pairs == 2:
                    _scatter_pairs(n, points, grad, first * features, entry, 2, table_grad, touched)
                    continue
                _corners(n, points, offset, size, resolutions[level], scales[level], kind)
                if kind & 1:
                    _prefetch(n, index, table_grad, features, 8 if kind < _PLANE else 4)
                if kind < _PLANE:
                    _scatter(n, points, grad, first * features, entry, 8, table_grad, touched)
                else:
                    _scatter(n, points, grad, first * features, entry, 4, table_grad, touched)
