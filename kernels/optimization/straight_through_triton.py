"""Triton twin of the straight-through step: one pass over a parameter, where torch takes two dozen."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.optimization.adam_triton import places
from kernels.triton_support import launch_on

_BLOCK = 1024
_WARPS = 4
_ALL = tl.constexpr(255)
_WHOLE = tl.constexpr(8388608.0)  # 2**23: float32 has no fractions from there on


@triton.jit
def _rounded(value, less):
    """The integer, nearer to zero by ``less`` than the nearest one; halves go to the even one."""
    sign = tl.where(value < 0.0, -1.0, 1.0)
    size = tl.abs(value)
    # Added, it leaves no bits for a fraction; what is no number fails the comparison, and stays none.
    nearest = tl.where(size < _WHOLE, (size + _WHOLE) - _WHOLE, size)
    left = nearest - less.to(tl.float32)
    return sign * tl.where((less == _ALL) | (left < 0.0), 0.0, left)


@triton.jit
def _shown(parameter, scaled, steps, less, count, BLOCK: tl.constexpr):
    """Places, which of them are there, the parameter and what it was rounded from, the steps, ``less``, the rounded."""
    i = places(BLOCK)
    there = i < count
    value, step = tl.load(scaled + i, mask=there, other=0.0), tl.load(steps + i, mask=there, other=1.0)
    nearer = tl.load(less + i, mask=there, other=0)
    return i, there, tl.load(parameter + i, mask=there, other=0.0), value, step, nearer, _rounded(value, nearer) * step


@triton.jit
def _straight_through(parameter, scaled, steps, less, pull, strength, count, BLOCK: tl.constexpr):
    i, there, weight, value, step, nearer, shown = _shown(parameter, scaled, steps, less, count, BLOCK)
    # What has not moved stays to the last bit: the compiler may take a product and a difference together, unrounded.
    value = tl.where(weight == shown, value, value + (weight - shown) / step)
    most = tl.load(pull + i, mask=there, other=0.0) * tl.load(strength)
    value = value - tl.where(value > most, most, tl.where(value < -most, -most, value))
    tl.store(scaled + i, value, mask=there)
    tl.store(parameter + i, _rounded(value, nearer) * step, mask=there)


@triton.jit
def _average_moved(parameter, scaled, steps, less, moment, average, part, count, BLOCK: tl.constexpr):
    i, there, weight, _, _, _, shown = _shown(parameter, scaled, steps, less, count, BLOCK)
    found = tl.where(weight == shown, 0.0, tl.load(moment + i, mask=there, other=0.0))
    before = tl.load(average + i, mask=there, other=0.0)
    tl.store(average + i, before + (found - before) * part, mask=there)


def straight_through(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, pull: Tensor, strength: Tensor
) -> None:
    """As ``kernels.optimization.straight_through.straight_through``."""
    values, count = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, pull)], parameter.numel()
    if count:
        with launch_on(parameter.device):
            _straight_through[(triton.cdiv(count, _BLOCK),)](*values, strength, count, BLOCK=_BLOCK, num_warps=_WARPS)


def average_moved(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, moment: Tensor, average: Tensor, part: float
) -> None:
    """As ``kernels.optimization.straight_through.average_moved``."""
    values, count = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, moment, average)], parameter.numel()
    if count:
        with launch_on(parameter.device):
            _average_moved[(triton.cdiv(count, _BLOCK),)](*values, float(part), count, BLOCK=_BLOCK, num_warps=_WARPS)
