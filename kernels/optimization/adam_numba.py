"""Numba twin of Adam: stretches of the flat parameter; the lazy update visits touched ones only."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from kernels.threads import FAST, parallel_for

_GRAIN = 131072  # values a thread takes at a time


def adam(tensors: list[Tensor], constants: tuple[float, ...], flags: Tensor | None, span: int) -> None:
    """Updates flat parameter and moments in place and zeroes the gradient, and the flags.

    Args:
        tensors: parameter, gradient, first and second moment.
        constants: rate, both betas, epsilon, weight decay.
        flags: uint8, which stretches of ``span`` values to visit; None: all there is.
    """
    constants = [np.float32(value) for value in constants]
    if flags is None:
        parallel_for(_dense, len(tensors[0]), *tensors, *constants, grain=_GRAIN)
    else:
        parallel_for(_lazy, len(flags), flags, span, *tensors, *constants, grain=max(1, _GRAIN // span))


@njit(**FAST)
def _dense(start, stop, parameter, grad, first, second, rate, beta1, beta2, eps, weight_decay):
    one, zero = np.float32(1), np.float32(0)
    # Slices, so that indices start at 0: numba's check for negative ones would keep the loop from vectorising.
    parameter, grad = parameter[start:stop], grad[start:stop]
    first, second = first[start:stop], second[start:stop]
    for i in range(len(parameter)):
        g = grad[i] + weight_decay * parameter[i]
        m = beta1 * first[i] + (one - beta1) * g
        v = beta2 * second[i] + (one - beta2) * g * g
        first[i], second[i] = m, v
        parameter[i] -= rate * m / (np.sqrt(v) + eps)
        grad[i] = zero


@njit(**FAST)
def _lazy(start, stop, touched, span, parameter, grad, first, second, rate, beta1, beta2, eps, weight_decay):
    one, zero = np.float32(1), np.float32(0)
    block = start
    while block < stop:
        if touched[block] == 0:
            block += 1
            continue
        # Neighbouring blocks are visited as one stretch: where most are touched, that is as fast as the dense update.
        low = block * span
        while block < stop and touched[block] != 0:
            touched[block] = 0
            block += 1
        high = block * span
        p, gradient = parameter[low:high], grad[low:high]
        first_moment, second_moment = first[low:high], second[low:high]
        # Masks, not a branch: so the loop vectorises.
        for i in range(len(p)):
            g, m, v = gradient[i], first_moment[i], second_moment[i]
            moves = np.float32(g != zero)
            stays = one - moves
            g += weight_decay * p[i]
            m_new = beta1 * m + (one - beta1) * g
            v_new = beta2 * v + (one - beta2) * g * g
            first_moment[i] = moves * m_new + stays * m
            second_moment[i] = moves * v_new + stays * v
            p[i] -= moves * (rate * m_new / (np.sqrt(v_new) + eps))
            gradient[i] = zero
