"""Where a logarithmic axis has its numbers."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from distill.reports.plot_axes import round_ticks


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((4, 60), ["5", "10", "20", "50"]),
        ((0.03, 0.9), ["0.05", "0.1", "0.2", "0.5"]),
        ((27, 197), ["50", "100", "150"]),  # of 1, 2 and 5 there are two
        ((7, 15), ["8", "10", "12", "14"]),
    ],
)
def test_a_logarithmic_axis_counts_by_round_numbers_of_which_it_has_three_or_more(ends, expected):
    axes = Figure().add_subplot()
    axes.set_xscale("log")
    axes.set_xlim(*ends)
    round_ticks(axes.xaxis)
    axes.figure.draw_without_rendering()
    shown = [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks() if ends[0] <= tick.get_loc() <= ends[1]]
    assert shown == expected
