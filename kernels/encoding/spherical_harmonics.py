"""Real spherical harmonics of a direction."""

from __future__ import annotations

from math import pi, sqrt

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.encoding import spherical_harmonics_numba

MAX_DEGREE = 4


def sh_basis(directions: Tensor, degree: int, *, implementation: str = "torch") -> Tensor:
    """Real spherical harmonics Y_lm(d), orthonormal on the sphere, in Cartesian form.

    Order is l*l + l + m, with the Condon-Shortley sign: Y_1 = sqrt(3/4pi) * (-y, z, -x). This is the order and
    sign of graphdeco's 3D Gaussian Splatting and of tiny-cuda-nn (constants: Sloan 2008, "Stupid Spherical
    Harmonics Tricks", appendix A2).

    Args:
        directions: (..., 3) unit vectors.
        degree: highest degree l, 0 to 4.
        implementation: "auto", "torch", "numba" or "triton". The latter two are for rows of float32 and have no
            gradient: what needs one, or is of another type or shape, is torch's.

    Returns:
        (..., (degree + 1)**2), differentiable in ``directions``.

    Raises:
        ValueError: ``degree`` is outside 0 to 4.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"spherical harmonics degree: found {degree}, expected 0 to {MAX_DEGREE}")
    if directions.dtype == torch.float32 and directions.ndim == 2 and not directions.requires_grad:
        name = resolve("spherical_harmonics", implementation, directions.device, ("torch", "numba", "triton"))
        if name == "numba":
            return spherical_harmonics_numba.sh_basis(directions, degree)
        if name == "triton":
            from kernels.encoding import spherical_harmonics_triton

            return spherical_harmonics_triton.sh_basis(directions, degree)
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
