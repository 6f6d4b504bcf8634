"""What the grid's density networks take of points, in blocks: channel-major, samples last."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.threads import FAST, INNER

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)
_QUARTER, _HALF_PI = np.float32(0.25), np.float32(np.pi / 2)
# Taylor coefficients: below 3e-8 on [-pi/4, pi/4].
_SIN3, _SIN5, _SIN7 = np.float32(-1 / 6), np.float32(1 / 120), np.float32(-1 / 5040)
_SIN9 = np.float32(1 / 362880)
_COS4, _COS6, _COS8 = np.float32(1 / 24), np.float32(-1 / 720), np.float32(1 / 40320)


@njit(**FAST, **INNER)
def encode(x, order, first, n, frequencies, target):
    """[u, sin and cos of 2**k * pi/2 * u for every k] of a block: one polynomial each, then double angles."""
    size = 3 * n
    for s in range(n):
        point = order[first + s]
        for axis in range(3):
            target[axis * n + s] = x[point, axis]
    if frequencies > 0:
        sine, cosine = target[size : 2 * size], target[2 * size : 3 * size]
        for i in range(size):
            turns = target[i] * _QUARTER
            turns -= np.floor(turns + _HALF)
            angle = turns * _HALF_PI  # a quarter of the angle wanted, within +-pi/4
            square = angle * angle
            s = angle * (_ONE + square * (_SIN3 + square * (_SIN5 + square * (_SIN7 + square * _SIN9))))
            c = _ONE + square * (-_HALF + square * (_COS4 + square * (_COS6 + square * _COS8)))
            s, c = _TWO * s * c, (c - s) * (c + s)
            sine[i], cosine[i] = _TWO * s * c, (c - s) * (c + s)
    for level in range(1, frequencies):
        below, here = (2 * level - 1) * size, (2 * level + 1) * size
        lower_sine, lower_cosine = target[below : below + size], target[below + size : below + 2 * size]
        sine, cosine = target[here : here + size], target[here + size : here + 2 * size]
        for i in range(size):
            s, c = lower_sine[i], lower_cosine[i]
            sine[i], cosine[i] = _TWO * s * c, (c - s) * (c + s)


@njit(**FAST, **INNER)
def load_harmonics(harmonics, ray_index, order, first, n, begin, target):
    """Harmonics of a block's directions as rows of ``target`` from ``begin`` on."""
    for s in range(n if harmonics.shape[1] > 0 else 0):
        row = harmonics[ray_index[order[first + s]]]
        for c in range(len(row)):
            target[(begin + c) * n + s] = row[c]
