"""Covariances of 3D Gaussians from what 3DGS stores of them: scales and rotations (Kerbl et al. 2023, equation 6)."""

from __future__ import annotations

from math import exp, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.threads import parallel_for

_GRAIN = 8192
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """(N, 4) quaternions w, x, y, z of any non-zero length -> (N, 3, 3) rotation matrices."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def gaussian_covariances(log_scales: Tensor, rotations: Tensor, *, implementation: str = "auto") -> Tensor:
    """World-space covariances R diag(exp(log_scales)^2) R^T, differentiable in both arguments.

    Args:
        log_scales: (N, 3) natural logarithm of the standard deviation along each principal axis.
        rotations: (N, 4) quaternions w, x, y, z of the principal axes; any non-zero length.
        implementation: "auto", "torch" or "numba".

    Returns:
        (N, 3, 3), symmetric.
    """
    if resolve("covariances", implementation, log_scales.device, ("torch", "numba")) == "torch":
        half = rotation_matrices(rotations) * log_scales.exp()[:, None, :]
        return half @ half.transpose(1, 2)
    return _CovariancesNumba.apply(log_scales, rotations)


class _CovariancesNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log_scales, rotations):
        ctx.arrays = log_scales.detach().contiguous().numpy(), rotations.detach().contiguous().numpy()
        covariances = torch.empty(len(log_scales), 3, 3)
        parallel_for(_forward, len(log_scales), *ctx.arrays, covariances.numpy(), grain=_GRAIN)
        return covariances

    @staticmethod
    def backward(ctx, grad):
        grads = [torch.empty(array.shape) for array in ctx.arrays]
        outputs = (part.numpy() for part in grads)
        parallel_for(_backward, len(grad), *ctx.arrays, grad.contiguous().numpy(), *outputs, grain=_GRAIN)
        return tuple(grads)


@njit(**_OPTIONS)
def _fill_rotation(w, x, y, z, matrix):
    """Rotation matrix of a unit quaternion."""
    matrix[0, 0], matrix[0, 1], matrix[0, 2] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    matrix[1, 0], matrix[1, 1], matrix[1, 2] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    matrix[2, 0], matrix[2, 1], matrix[2, 2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)


@njit(**_OPTIONS)
def _unit(rotations, i):
    w, x, y, z = rotations[i]
    scale = 1 / sqrt(w * w + x * x + y * y + z * z)
    return w * scale, x * scale, y * scale, z * scale, scale


@njit(**_OPTIONS)
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


@njit(**_OPTIONS)
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
