"""Small networks on blocks of samples, in registers: what single-threaded matrix products are too small for.

A sample's channels are neighbours in memory. Sixteen outputs of four samples are summed at a time, so that a weight is
loaded once for the four and an input once for the sixteen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from kernels.simd import load, maximum, splat, store
from kernels.threads import FAST

LANES = 8
ROWS = 4  # samples that are seen together: buffers have room for a multiple
_ZERO = np.float32(0)


class Networks(NamedTuple):
    """Networks of one shape, one after another in memory.

    parameters (networks, P) float32: per layer its weights (inputs, outputs), then the biases if it has them, outputs
    padded by zeros to a multiple of 8; dims (layers, 2) int64: inputs and padded outputs of each layer.
    """

    parameters: Tensor
    dims: np.ndarray

    @property
    def width(self) -> int:
        """Channels of the widest layer's row."""
        return int(max(padded(self.dims[0, 0]), self.dims[:, 1].max()))


def padded(width: int) -> int:
    """``width`` rounded up to whole vectors."""
    return -(-int(width) // LANES) * LANES


def pack(layers: Sequence[Tensor], biased: bool) -> Networks:
    """Networks from the matrices of their layers, each (networks, inputs, outputs); the last input is the bias."""
    parts = [F.pad(layer.detach(), (0, padded(layer.shape[2]) - layer.shape[2])) for layer in layers]
    dims = [(part.shape[1] - biased, part.shape[2]) for part in parts]
    return Networks(torch.cat([part.flatten(1) for part in parts], dim=1), np.array(dims, dtype=np.int64))


@njit(**FAST)
def _layer(n, source, stride, inputs, weights, outputs, biased, slope, target):
    """Writes a layer's ``outputs`` (a multiple of 8) of n samples; what is below zero is multiplied by ``slope``."""
    zero, steep = splat(_ZERO, LANES), splat(slope, LANES)
    for row in range(0, n, ROWS):
        a = row * stride
        b, c, d = a + stride, a + 2 * stride, a + 3 * stride
        column = 0
        while column < outputs:
            # Two vectors of outputs at once; the second repeats the first where there is but one left.
            other = min(column + LANES, outputs - LANES)
            a0 = a1 = zero
            if biased:
                a0, a1 = load(weights, inputs * outputs + column, LANES), load(weights, inputs * outputs + other, LANES)
            b0 = c0 = d0 = a0
            b1 = c1 = d1 = a1
            for i in range(inputs):
                w0, w1 = load(weights, i * outputs + column, LANES), load(weights, i * outputs + other, LANES)
                x = splat(source[a + i], LANES)
                a0, a1 = a0 + x * w0, a1 + x * w1
                x = splat(source[b + i], LANES)
                b0, b1 = b0 + x * w0, b1 + x * w1
                x = splat(source[c + i], LANES)
                c0, c1 = c0 + x * w0, c1 + x * w1
                x = splat(source[d + i], LANES)
                d0, d1 = d0 + x * w0, d1 + x * w1
            at = row * outputs
            store(target, at + column, maximum(a0, a0 * steep))
            store(target, at + other, maximum(a1, a1 * steep))
            at += outputs
            store(target, at + column, maximum(b0, b0 * steep))
            store(target, at + other, maximum(b1, b1 * steep))
            at += outputs
            store(target, at + column, maximum(c0, c0 * steep))
            store(target, at + other, maximum(c1, c1 * steep))
            at += outputs
            store(target, at + column, maximum(d0, d0 * steep))
            store(target, at + other, maximum(d1, d1 * steep))
            column += 2 * LANES


@njit(**FAST)
def run_network(n, source, stride, parameters, dims, biased, slope, activations):
    """Runs a network on the first n rows of ``source``, ``stride`` apart; returns the last layer's outputs.

    Rows up to a multiple of 4 are computed. ``activations`` is (2, rows * widest).
    """
    at, last = 0, len(dims) - 1
    for layer in range(last + 1):
        inputs, outputs = dims[layer]
        target = activations[layer & 1]
        bend = slope if layer < last else np.float32(1)
        _layer(n, source, stride, inputs, parameters[at:], outputs, biased, bend, target)
        at += (inputs + biased) * outputs
        source, stride = target, outputs
    return source
