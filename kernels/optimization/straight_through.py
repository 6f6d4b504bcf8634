"""Training at rounded weights, after a step: the straight-through estimate, the bits' pull, the next rounding.

A step moves a parameter from its rounded weights; the move is added to weights that are not rounded (Bengio et al.
2013), these are pulled towards zero, and the parameter is given what they round to now: one pass over all of them.
"""

from __future__ import annotations

from torch import Tensor

from kernels.dispatch import resolve
from kernels.optimization import straight_through_numba

ALL = 255
"""Of ``less``: a weight is rounded to zero whatever it is."""
_TWINS = ("torch", "numba", "triton")


def straight_through(
    parameter: Tensor,
    scaled: Tensor,
    steps: Tensor,
    less: Tensor,
    pull: Tensor,
    strength: Tensor,
    implementation: str = "auto",
) -> None:
    """Updates ``scaled`` by what has changed of ``parameter`` since it was ``rounded``, and rounds anew, in place.

    Args:
        parameter: (rows, columns) float32, contiguous as all of these.
        scaled: (rows, columns) float32 weights in steps of the rounding.
        steps: (rows, columns) float32, above 0.
        less: (rows, columns) uint8, how much nearer to zero than the nearest integer a weight is rounded; ``ALL``.
        pull: (rows, columns) float32, at least 0: how far each is pulled towards zero, in steps, times ``strength``.
        strength: () float32.
        implementation: "auto", "torch", "numba" or "triton".
    """
    name = resolve("straight_through", implementation, parameter.device, _TWINS)
    if name == "numba":
        straight_through_numba.straight_through(parameter, scaled, steps, less, pull, float(strength))
        return
    if name == "triton":
        from kernels.optimization import straight_through_triton

        straight_through_triton.straight_through(parameter, scaled, steps, less, pull, strength)
        return
    scaled += (parameter - rounded(scaled, steps, less)) / steps
    most = pull * strength
    scaled -= scaled.clamp(-most, most)
    parameter.copy_(rounded(scaled, steps, less))


def rounded(scaled: Tensor, steps: Tensor, less: Tensor) -> Tensor:
    """(rows, columns) weights that ``scaled`` are rounded to; arguments as of ``straight_through``."""
    nearest = scaled.round()
    return (nearest.abs() - less).clamp_(min=0).copysign_(nearest).masked_fill_(less == ALL, 0) * steps


def average_moved(
    parameter: Tensor,
    scaled: Tensor,
    steps: Tensor,
    less: Tensor,
    moment: Tensor,
    average: Tensor,
    part: float,
    implementation: str = "auto",
) -> None:
    """Moves ``average`` in place by a part of its distance to ``moment`` where a step has moved ``parameter`` from its
    rounded weights, and by as large a part of its distance to 0 elsewhere.

    Args:
        parameter, scaled, steps, less: as of ``straight_through``, before it is called.
        moment, average: (rows, columns) float32.
    """
    name = resolve("straight_through", implementation, parameter.device, _TWINS)
    if name == "numba":
        straight_through_numba.average_moved(parameter, scaled, steps, less, moment, average, part)
        return
    if name == "triton":
        from kernels.optimization import straight_through_triton

        straight_through_triton.average_moved(parameter, scaled, steps, less, moment, average, part)
        return
    moved = parameter != rounded(scaled, steps, less)
    average += (moment * moved - average) * part
