"""Numba twin of spherical harmonics; those of one direction, and their gradient, for use inside other kernels."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, parallel_for

_GRAIN = 1024


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """(N, (degree + 1)**2) of directions (N, 3), float32."""
    basis = torch.empty(len(directions), (degree + 1) ** 2)
    parallel_for(_fill_rows, len(basis), directions.contiguous(), basis, grain=_GRAIN)
    return basis


@njit(**COMPILED)
def _fill_rows(start, stop, directions, basis):
    for row in range(start, stop):
        fill_sh_basis(directions[row, 0], directions[row, 1], directions[row, 2], basis[row])


@njit(**COMPILED)
def fill_sh_basis(x: float, y: float, z: float, basis: np.ndarray) -> None:
    """``sh_basis`` of one direction inside a numba kernel: fills ``basis``, (1,), (4,), (9,), (16,) or (25,)."""
    basis[0] = 0.28209479177387814
    if len(basis) > 1:
        basis[1] = -0.4886025119029199 * y
        basis[2] = 0.4886025119029199 * z
        basis[3] = -0.4886025119029199 * x
    if len(basis) > 4:
        basis[4] = 1.0925484305920792 * x * y
        basis[5] = -1.0925484305920792 * y * z
        basis[6] = 0.31539156525252005 * (3 * z * z - 1)
        basis[7] = -1.0925484305920792 * x * z
        basis[8] = 0.5462742152960396 * (x * x - y * y)
    if len(basis) > 9:
        basis[9] = -0.5900435899266435 * y * (3 * x * x - y * y)
        basis[10] = 2.890611442640554 * x * y * z
        basis[11] = -0.4570457994644658 * y * (5 * z * z - 1)
        basis[12] = 0.3731763325901154 * z * (5 * z * z - 3)
        basis[13] = -0.4570457994644658 * x * (5 * z * z - 1)
        basis[14] = 1.445305721320277 * z * (x * x - y * y)
        basis[15] = -0.5900435899266435 * x * (x * x - 3 * y * y)
    if len(basis) > 16:
        xx, yy, zz = x * x, y * y, z * z
        basis[16] = 2.5033429417967046 * x * y * (xx - yy)
        basis[17] = -1.7701307697799304 * y * z * (3 * xx - yy)
        basis[18] = 0.9461746957575601 * x * y * (7 * zz - 1)
        basis[19] = -0.6690465435572892 * y * z * (7 * zz - 3)
        basis[20] = 0.10578554691520431 * (zz * (35 * zz - 30) + 3)
        basis[21] = -0.6690465435572892 * x * z * (7 * zz - 3)
        basis[22] = 0.47308734787878004 * (xx - yy) * (7 * zz - 1)
        basis[23] = -1.7701307697799304 * x * z * (xx - 3 * yy)
        basis[24] = 0.6258357354491761 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy))


@njit(**COMPILED)
def sh_basis_gradient(x: float, y: float, z: float, weights: np.ndarray) -> tuple[float, float, float]:
    """Gradient of ``sum(weights * basis)`` with respect to (x, y, z), as polynomials off the sphere too.

    ``weights`` is (1,), (4,), (9,) or (16,), as for ``fill_sh_basis``.
    """
    gx = gy = gz = 0.0
    w = weights
    if len(w) > 1:
        gx -= 0.4886025119029199 * w[3]
        gy -= 0.4886025119029199 * w[1]
        gz += 0.4886025119029199 * w[2]
    if len(w) > 4:
        c, d = 1.0925484305920792, 0.5462742152960396
        gx += c * (y * w[4] - z * w[7]) + 2 * d * x * w[8]
        gy += c * (x * w[4] - z * w[5]) - 2 * d * y * w[8]
        gz += 6 * 0.31539156525252005 * z * w[6] - c * (y * w[5] + x * w[7])
    if len(w) > 9:
        outer, middle, inner, axis = 0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154
        fan = 1.445305721320277
        xx, yy, zz = x * x, y * y, z * z
        gx += -6 * outer * x * y * w[9] + middle * y * z * w[10] - inner * (5 * zz - 1) * w[13]
        gx += 2 * fan * x * z * w[14] - 3 * outer * (xx - yy) * w[15]
        gy += -3 * outer * (xx - yy) * w[9] + middle * x * z * w[10] - inner * (5 * zz - 1) * w[11]
        gy += -2 * fan * y * z * w[14] + 6 * outer * x * y * w[15]
        gz += middle * x * y * w[10] - 10 * inner * z * (y * w[11] + x * w[13])
        gz += axis * (15 * zz - 3) * w[12] + fan * (xx - yy) * w[14]
    return gx, gy, gz
