"""Curves of training_metrics.csv as one picture, panel by panel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine.files import atomic_path, read_csv
from settings.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """One diagram.

    Attributes:
        title: with the unit.
        x: column of the horizontal axis.
        columns: what is drawn over it.
        log: whether the vertical axis is logarithmic.
    """

    title: str
    x: str
    columns: tuple[str, ...]
    log: bool = False


def read_columns(path: Path) -> dict[str, list[float]]:
    """The columns of a training CSV; an empty cell, or one that is no number, is NaN.

    Raises:
        InputError: unreadable, without ``step`` and ``wall_s``, or without rows.
    """
    table = read_csv(path)
    rows = list(table.rows.values())
    if not rows or not {"step", "wall_s"} <= rows[0].keys():
        found = "other columns" if rows else "; ".join(reason for _, reason in table.problems) or "no rows"
        raise InputError(path, "rows", found, "rows with step and wall_s", "Train for train.log_every steps at least.")
    return {name: [_number(row[name]) for row in rows] for name in table.header}


def panels(columns: Columns) -> list[Panel]:
    """What there is to draw: a column that has no figure is left out, and so is a panel without columns."""

    def there(*names: str) -> tuple[str, ...]:
        return tuple(name for name in names if any(map(math.isfinite, columns.get(name, ()))))

    losses = there(*(name for name in columns if name == "loss" or name.startswith("loss_")))
    ratios = there(*(name for name in columns if name.startswith("grad_ratio_")))
    found = [
        Panel("loss, and its terms unweighted", "step", losses, log=True),
        Panel("PSNR, dB", "wall_s", there("psnr_batch")),
        Panel("samples per ray", "step", there("samples_per_ray")),
        Panel("occupied fraction of the box", "step", there("occupied_fraction")),
        Panel("gradient norm of a term over that of rgb", "step", ratios, log=True),
    ]
    return [panel for panel in found if panel.columns]


def draw_curves(columns: Columns, path: Path, measured: tuple[str, float] | None = None) -> None:
    """Writes the panels as a PNG, two in a row.

    Args:
        measured: label and dB of the evaluation after the last step, marked at the end of the panel of PSNR.
    """
    from matplotlib.figure import Figure

    chosen = panels(columns)
    rows = -(-len(chosen) // 2)
    figure = Figure(figsize=(11, 3.2 * rows), layout="constrained", dpi=110)
    for axes, panel in zip(figure.subplots(rows, 2, squeeze=False).flat, chosen, strict=False):
        _draw(axes, panel, columns)
        if panel.x == "wall_s" and measured is not None:
            label, psnr = measured
            axes.plot(columns["wall_s"][-1:], [psnr], "o", label=f"{label} {psnr:.2f}")
            axes.legend(fontsize=8)
    for axes in figure.axes[len(chosen) :]:
        axes.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _draw(axes: Axes, panel: Panel, columns: Columns) -> None:
    for name in panel.columns:
        label = "training batch, of single rays" if name == "psnr_batch" else name
        axes.plot(columns[panel.x], columns[name], label=label, linewidth=1.2, marker="." if _few(columns) else None)
    # On a logarithmic axis a term that has become exactly 0 is simply not drawn.
    if panel.log and any(value > 0 for name in panel.columns for value in columns[name]):
        axes.set_yscale("log")
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("training time, s" if panel.x == "wall_s" else "step", fontsize=9)
    if panel.x == "step":
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(alpha=0.3)
    if len(panel.columns) > 1:
        axes.legend(fontsize=8)


def _few(columns: Columns) -> bool:
    return len(columns["step"]) < 3


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return math.nan
