"""Numba twin of the hash encoding: vertices and weights of a block of points, then gather or scatter."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.adam import ROWS_PER_FLAG, TouchedRows
from kernels.hash_layout import PRIME_Y, PRIME_Z, HashLayout
from kernels.threads import FAST, parallel_for

_BLOCK = 64
_GRAIN = 4096


class HashEncodeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, layout: HashLayout, touched: TouchedRows | None) -> Tensor:
        columns = x.detach().t().contiguous()
        out = torch.empty((layout.output_width, len(x)), dtype=torch.float32)
        levels = layout.offsets, layout.resolutions, layout.scales, layout.hashed
        parallel_for(encode, len(x), columns, table, *levels, out, grain=_GRAIN)
        ctx.columns, ctx.table, ctx.levels, ctx.touched = columns, table, levels, touched
        return out.t()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, None, None, None]:
        table = ctx.table
        if table.requires_grad:
            if table.grad is None:
                table.grad = torch.zeros_like(table)
            grad, touched = grad.t().contiguous(), ctx.touched or TouchedRows(len(table))
            # A thread owns whole levels, so no two threads add to one entry and the sum's order never changes.
            levels = len(ctx.levels[1])
            parallel_for(_encode_backward, levels, ctx.columns, grad, *ctx.levels, table.grad, touched.flags, grain=1)
        return None, None, None, None


@njit(**FAST)
def _corners(x, first, n, offset, size, resolution, scale, hashed, index, weight):
    """Table entries (8, n) and trilinear weights (8, n) of points ``first .. first + n`` on one level."""
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    mask = size - 1
    xs, ys, zs = x[0, first : first + n], x[1, first : first + n], x[2, first : first + n]
    for k in range(n):
        px = min(max(xs[k], zero), one) * scale + half
        py = min(max(ys[k], zero), one) * scale + half
        pz = min(max(zs[k], zero), one) * scale + half
        ix, iy, iz = np.int32(px), np.int32(py), np.int32(pz)
        fx, fy, fz = px - np.float32(ix), py - np.float32(iy), pz - np.float32(iz)
        if hashed:
            y0, z0 = np.int64(iy) * PRIME_Y, np.int64(iz) * PRIME_Z
            y1, z1, jx = y0 + PRIME_Y, z0 + PRIME_Z, ix + 1
            yz00, yz10, yz01, yz11 = y0 ^ z0, y1 ^ z0, y0 ^ z1, y1 ^ z1
            index[0, k] = offset + ((ix ^ yz00) & mask)
            index[1, k] = offset + ((jx ^ yz00) & mask)
            index[2, k] = offset + ((ix ^ yz10) & mask)
            index[3, k] = offset + ((jx ^ yz10) & mask)
            index[4, k] = offset + ((ix ^ yz01) & mask)
            index[5, k] = offset + ((jx ^ yz01) & mask)
            index[6, k] = offset + ((ix ^ yz11) & mask)
            index[7, k] = offset + ((jx ^ yz11) & mask)
        else:
            a = ix + resolution * (iy + resolution * iz)
            e = a + resolution * resolution
            # A vertex one past the far face wraps round, as in tiny-cuda-nn.
            index[0, k] = offset + (a if a < size else a - size)
            index[1, k] = offset + (a + 1 if a + 1 < size else a + 1 - size)
            index[2, k] = offset + (a + resolution if a + resolution < size else a + resolution - size)
            c = a + resolution + 1
            index[3, k] = offset + (c if c < size else c - size)
            index[4, k] = offset + (e if e < size else e - size)
            index[5, k] = offset + (e + 1 if e + 1 < size else e + 1 - size)
            index[6, k] = offset + (e + resolution if e + resolution < size else e + resolution - size)
            g = e + resolution + 1
            index[7, k] = offset + (g if g < size else g - size)
        gx, gy, gz = one - fx, one - fy, one - fz
        yz00w, yz10w, yz01w, yz11w = gy * gz, fy * gz, gy * fz, fy * fz
        weight[0, k], weight[1, k] = gx * yz00w, fx * yz00w
        weight[2, k], weight[3, k] = gx * yz10w, fx * yz10w
        weight[4, k], weight[5, k] = gx * yz01w, fx * yz01w
        weight[6, k], weight[7, k] = gx * yz11w, fx * yz11w


@njit(**FAST)
def encode(start, stop, x, table, offsets, resolutions, scales, hashed, out):
    """Fills ``out[:, start:stop]``, (levels * features, N), from ``x`` (3, N)."""
    features = table.shape[1]
    index = np.empty((8, _BLOCK), np.uint32)  # unsigned: no check for negative indices
    weight = np.empty((8, _BLOCK), np.float32)
    for level in range(len(scales)):
        offset, size = offsets[level], offsets[level + 1] - offsets[level]
        for first in range(start, stop, _BLOCK):
            n = min(stop - first, _BLOCK)
            _corners(x, first, n, offset, size, resolutions[level], scales[level], hashed[level], index, weight)
            for f in range(features):
                channel = out[level * features + f, first : first + n]
                for k in range(n):
                    value = weight[0, k] * table[index[0, k], f]
                    for corner in range(1, 8):
                        value += weight[corner, k] * table[index[corner, k], f]
                    channel[k] = value


@njit(**FAST)
def _encode_backward(first_level, last_level, x, grad, offsets, resolutions, scales, hashed, table_grad, touched):
    """Adds the gradient of ``out`` (levels * features, N) to ``table_grad`` for some levels, all points."""
    features, count = table_grad.shape[1], x.shape[1]
    index = np.empty((8, _BLOCK), np.uint32)  # unsigned: no check for negative indices
    weight = np.empty((8, _BLOCK), np.float32)
    for level in range(first_level, last_level):
        offset, size = offsets[level], offsets[level + 1] - offsets[level]
        for first in range(0, count, _BLOCK):
            n = min(count - first, _BLOCK)
            _corners(x, first, n, offset, size, resolutions[level], scales[level], hashed[level], index, weight)
            for k in range(n):
                for corner in range(8):
                    entry, w = index[corner, k], weight[corner, k]
                    touched[entry // ROWS_PER_FLAG] = 1
                    for f in range(features):
                        table_grad[entry, f] += w * grad[level * features + f, first + k]
