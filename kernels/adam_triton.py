"""Triton twin of Adam: one pass over the values of a parameter, its gradient and its moments."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 1024
_WARPS = 4


@triton.jit
def _update(i, moves, g, parameter, first, second, rate, beta1, beta2, eps, weight_decay):
    p = tl.load(parameter + i, mask=moves, other=0.0)
    g += weight_decay * p
    m = beta1 * tl.load(first + i, mask=moves, other=0.0) + (1 - beta1) * g
    v = beta2 * tl.load(second + i, mask=moves, other=0.0) + (1 - beta2) * g * g
    tl.store(first + i, m, mask=moves)
    tl.store(second + i, v, mask=moves)
    tl.store(parameter + i, p - rate * m / (tl.sqrt_rn(v) + eps), mask=moves)


@triton.jit
def _adam(
    parameter, grad, first, second, count, rate, beta1, beta2, eps, weight_decay, LAZY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    moves = i < count
    g = tl.load(grad + i, mask=moves, other=0.0)
    if LAZY:
        # What has no gradient is neither read nor written: the cost follows what a step touched.
        moves = moves & (g != 0)
    _update(i, moves, g, parameter, first, second, rate, beta1, beta2, eps, weight_decay)
    tl.store(grad + i, tl.zeros((BLOCK,), tl.float32), mask=moves)


@triton.jit
def _controlled_adam(
    parameter, grad, first, second, count, controls, beta1, beta2, weight_decay, LAZY: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    rate, eps, factor = tl.load(controls), tl.load(controls + 1), tl.load(controls + 2)
    taken = tl.zeros((BLOCK,), tl.float32) + tl.load(controls + 3) == 0.0
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < count
    g = tl.load(grad + i, mask=there, other=0.0)
    if LAZY:
        there = there & (g != 0)
    _update(i, there & taken, g * factor, parameter, first, second, rate, beta1, beta2, eps, weight_decay)
    tl.store(grad + i, tl.zeros((BLOCK,), tl.float32), mask=there)


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
    """As ``adam``, with ``controls`` (4,) float32 of ``kernels.adam.controlled_adam_step``."""
    count = tensors[0].numel()
    if count == 0:
        return
    with launch_on(tensors[0].device):
        _controlled_adam[(triton.cdiv(count, _BLOCK),)](
            *tensors, count, controls, *betas, weight_decay, LAZY=lazy, BLOCK=_BLOCK, num_warps=_WARPS
        )
