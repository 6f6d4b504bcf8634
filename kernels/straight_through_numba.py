"""Numba twin of the straight-through step: stretches of the flat parameter, one loop that vectorises."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, parallel_for

_GRAIN = 131072  # values a thread takes at a time
_WIDTH = 2048  # of a stretch where there is no centre


def straight_through(
    parameter: Tensor, scaled: Tensor, steps: Tensor, zero: Tensor, pull: Tensor, strength: float, centre: Tensor | None
) -> None:
    """As ``kernels.straight_through.straight_through``."""
    centre = torch.zeros(_WIDTH) if centre is None else centre
    values = [tensor.view(-1) for tensor in (parameter, scaled, steps, zero.view(torch.uint8), pull)]
    stretches, grain = -(-len(values[0]) // len(centre)), max(1, _GRAIN // len(centre))
    parallel_for(_straight_through, stretches, *values, np.float32(strength), centre, grain=grain)


# No fast arithmetic: a weight that a step has left alone is to be found as it was put there, to the last bit.
@njit(**COMPILED)
def _straight_through(start, stop, parameter, scaled, steps, zero, pull, strength, centre):
    nothing = np.float32(0)
    width = len(centre)
    for stretch in range(start, stop):
        low, high = stretch * width, min((stretch + 1) * width, len(parameter))
        # Slices, so that indices start at 0: numba's check for negative ones would keep the loop from vectorising.
        weights, unrounded, step = parameter[low:high], scaled[low:high], steps[low:high]
        zeros, pulls = zero[low:high], pull[low:high]
        for i in range(len(weights)):
            shown = (nothing if zeros[i] else np.rint(unrounded[i]) * step[i]) + centre[i]
            value = unrounded[i] + (weights[i] - shown) / step[i]
            most = pulls[i] * strength
            value -= most if value > most else (-most if value < -most else value)
            unrounded[i] = value
            weights[i] = (nothing if zeros[i] else np.rint(value) * step[i]) + centre[i]
