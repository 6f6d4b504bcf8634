"""Covariances of 3D Gaussians from what 3DGS stores of them: scales and rotations (Kerbl et al. 2023, equation 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.gaussians.covariances_numba import CovariancesNumba


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
    return CovariancesNumba.apply(log_scales, rotations)
