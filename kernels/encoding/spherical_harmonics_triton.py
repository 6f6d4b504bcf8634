"""Triton twin of the spherical harmonics: all of a block of directions' in one launch."""

from __future__ import annotations

from math import pi, sqrt

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 256
_Y0 = tl.constexpr(sqrt(1 / (4 * pi)))
_Y1 = tl.constexpr(sqrt(3 / (4 * pi)))
_Y2, _Y20 = tl.constexpr(sqrt(15 / (4 * pi))), tl.constexpr(sqrt(5 / (16 * pi)))
_Y33, _Y32, _Y31, _Y30 = (tl.constexpr(sqrt(square / pi)) for square in (35 / 32, 105 / 4, 21 / 32, 7 / 16))
_Y44, _Y43, _Y42, _Y41, _Y40 = (
    tl.constexpr(sqrt(square / pi)) for square in (315 / 16, 315 / 32, 45 / 16, 45 / 32, 9 / 256)
)


@triton.jit(do_not_specialize=["count"])
def _basis(directions, count, out, DEGREE: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = place < count
    x = tl.load(directions + place * 3, mask=live, other=0.0)
    y = tl.load(directions + place * 3 + 1, mask=live, other=0.0)
    z = tl.load(directions + place * 3 + 2, mask=live, other=0.0)
    xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
    out += place * ((DEGREE + 1) * (DEGREE + 1))
    tl.store(out, tl.full((BLOCK,), _Y0, tl.float32), mask=live)
    if DEGREE >= 1:
        tl.store(out + 1, y * (-_Y1), mask=live)
        tl.store(out + 2, z * _Y1, mask=live)
        tl.store(out + 3, x * (-_Y1), mask=live)
    if DEGREE >= 2:
        tl.store(out + 4, xy * _Y2, mask=live)
        tl.store(out + 5, yz * (-_Y2), mask=live)
        tl.store(out + 6, (3 * zz - 1) * _Y20, mask=live)
        tl.store(out + 7, xz * (-_Y2), mask=live)
        tl.store(out + 8, (xx - yy) * (_Y2 / 2), mask=live)
    if DEGREE >= 3:
        tl.store(out + 9, y * (3 * xx - yy) * (-_Y33), mask=live)
        tl.store(out + 10, xy * z * _Y32, mask=live)
        tl.store(out + 11, y * (5 * zz - 1) * (-_Y31), mask=live)
        tl.store(out + 12, z * (5 * zz - 3) * _Y30, mask=live)
        tl.store(out + 13, x * (5 * zz - 1) * (-_Y31), mask=live)
        tl.store(out + 14, z * (xx - yy) * (_Y32 / 2), mask=live)
        tl.store(out + 15, x * (xx - 3 * yy) * (-_Y33), mask=live)
    if DEGREE >= 4:
        tl.store(out + 16, xy * (xx - yy) * _Y44, mask=live)
        tl.store(out + 17, yz * (3 * xx - yy) * (-_Y43), mask=live)
        tl.store(out + 18, xy * (7 * zz - 1) * _Y42, mask=live)
        tl.store(out + 19, yz * (7 * zz - 3) * (-_Y41), mask=live)
        tl.store(out + 20, (zz * (35 * zz - 30) + 3) * _Y40, mask=live)
        tl.store(out + 21, xz * (7 * zz - 3) * (-_Y41), mask=live)
        tl.store(out + 22, (xx - yy) * (7 * zz - 1) * (_Y42 / 2), mask=live)
        tl.store(out + 23, xz * (xx - 3 * yy) * (-_Y43), mask=live)
        tl.store(out + 24, (xx * (xx - 3 * yy) - yy * (3 * xx - yy)) * (_Y44 / 4), mask=live)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """See ``kernels.encoding.spherical_harmonics.sh_basis``; without gradients."""
    count, directions = directions.numel() // 3, directions.detach().contiguous()
    out = torch.empty((*directions.shape[:-1], (degree + 1) ** 2), device=directions.device)
    if count:
        with launch_on(directions.device):
            _basis[(triton.cdiv(count, _BLOCK),)](directions, count, out, DEGREE=degree, BLOCK=_BLOCK)
    return out
