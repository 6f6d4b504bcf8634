"""Numba twin of the structural similarity: separable blurs, a row of pixels at a time."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, INNER, parallel_for

RADIUS = 5
C1, C2 = 0.01**2, 0.03**2
_GRAIN = 32
_OPTIONS = COMPILED | {"fastmath": {"contract"}}


def window() -> Tensor:
    """(11,) weights of the window along one axis; they sum to 1."""
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / 1.5) ** 2)
    return (weights / weights.sum()).float()


class SsimNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image, reference):
        height, width, channels = image.shape
        x, y = (part.detach().permute(2, 0, 1).contiguous().numpy() for part in (image, reference))
        weights, rows = window().numpy(), channels * height
        products = np.empty((5, channels, height, width), np.float32)
        similarity, partials = np.empty(rows, np.float64), np.empty((3, channels, height, width), np.float32)
        parallel_for(_blur_products, rows, x, y, weights, products, grain=_GRAIN)
        parallel_for(_compare, rows, products, weights, similarity, partials, grain=_GRAIN)
        ctx.arrays = x, y, weights, partials
        return torch.tensor(similarity.sum() / image.numel(), dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad):
        x, y, weights, partials = ctx.arrays
        rows = x.shape[0] * x.shape[1]
        blurred, gradient = np.empty_like(partials), np.empty_like(x)
        parallel_for(_blur_rows, rows, partials, weights, blurred, grain=_GRAIN)
        parallel_for(_gather, rows, blurred, x, y, weights, gradient, grain=_GRAIN)
        return torch.from_numpy(gradient).permute(1, 2, 0) * (grad / x.size), None


@njit(**_OPTIONS, **INNER)
def _blur_row(padded, weights, target):
    """``target[x] = sum(weights[k] * padded[x + k])``."""
    target[:] = 0
    for k in range(len(weights)):
        weight, shifted = weights[k], padded[k : k + len(target)]
        for x in range(len(target)):
            target[x] += weight * shifted[x]


@njit(**_OPTIONS, **INNER)
def _blur_column(planes, channel, y, weights, target):
    """``target[x]`` of row y, blurred along the column; rows beyond the edge are zero."""
    target[:] = 0
    for k in range(len(weights)):
        row = y + k - RADIUS
        if 0 <= row < planes.shape[1]:
            weight, source = weights[k], planes[channel, row]
            for x in range(len(target)):
                target[x] += weight * source[x]


@njit(**_OPTIONS)
def _blur_products(start, stop, x, y, weights, products):
    """Blurs x, y, xx, yy, xy along the rows [start, stop) of all channels."""
    height, width = x.shape[1:]
    padded = np.zeros((5, width + 2 * RADIUS), np.float32)
    for index in range(start, stop):
        channel, row = index // height, index % height
        a, b = x[channel, row], y[channel, row]
        for i in range(width):
            padded[0, RADIUS + i], padded[1, RADIUS + i] = a[i], b[i]
            padded[2, RADIUS + i], padded[3, RADIUS + i] = a[i] * a[i], b[i] * b[i]
            padded[4, RADIUS + i] = a[i] * b[i]
        for plane in range(5):
            _blur_row(padded[plane], weights, products[plane, channel, row])


@njit(**_OPTIONS)
def _compare(start, stop, products, weights, similarity, partials):
    """SSIM summed over each row, and its derivatives with respect to the blurred x, xx and xy."""
    _, _, height, width = products.shape
    blurred = np.empty((5, width), np.float32)
    c1, c2, one, two = np.float32(C1), np.float32(C2), np.float32(1), np.float32(2)
    for index in range(start, stop):
        channel, row = index // height, index % height
        for plane in range(5):
            _blur_column(products[plane], channel, row, weights, blurred[plane])
        by_mean, by_square, by_product = partials[0, channel, row], partials[1, channel, row], partials[2, channel, row]
        total = 0.0
        for i in range(width):
            mean_x, mean_y = blurred[0, i], blurred[1, i]
            both = mean_x * mean_y
            a1 = two * both + c1
            a2 = two * (blurred[4, i] - both) + c2
            b1 = mean_x * mean_x + mean_y * mean_y + c1
            b2 = blurred[2, i] + blurred[3, i] - mean_x * mean_x - mean_y * mean_y + c2
            scale = one / (b1 * b2)
            value = a1 * a2 * scale
            total += value
            by_mean[i] = two * (mean_y * (a2 - a1) * scale - mean_x * value * (one / b1 - one / b2))
            by_square[i] = -value / b2
            by_product[i] = two * a1 * scale
        similarity[index] = total


@njit(**_OPTIONS)
def _blur_rows(start, stop, planes, weights, blurred):
    """Blurs each plane along the rows [start, stop) of all channels."""
    count, _, height, width = planes.shape
    padded = np.zeros(width + 2 * RADIUS, np.float32)
    for index in range(start, stop):
        channel, row = index // height, index % height
        for plane in range(count):
            for x in range(width):
                padded[RADIUS + x] = planes[plane, channel, row, x]
            _blur_row(padded, weights, blurred[plane, channel, row])


@njit(**_OPTIONS)
def _gather(start, stop, blurred, x, y, weights, gradient):
    """dL/dx of the rows [start, stop): the window is symmetric, so what it spread it gathers."""
    _, _, height, width = blurred.shape
    column, two = np.empty((3, width), np.float32), np.float32(2)
    for index in range(start, stop):
        channel, row = index // height, index % height
        for plane in range(3):
            _blur_column(blurred[plane], channel, row, weights, column[plane])
        a, b, target = x[channel, row], y[channel, row], gradient[channel, row]
        for i in range(width):
            target[i] = column[0, i] + two * a[i] * column[1, i] + b[i] * column[2, i]
