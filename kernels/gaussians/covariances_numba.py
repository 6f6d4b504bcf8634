"""Numba twin of the covariances of Gaussians, one Gaussian after another."""

from __future__ import annotations

from math import exp, sqrt

import numpy as np
import torch
from numba import njit

from kernels.threads import COMPILED, INNER, parallel_for

_GRAIN = 8192


class CovariancesNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_scales, rotations):
        ctx.inputs = log_scales.detach().contiguous(), rotations.detach().contiguous()
        covariances = torch.empty(len(log_scales), 3, 3)
        parallel_for(_forward, len(log_scales), *ctx.inputs, covariances, grain=_GRAIN)
        return covariances

    @staticmethod
    def backward(ctx, grad):
        grads = tuple(torch.empty(part.shape) for part in ctx.inputs)
        parallel_for(_backward, len(grad), *ctx.inputs, grad.contiguous(), *grads, grain=_GRAIN)
        return grads


@njit(**COMPILED, **INNER)
def _fill_rotation(w, x, y, z, matrix):
    """Rotation matrix of a unit quaternion."""
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    matrix[1, 0], matrix[1, 1], matrix[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@njit(**COMPILED, **INNER)
def _unit(rotations, i):
    w, x, y, z = rotations[i]
    scale = 1 / sqrt(w * w + x * x + y * y + z * z)
    return w * scale, x * scale, y * scale, z * scale, scale


@njit(**COMPILED)
def _forward(start, stop, log_scales, rotations, covariances):
    matrix, half = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    for i in range(start, stop):
        w, x, y, z, _ = _unit(rotations, i)
        _fill_rotation(w, x, y, z, matrix)
        for b in range(3):
            scale = exp(log_scales[i, b])
            for a in range(3):
                half[a, b] = matrix[a, b] * scale
        for a in range(3):
            for b in range(3):
                covariances[i, a, b] = half[a, 0] * half[b, 0] + half[a, 1] * half[b, 1] + half[a, 2] * half[b, 2]


@njit(**COMPILED)
def _backward(start, stop, log_scales, rotations, grad, grad_log_scales, grad_rotations):
    matrix, turn = np.empty((3, 3), np.float32), np.empty((3, 3), np.float32)
    for i in range(start, stop):
        w, x, y, z, length = _unit(rotations, i)
        _fill_rotation(w, x, y, z, matrix)
        for b in range(3):
            square = exp(2 * log_scales[i, b])
            total = 0.0
            for a in range(3):
                # dL/dR of R S S R^T: (G + G^T) R S S.
                turn[a, b] = 0
                for c in range(3):
                    turn[a, b] += (grad[i, a, c] + grad[i, c, a]) * matrix[c, b] * square
                total += turn[a, b] * matrix[a, b]
            grad_log_scales[i, b] = total
        gw = 2 * (x * (turn[2, 1] - turn[1, 2]) + y * (turn[0, 2] - turn[2, 0]) + z * (turn[1, 0] - turn[0, 1]))
        gx = 2 * (y * (turn[0, 1] + turn[1, 0]) + z * (turn[0, 2] + turn[2, 0]) + w * (turn[2, 1] - turn[1, 2]))
        gy = 2 * (x * (turn[0, 1] + turn[1, 0]) + z * (turn[1, 2] + turn[2, 1]) + w * (turn[0, 2] - turn[2, 0]))
        gz = 2 * (x * (turn[0, 2] + turn[2, 0]) + y * (turn[1, 2] + turn[2, 1]) + w * (turn[1, 0] - turn[0, 1]))
        gx -= 4 * x * (turn[1, 1] + turn[2, 2])
        gy -= 4 * y * (turn[0, 0] + turn[2, 2])
        gz -= 4 * z * (turn[0, 0] + turn[1, 1])
        # Only what is across the quaternion turns anything: its length is divided out.
        along = gw * w + gx * x + gy * y + gz * z
        grad_rotations[i, 0], grad_rotations[i, 1] = (gw - along * w) * length, (gx - along * x) * length
        grad_rotations[i, 2], grad_rotations[i, 3] = (gy - along * y) * length, (gz - along * z) * length
