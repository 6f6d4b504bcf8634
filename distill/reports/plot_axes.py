"""Axes of plots as a person reads them: round numbers, written out."""

from __future__ import annotations

from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

_LEAST_TICKS = 3  # fewer do not show how a logarithmic axis runs
_MOST_STEPS = 5  # where they are even: towards the right end they lie close together


class _RoundTicks(LogLocator):
    """1, 2 and 5 of each decade; in a range with few of them, evenly spaced ones."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        ticks = super().tick_values(vmin, vmax)
        if ((ticks >= vmin) & (ticks <= vmax)).sum() >= _LEAST_TICKS:
            return ticks
        return MaxNLocator(_MOST_STEPS, steps=(1, 2, 5, 10)).tick_values(vmin, vmax)


def round_ticks(axis: Axis) -> None:
    """Has a logarithmic axis count by round numbers, however wide or narrow its range is."""
    axis.set_major_locator(_RoundTicks(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
