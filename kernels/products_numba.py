"""Products of small matrices in registers, which libraries' are too large for.

Two vectors of columns of four rows are summed at a time, so that a value of B is loaded once for the four rows and one
of A once for the two vectors.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.simd import LANES, load, splat, store
from kernels.threads import FAST

ROWS = 4  # whose sums are in registers: buffers have room for a multiple
# What sums begin with, and a stride: of one type with those that a kernel finds out, or all would be compiled again.
NOTHING, ITSELF, ROW_BEHIND = np.int64(0), np.int64(1), np.int64(2)
NEIGHBOURS = np.int64(1)
_ZERO = np.float32(0)


def padded(width: int) -> int:
    """``width`` rounded up to whole vectors."""
    return -(-int(width) // LANES) * LANES


@njit(**FAST)
def product(rows, inner, a, row_stride, inner_stride, b, columns, start, c):
    """Writes A B to ``c`` (rows, columns), where ``start`` says what sums begin with.

    A's element (r, k) is ``a[r * row_stride + k * inner_stride]``, B is (inner, columns); all flat. Rows are made up
    to a multiple of 4, ``columns`` is one of ``LANES``. Sums begin with zero (0), ``c`` itself (1) or row ``inner`` of
    B (2).
    """
    zero, along = splat(_ZERO, LANES), np.uint64(inner_stride)  # unsigned: no check for negative indices
    pair = along + along
    for row in range(0, rows, ROWS):
        t0 = row * columns
        t1, t2, t3 = t0 + columns, t0 + 2 * columns, t0 + 3 * columns
        column = 0
        while column < columns:
            # Two vectors of columns at once. Where there is but one left, the second takes every other product of it.
            two = column + LANES < columns
            other = column + LANES if two else column
            x0 = x1 = x2 = x3 = y0 = y1 = y2 = y3 = zero
            if start == 1:
                x0, x1 = load(c, t0 + column, LANES), load(c, t1 + column, LANES)
                x2, x3 = load(c, t2 + column, LANES), load(c, t3 + column, LANES)
                if two:
                    y0, y1 = load(c, t0 + other, LANES), load(c, t1 + other, LANES)
                    y2, y3 = load(c, t2 + other, LANES), load(c, t3 + other, LANES)
            elif start == 2:
                x0 = x1 = x2 = x3 = load(b, inner * columns + column, LANES)
                if two:
                    y0 = y1 = y2 = y3 = load(b, inner * columns + other, LANES)
            r0, r1 = np.uint64(row * row_stride), np.uint64((row + 1) * row_stride)
            r2, r3 = np.uint64((row + 2) * row_stride), np.uint64((row + 3) * row_stride)
            p, q = column, other
            if two:
                for _ in range(inner):
                    x, y = load(b, p, LANES), load(b, q, LANES)
                    value = splat(a[r0], LANES)
                    x0, y0 = x0 + value * x, y0 + value * y
                    value = splat(a[r1], LANES)
                    x1, y1 = x1 + value * x, y1 + value * y
                    value = splat(a[r2], LANES)
                    x2, y2 = x2 + value * x, y2 + value * y
                    value = splat(a[r3], LANES)
                    x3, y3 = x3 + value * x, y3 + value * y
                    r0, r1, r2, r3 = r0 + along, r1 + along, r2 + along, r3 + along
                    p, q = p + columns, q + columns
                store(c, t0 + other, y0)
                store(c, t1 + other, y1)
                store(c, t2 + other, y2)
                store(c, t3 + other, y3)
            else:
                for _ in range(inner // 2):
                    x, y = load(b, p, LANES), load(b, p + columns, LANES)
                    x0, y0 = x0 + splat(a[r0], LANES) * x, y0 + splat(a[r0 + along], LANES) * y
                    x1, y1 = x1 + splat(a[r1], LANES) * x, y1 + splat(a[r1 + along], LANES) * y
                    x2, y2 = x2 + splat(a[r2], LANES) * x, y2 + splat(a[r2 + along], LANES) * y
                    x3, y3 = x3 + splat(a[r3], LANES) * x, y3 + splat(a[r3 + along], LANES) * y
                    r0, r1, r2, r3 = r0 + pair, r1 + pair, r2 + pair, r3 + pair
                    p += 2 * columns
                if inner & 1:
                    x = load(b, p, LANES)
                    x0, x1 = x0 + splat(a[r0], LANES) * x, x1 + splat(a[r1], LANES) * x
                    x2, x3 = x2 + splat(a[r2], LANES) * x, x3 + splat(a[r3], LANES) * x
                x0, x1, x2, x3 = x0 + y0, x1 + y1, x2 + y2, x3 + y3
            store(c, t0 + column, x0)
            store(c, t1 + column, x1)
            store(c, t2 + column, x2)
            store(c, t3 + column, x3)
            column += 2 * LANES
