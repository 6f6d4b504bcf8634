"""Numba twin of Muon: one matrix on one thread, without torch's overhead for each of many small products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from torch import Tensor

from kernels.threads import FAST, INNER


def muon(
    tensors: Sequence[Tensor],
    size: float,
    betas: tuple[float, float],
    weight_decay: float,
    coefficients: Sequence[tuple[float, float, float]],
    margin: float,
    least_norm: float,
) -> None:
    """See ``kernels.optimization.muon.muon_step``.

    Args:
        size: what the orthogonalised momentum is multiplied by.
        coefficients, margin, least_norm: of the iterations.
    """
    numbers = map(np.float32, (size, *betas, weight_decay, margin, least_norm))
    _muon(*(tensor.numpy() for tensor in tensors), *numbers, np.array(coefficients, dtype=np.float32))


@njit(**FAST, **INNER)
def _product(a, b, out):
    for i in range(out.shape[0]):
        row = out[i]
        row[:] = np.float32(0)
        for k in range(len(b)):
            factor, other = a[i, k], b[k]
            for j in range(len(row)):
                row[j] += factor * other[j]


@njit(**FAST, **INNER)
def _gram(a, out):
    for i in range(len(a)):
        for j in range(i + 1):
            total, one, other = np.float32(0), a[i], a[j]
            for k in range(len(one)):
                total += one[k] * other[k]
            out[i, j] = total
            out[j, i] = total


@njit(**FAST)
def _muon(parameter, grad, first, second, size, beta1, beta2, weight_decay, margin, least_norm, coefficients):
    one = np.float32(1)
    height, width = parameter.shape
    upright = height > width
    rows, columns = min(height, width), max(height, width)
    step, turned = np.empty((rows, columns), dtype=np.float32), np.empty((rows, columns), dtype=np.float32)
    gram, higher = np.empty((rows, rows), dtype=np.float32), np.empty((rows, rows), dtype=np.float32)
    square = np.float32(0)
    for i in range(height):
        for j in range(width):
            g = grad[i, j] + weight_decay * parameter[i, j]
            m = beta1 * first[i, j] + (one - beta1) * g
            first[i, j] = m
            second[i, j] = beta2 * second[i, j] + (one - beta2) * g * g
            ahead = beta1 * m + (one - beta1) * g
            square += ahead * ahead
            grad[i, j] = np.float32(0)
            if upright:
                step[j, i] = ahead
            else:
                step[i, j] = ahead
    step *= one / max(margin * np.sqrt(square), least_norm)
    for n in range(len(coefficients)):
        linear, cubic, quintic = coefficients[n, 0], coefficients[n, 1], coefficients[n, 2]
        _gram(step, gram)
        _product(gram, gram, higher)
        for i in range(rows):
            for j in range(rows):
                higher[i, j] = cubic * gram[i, j] + quintic * higher[i, j]
        _product(higher, step, turned)
        for i in range(rows):
            for j in range(columns):
                step[i, j] = linear * step[i, j] + turned[i, j]
    for i in range(height):
        for j in range(width):
            parameter[i, j] -= size * (step[j, i] if upright else step[i, j])
