"""Triton twin of Adam: one pass over the values of a parameter, its gradient and its moments."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 1024
_WARPS = 4
_TOGETHER = tl.constexpr(4)  # values that are read and written together, by one instruction: 16 bytes


@triton.jit
def places(BLOCK: tl.constexpr):
    """(BLOCK / 4, 4) places of this program's values."""
    group, member = tl.arange(0, BLOCK // _TOGETHER), tl.arange(0, _TOGETHER)
    return tl.program_id(0).to(tl.int64) * BLOCK + group[:, None] * _TOGETHER + member[None, :]


@triton.jit
def update(i, there, g, factor, parameter, first, second, rate, beta1, beta2, eps, weight_decay, LAZY: tl.constexpr):
    """Where there is a gradient, or everywhere; ``factor`` scales it."""
    moves = there
    if LAZY:
        # Four values without a gradient are neither read nor written: the cost follows what a step touched.
        moves = there & (g != 0)
        there = there & (tl.max(moves.to(tl.int32), axis=1) > 0)[:, None]
    p, m = tl.load(parameter + i, mask=there, other=0.0), tl.load(first + i, mask=there, other=0.0)
    v = tl.load(second + i, mask=there, other=0.0)
    g = g * factor + weight_decay * p
    m_next, v_next = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    tl.store(first + i, tl.where(moves, m_next, m), mask=there)
    tl.store(second + i, tl.where(moves, v_next, v), mask=there)
    tl.store(parameter + i, tl.where(moves, p - rate * m_next / (tl.sqrt_rn(v_next) + eps), p), mask=there)


@triton.jit
def _adam(
    parameter, grad, first, second, count, rate, beta1, beta2, eps, weight_decay, LAZY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = places(BLOCK)
    there = i < count
    g = tl.load(grad + i, mask=there, other=0.0)
    update(i, there, g, 1.0, parameter, first, second, rate, beta1, beta2, eps, weight_decay, LAZY)
    tl.store(grad + i, tl.zeros(g.shape, tl.float32), mask=there)


@triton.jit
def _controlled_adam(
    parameter, grad, first, second, count, controls, beta1, beta2, weight_decay, LAZY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    rate, eps, factor = tl.load(controls), tl.load(controls + 1), tl.load(controls + 2)
    i = places(BLOCK)
    there = i < count
    taken = tl.zeros(i.shape, tl.float32) + tl.load(controls + 3) == 0.0
    g = tl.load(grad + i, mask=there, other=0.0)
    update(i, there & taken, g, factor, parameter, first, second, rate, beta1, beta2, eps, weight_decay, LAZY)
    tl.store(grad + i, tl.zeros(g.shape, tl.float32), mask=there)


def adam(
    tensors: list[Tensor],
    rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    lazy: bool,
) -> None:
    """Updates parameter, gradient (to zero) and both moments in place; all are contiguous float32 of one size.

    ``rate`` and ``eps`` hold the bias corrections. ``lazy`` leaves alone the values whose gradient is zero.
    """
    count = tensors[0].numel()
    if count == 0:
        return
    with launch_on(tensors[0].device):
        _adam[(triton.cdiv(count, _BLOCK),)](
            *tensors, count, rate, *betas, eps, weight_decay, LAZY=lazy, BLOCK=_BLOCK, num_warps=_WARPS
        )


def controlled_adam(
    tensors: list[Tensor], controls: Tensor, betas: tuple[float, float], weight_decay: float, lazy: bool
) -> None:
    """As ``adam``, with ``controls`` (4,) float32 of ``kernels.optimization.adam.controlled_adam_step``."""
    count = tensors[0].numel()
    if count == 0:
        return
    with launch_on(tensors[0].device):
        _controlled_adam[(triton.cdiv(count, _BLOCK),)](
            *tensors, count, controls, *betas, weight_decay, LAZY=lazy, BLOCK=_BLOCK, num_warps=_WARPS
        )
