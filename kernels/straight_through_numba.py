"""Numba twin of the straight-through step: stretches of the flat parameter, one loop that vectorises."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, INNER, parallel_for

_GRAIN = 131072  # values a thread takes at a time
_WIDTH = 2048  # of a stretch where there is no centre


def straight_through(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, pull: Tensor, strength: float, centre: Tensor | None
) -> None:
    """As ``kernels.straight_through.straight_through``."""
    centre = torch.zeros(_WIDTH) if centre is None else centre
    values = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, pull)]
    stretches, grain = -(-len(values[0]) // len(centre)), max(1, _GRAIN // len(centre))
    parallel_for(_straight_through, stretches, *values, np.float32(strength), centre, grain=grain)


def average_moved(
    parameter: Tensor, scaled: Tensor, steps: Tensor, less: Tensor, moment: Tensor, average: Tensor, part: float
) -> None:
    """As ``kernels.straight_through.average_moved``."""
    values = [tensor.view(-1) for tensor in (parameter, scaled, steps, less, moment, average)]
    parallel_for(_average_moved, len(values[0]), *values, np.float32(part), grain=_GRAIN)


# No fast arithmetic: a weight that a step has left alone is to be found as it was put there, to the last bit.
@njit(**COMPILED)
def _straight_through(start, stop, parameter, scaled, steps, less, pull, strength, centre):
    width = len(centre)
    for stretch in range(start, stop):
        low, high = stretch * width, min((stretch + 1) * width, len(parameter))
        # Slices, so that indices start at 0: numba's check for negative ones would keep the loop from vectorising.
        weights, unrounded, step = parameter[low:high], scaled[low:high], steps[low:high]
        nearer, pulls = less[low:high], pull[low:high]
        for i in range(len(weights)):
            shown = _rounded(unrounded[i], nearer[i]) * step[i] + centre[i]
            value = unrounded[i] + (weights[i] - shown) / step[i]
            most = pulls[i] * strength
            value -= most if value > most else (-most if value < -most else value)
            unrounded[i] = value
            weights[i] = _rounded(value, nearer[i]) * step[i] + centre[i]


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
