"""Numba twin of the straight-through step: stretches of the flat parameter, one loop that vectorises."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, INNER, parallel_for

_GRAIN = 131072  # values a thread takes at a time


def straight_through(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, pull: Tensor, strength: float
) -> None:
    """As ``kernels.optimization.straight_through.straight_through``."""
    values = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, pull)]
    parallel_for(_straight_through, len(values[0]), *values, np.float32(strength), grain=_GRAIN)


def average_moved(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, moment: Tensor, average: Tensor, part: float
) -> None:
    """As ``kernels.optimization.straight_through.average_moved``."""
    values = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, moment, average)]
    parallel_for(_average_moved, len(values[0]), *values, np.float32(part), grain=_GRAIN)


# No fast arithmetic: a weight that a step has left alone is to be found as it was put there, to the last bit.
@njit(**COMPILED)
def _straight_through(start, stop, parameter, scaled, steps, less, pull, strength):
    # Slices, so that indices start at 0: numba's check for negative ones would keep the loop from vectorising.
    weights, unrounded, step = parameter[start:stop], scaled[start:stop], steps[start:stop]
    nearer, pulls = less[start:stop], pull[start:stop]
    for i in range(len(weights)):
        value = unrounded[i] + (weights[i] - _rounded(unrounded[i], nearer[i]) * step[i]) / step[i]
        most = pulls[i] * strength
        value -= most if value > most else (-most if value < -most else value)
        unrounded[i] = value
        weights[i] = _rounded(value, nearer[i]) * step[i]


@njit(**COMPILED)
def _average_moved(start, stop, parameter, scaled, steps, less, moment, average, part):
    weights, unrounded, step, nearer = parameter[start:stop], scaled[start:stop], steps[start:stop], less[start:stop]
    moments, averages, nothing = moment[start:stop], average[start:stop], np.float32(0)
    for i in range(len(weights)):
        found = moments[i] if weights[i] != _rounded(unrounded[i], nearer[i]) * step[i] else nothing
        averages[i] += (found - averages[i]) * part


@njit(**COMPILED, **INNER)
def _rounded(value, less):
    """The integer, nearer to zero by ``less`` than the nearest one; 255 is as near as can be."""
    nearest, nothing = np.rint(value), np.float32(0)
    size = max(np.abs(nearest) - np.float32(less), nothing)
    return np.copysign(nothing if less == 255 else size, nearest)
