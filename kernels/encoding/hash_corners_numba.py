"""A block of points on a level: which entries of the table are the corners around them, and with what weight."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z
from kernels.networks.layers_numba import BLOCK
from kernels.simd import LANES, load, maximum, minimum, splat, store, to_float, to_integer
from kernels.threads import FAST, INNER, UNCALLED

PLANE = 2  # kinds from here on are planes, see HashLayout
_PRIMES = np.array([PRIME_Y, PRIME_Z], np.uint32).view(np.int32)
_PRIME_Y, _PRIME_Z = _PRIMES


@njit(**FAST, **UNCALLED)
def new_points():
    """Room for a block of points: x, y, z in the unit cube; their 8 table entries and weights, BLOCK by BLOCK."""
    return np.zeros((3, BLOCK), np.float32), np.empty(8 * BLOCK, np.int32), np.empty(8 * BLOCK, np.float32)


@njit(**FAST, **INNER)
def corners_of(n, points, offset, size, resolution, scale, kind):
    """Fills the table entries and weights of a block's first n points on one level."""
    if kind < PLANE:
        _corners_of_grid(n, points, offset, size, resolution, scale, kind & 1)
    else:
        _corners_of_plane(n, points, offset, size, resolution, scale, kind)


@njit(**FAST, **INNER)
def _corners_of_plane(n, points, offset, size, resolution, scale, kind):
    x, index, weight = points
    # The axes that a plane across x, y or z has.
    u, v = np.intp(kind < PLANE + 2), 2 - np.intp(kind >= PLANE + 4)
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
def pairs_of(n, points, offset, size, resolution, scale, kind):
    """Corners of a block's first n points on a dense level, two by two: those along the first axis are neighbours.

    Fills the table entries of the first of each pair, the weights along the other axes, and behind the room for four of
    these the weight of the second.

    Returns:
        pairs of a point; 0 if a vertex lies past the far face, and its entry at the other end of the level.
    """
    x, index, weight = points
    flat, share = kind >= PLANE, 4 * BLOCK
    u, v = np.intp(flat and kind < PLANE + 2), np.intp(1 + (flat and kind < PLANE + 4))
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
