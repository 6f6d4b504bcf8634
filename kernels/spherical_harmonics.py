"""Real spherical harmonics of a direction: a torch function, and a numba one for use inside kernels."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

MAX_DEGREE = 4


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics Y_lm(d), orthonormal on the sphere, in Cartesian form.

    Order is l*l + l + m, with the Condon-Shortley sign: Y_1 = sqrt(3/4pi) * (-y, z, -x). This is the order and
    sign of graphdeco's 3D Gaussian Splatting and of tiny-cuda-nn (constants: Sloan 2008, "Stupid Spherical
    Harmonics Tricks", appendix A2).

    Args:
        directions: (..., 3) unit vectors.
        degree: highest degree l, 0 to 4.

    Returns:
        (..., (degree + 1)**2), differentiable in ``directions``.

    Raises:
        ValueError: ``degree`` is outside 0 to 4.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics degree: found {degree}, expected 0 to {MAX_DEGREE}")
    x, y, z = directions.unbind(-1)
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    basis = [torch.full_like(x, sqrt(1 / (4 * pi)))]
    if degree >= 1:
        c = sqrt(3 / (4 * pi))
        basis += [-c * y, c * z, -c * x]
    if degree >= 2:
        c = sqrt(15 / (4 * pi))
        basis += [c * xy, -c * yz, sqrt(5 / (16 * pi)) * (3 * zz - 1), -c * xz, c / 2 * (xx - yy)]
    if degree >= 3:
        outer, middle, inner = sqrt(35 / (32 * pi)), sqrt(105 / (4 * pi)), sqrt(21 / (32 * pi))
        basis += [
            -outer * y * (3 * xx - yy),
            middle * xy * z,
            -inner * y * (5 * zz - 1),
            sqrt(7 / (16 * pi)) * z * (5 * zz - 3),
            -inner * x * (5 * zz - 1),
            middle / 2 * z * (xx - yy),
            -outer * x * (xx - 3 * yy),
        ]
    if degree >= 4:
        m4, m3, m2, m1 = sqrt(315 / (16 * pi)), sqrt(315 / (32 * pi)), sqrt(45 / (16 * pi)), sqrt(45 / (32 * pi))
        basis += [
            m4 * xy * (xx - yy),
            -m3 * yz * (3 * xx - yy),
            m2 * xy * (7 * zz - 1),
            -m1 * yz * (7 * zz - 3),
            sqrt(9 / (256 * pi)) * (zz * (35 * zz - 30) + 3),
            -m1 * xz * (7 * zz - 3),
            m2 / 2 * (xx - yy) * (7 * zz - 1),
            -m3 * xz * (xx - 3 * yy),
            m4 / 4 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ]
    return torch.stack(basis, dim=-1)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
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
