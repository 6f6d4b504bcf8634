"""Small networks on blocks of samples, whose channels are neighbours in memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.products_numba import NEIGHBOURS, NOTHING, ROW_BEHIND, ROWS, padded, product
from kernels.simd import LANES, exponential, load, load_part, maximum, minimum, splat, store, store_part
from kernels.threads import FAST, INNER, UNCALLED

BLOCK = 64  # samples whose activations are in the caches
MAX_RAW = np.float32(15)  # of a density's logarithm
_ZERO, _ONE = np.float32(0), np.float32(1)


class Networks(NamedTuple):
    """Networks of one shape, one after another in memory.

    parameters (networks, P) float32: per layer its weights (rows, outputs), with biases as the last row if it has them,
    else rows padded by zeros to a multiple of ``LANES`` as outputs are; dims (layers, 3) int64: inputs, rows, outputs.
    """

    parameters: Tensor
    dims: np.ndarray

    @property
    def width(self) -> int:
        """Channels of the widest layer's row."""
        return int(max(padded(self.dims[0, 0]), self.dims[:, 2].max()))


def pack(layers: Sequence[Tensor], biased: bool) -> Networks:
    """Networks from the matrices of their layers, each (networks, inputs, outputs); the last input is the bias."""
    shapes = [layer.shape[1:] for layer in layers]
    dims = [(rows - biased, rows if biased else padded(rows), padded(outputs)) for rows, outputs in shapes]
    ends = [0, *accumulate(rows * outputs for _, rows, outputs in dims)]
    parameters = torch.zeros(len(layers[0]), ends[-1])
    for layer, (_, rows, outputs), (start, end) in zip(layers, dims, pairwise(ends), strict=True):
        room = parameters[:, start:end].view(-1, rows, outputs)
        room[:, : layer.shape[1], : layer.shape[2]] = layer.detach()
    return Networks(parameters, np.array(dims, dtype=np.int64))


def unpack(parameters: Tensor, networks: Networks, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Matrices (inputs, outputs) of one network's layers from what ``pack`` made of them, or of gradients (P,)."""
    parts = parameters.split((networks.dims[:, 1] * networks.dims[:, 2]).tolist())
    parts = [part.view(int(rows), int(outputs)) for part, (_, rows, outputs) in zip(parts, networks.dims, strict=True)]
    return [part[:inputs, :outputs] for part, (inputs, outputs) in zip(parts, shapes, strict=True)]


@njit(**FAST, **UNCALLED)
def new_block(dims):
    """Room for a block's rows: the input of each layer of a network, and the last one's output."""
    widest = 0
    for layer in range(len(dims)):
        widest = max(widest, dims[layer, 1], dims[layer, 2])
    return np.zeros((len(dims) + 1, BLOCK * widest), np.float32)


@njit(**FAST, **INNER)
def fill_row(source, at, width, target, to):
    """Copies ``width`` values between flat arrays; the target has room for whole vectors, the rest of which is zero."""
    for c in range(0, width, LANES):
        store(target, to + c, load_part(source, at + c, width - c))


@njit(**FAST, **INNER)
def copy_row(source, at, width, target, to):
    """Copies ``width`` values between flat arrays, and nothing beyond them."""
    for c in range(0, width, LANES):
        store_part(target, to + c, load_part(source, at + c, width - c), width - c)


@njit(**FAST, **INNER)
def sigmoid(x):
    """Of a vector."""
    one = splat(_ONE, LANES)
    return one / (one + exponential(splat(_ZERO, LANES) - x))


@njit(**FAST, **INNER)
def bend(count, slope, values):
    """Multiplies what is below zero of the first ``count`` values (a multiple of ``LANES``) by ``slope``, 0 to 1."""
    steep = splat(slope, LANES)
    for i in range(0, count, LANES):
        value = load(values, i, LANES)
        store(values, i, maximum(value, value * steep))


@njit(**FAST, **INNER)
def density_of(raw):
    """From a density network's output."""
    return np.exp(min(raw, MAX_RAW))


@njit(**FAST, **INNER)
def store_densities(n, raw, width, buffer, density, first):
    """Writes ``density[first : first + n]`` from the first outputs of n rows; ``buffer`` has room for a block."""
    for r in range(n):
        buffer[r] = raw[r * width]
    for r in range(0, n, LANES):
        # What is no number passes where it is the second of two that are compared.
        value = exponential(minimum(splat(MAX_RAW, LANES), load(buffer, r, LANES)))
        store_part(density, first + r, value, n - r)


@njit(**FAST, **INNER)
def any_nonzero(values, row):
    """Whether anything in a row of (N, C) is other than zero; NaN is."""
    c, width = 0, values.shape[1]
    while c < width and values[row, c] == _ZERO:
        c += 1
    return c < width


@njit(**FAST)
def run_network(n, source, stride, along, parameters, dims, biased, slope, activations):
    """Runs a network on the first n rows of ``source``; returns the last layer's outputs, row by row.

    Row r begins at ``r * stride``, its values are ``along`` apart. Rows up to a multiple of 4 are computed.
    ``activations`` is (2, rows * widest).
    """
    at, last, even = 0, len(dims) - 1, (n + ROWS - 1) // ROWS * ROWS
    for layer in range(last + 1):
        inputs, rows, outputs = dims[layer]
        target = activations[layer & 1]
        start = ROW_BEHIND if biased else NOTHING
        product(n, inputs, source, stride, along, parameters[at:], outputs, start, target)
        if layer < last:
            bend(even * outputs, slope, target)
        at += rows * outputs
        source, stride, along = target, outputs, NEIGHBOURS
    return source
