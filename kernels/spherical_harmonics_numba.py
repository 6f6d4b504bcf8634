"""Real spherical harmonics of one direction and their gradient, for use inside numba kernels."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.threads import COMPILED


@njit(**COMPILED)
def fill_sh_basis(x: float, y: float, z: float, basis: np.ndarray) -> None:
    """``sh_basis`` of one direction inside a numba kernel: fills ``basis``, (1,), (4,), (9,) or (16,)."""
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
