"""Pulling weights to zero beside Adam: the proximal step of an L1 penalty, in Adam's metric (Yun et al. 2021, ProxGen).

A weight whose gradients, on the mean, pull less than the penalty does is drawn to zero. Were the penalty part of the
loss, Adam would divide by it where gradients are smaller, and no small weight would come to rest.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.threads import COMPILED, parallel_for

_GRAIN = 131072  # values a thread takes at a time
_SAMPLED = 4096  # of the moments, that a typical one is found among
_LEAST_ROOT = 1e-30


def shrink(parameter: Tensor, second_moment: Tensor, strength: Tensor, implementation: str = "auto") -> None:
    """Moves weights towards zero by ``strength`` over the root of their second moment, not beyond it, in place.

    Args:
        parameter, second_moment: same shape, float32, contiguous; moments at least 0.
        strength: () float32, at least 0: learning rate times the penalty's slope.
        implementation: "auto", "torch" or "numba".
    """
    name = resolve("shrink", implementation, parameter.device, ("torch", "numba"))
    if name == "numba":
        values = parameter.detach().view(-1), second_moment.view(-1)
        parallel_for(_shrink, len(values[0]), *values, np.float32(strength), grain=_GRAIN)
        return
    most = strength / second_moment.sqrt().clamp_(min=_LEAST_ROOT)
    parameter.detach().sub_(parameter.detach().clamp(-most, most))


def typical_gradient(second_moment: Tensor) -> Tensor:
    """() the median root of those moments that are not 0, of some 4,096 of them; 0 where all are.

    Nothing waits for it.
    """
    values = second_moment.view(-1)
    # An odd stride goes through all columns of a table, whose number is a power of two.
    some = values[:: max(1, len(values) // _SAMPLED) | 1].sort().values
    zeros = (some == 0).sum()
    middle = (zeros + (len(some) - zeros - 1).clamp(min=0) // 2).clamp(max=len(some) - 1)
    return some.gather(0, middle[None])[0].sqrt()


@njit(**COMPILED)
def _shrink(start, stop, parameter, moment, strength):
    weights, moments, least = parameter[start:stop], moment[start:stop], np.float32(_LEAST_ROOT)
    for i in range(len(weights)):
        value, most = weights[i], strength / max(np.sqrt(moments[i]), least)
        # What is not a number stays none: it has to be found out.
        weights[i] = value - (most if value > most else (-most if value < -most else value))
