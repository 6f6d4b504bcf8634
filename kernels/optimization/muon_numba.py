"""Numba twin of Muon: a matrix stays in the caches from its gradient to its step, and a thread takes some rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numba import njit
from torch import Tensor

from kernels.products_numba import NEIGHBOURS, NOTHING, ROWS, padded, product
from kernels.simd import LANES, load, splat, store
from kernels.threads import FAST, INNER, parallel_for

_GRAIN = 4  # rows a thread takes at a time


def muon(
    tensors: Sequence[Tensor],
    shapes: Sequence[tuple[int, int]],
    sizes: Sequence[float],
    least: Sequence[float],
    turns: tuple[int, int],
    betas: tuple[float, float],
    weight_decay: float,
    flags: tuple[Tensor, int] | None,
    coefficients: Sequence[tuple[float, float, float]],
    margin: float,
) -> None:
    """See ``kernels.optimization.muon.muon_step``; the flags stay.

    Args:
        tensors: parameter, gradient and moments, flat.
        sizes: what each orthogonalised matrix is multiplied by; least: the norm below which it shrinks.
        flags: uint8, which rows to visit, and how many share one; None: all.
        turns: the update's number, and in how many each row moves once.
        coefficients, margin: of the iterations.
    """
    layers, span = _layers(tuple(map(tuple, shapes)))
    touched, rows_per_flag = (np.empty(0, np.uint8), 1) if flags is None else (flags[0].numpy(), flags[1])
    numbers = [np.float32(number) for number in (*betas, weight_decay, margin)]
    sizes, least = np.array(sizes, np.float32), np.array(least, np.float32)
    parallel_for(
        _muon, len(tensors[0]) // span, *tensors, layers, sizes, least, *turns, touched, rows_per_flag,
        flags is not None, *numbers, _array(coefficients), grain=_GRAIN,
    )  # fmt: skip


@lru_cache
def _layers(shapes: tuple[tuple[int, int], ...]) -> tuple[np.ndarray, int]:
    """(L, 3) height, width and the shorter of these made up to whole vectors; values of a row."""
    layers = [(height, width, padded(min(height, width))) for height, width in shapes]
    return np.array(layers, dtype=np.int64), sum(height * width for height, width in shapes)


@lru_cache
def _array(coefficients: tuple[tuple[float, float, float], ...]) -> np.ndarray:
    return np.array(coefficients, np.float32)


@njit(**FAST)
def _muon(
    start, stop, parameter, grad, first, second, layers, sizes, least, update, turns, touched, rows_per_flag, lazy,
    beta1, beta2, weight_decay, margin, coefficients,
):  # fmt: skip
    one, zero, span, widest, tallest = np.float32(1), np.float32(0), 0, 0, 0
    for layer in range(len(layers)):
        height, width, across = layers[layer]
        span += height * width
        widest, tallest = max(widest, across), max(tallest, (max(height, width) + ROWS - 1) // ROWS * ROWS)
    step, turned = np.empty(tallest * widest, np.float32), np.empty(tallest * widest, np.float32)
    gram, higher = np.empty(widest * widest, np.float32), np.empty(widest * widest, np.float32)
    for row in range(start, stop):
        if lazy and touched[row // rows_per_flag] == 0:
            continue
        low, moves = row * span, (update + row) % turns == 0
        for layer in range(len(layers)):
            height, width, across = layers[layer]
            high, tall = low + height * width, max(height, width)
            p, g, m, v = parameter[low:high], grad[low:high], first[low:high], second[low:high]
            low, found = high, not lazy
            for i in range(0 if found else len(g)):
                found |= g[i] != zero
            if not found:
                continue
            square = zero
            for i in range(len(g)):
                decayed = g[i] + weight_decay * p[i]
                m[i] = beta1 * m[i] + (one - beta1) * decayed
                v[i] = beta2 * v[i] + (one - beta2) * decayed * decayed
                g[i] = beta1 * m[i] + (one - beta1) * decayed
                square += g[i] * g[i]
            if not moves:
                g[:] = zero
                continue
            # Its longer side along the rows: the matrices that are made of it have the shorter.
            norm = np.sqrt(square)
            unit = one / (margin * norm) if norm > zero else zero
            along, over = (across, 1) if height >= width else (1, across)
            step[:] = zero
            for i in range(height):
                for j in range(width):
                    step[i * along + j * over] = g[i * width + j] * unit
            _orthogonalise(tall, across, coefficients, step, turned, gram, higher)
            size = np.float32(turns) * sizes[layer] * norm / max(norm, least[layer])
            for i in range(height):
                for j in range(width):
                    p[i * width + j] -= size * step[i * along + j * over]
                    g[i * width + j] = zero


@njit(**FAST, **INNER)
def _orthogonalise(tall, across, coefficients, step, turned, gram, higher):
    """Does so to ``step`` (tall, across), whose columns, whole vectors, are padded by zeros, with room for the rest."""
    count = (tall + ROWS - 1) // ROWS * ROWS * across
    for n in range(len(coefficients)):
        linear, cubic, quintic = coefficients[n, 0], coefficients[n, 1], coefficients[n, 2]
        product(across, tall, step, NEIGHBOURS, across, step, across, NOTHING, gram)
        product(across, across, gram, across, NEIGHBOURS, gram, across, NOTHING, higher)
        for i in range(0, across * across, LANES):
            value = splat(cubic, LANES) * load(gram, i, LANES) + splat(quintic, LANES) * load(higher, i, LANES)
            store(higher, i, value)
        product(tall, across, step, across, NEIGHBOURS, higher, across, NOTHING, turned)
        for i in range(0, count, LANES):
            store(step, i, splat(linear, LANES) * load(step, i, LANES) + load(turned, i, LANES))
