"""A study's quality over its time of training: a panel for each size of picture, a line for each arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distill.reports.markdown_table import REFERENCES
from distill.studies.outcome import SECONDS
from distill.studies.study_plan import PlannedRun
from distill.studies.study_table import Row
from machine.files import atomic_path

_STYLES = {"teacher": "-", "ground_truth": "--"}


class Line(NamedTuple):
    """An arm's PSNR, dB, to a reference, over seconds of training, from short to long."""

    arm: str
    reference: str
    seconds: tuple[float, ...]
    psnr: tuple[float, ...]


def lines_by_size(runs: Sequence[PlannedRun], rows: Sequence[Row]) -> dict[str, list[Line]]:
    """The lines of each width of picture, those of two points or more; a study of one budget has none."""
    sizes = {(run.arm, run.budget): run.config.data.resolution for run in runs}
    points: dict[tuple[int | None, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        seconds = row.spreads.get(SECONDS)
        for (metric, reference), spread in row.spreads.items():
            if metric == "psnr" and seconds is not None:
                place = sizes[row.arm, row.budget], row.arm, reference
                points.setdefault(place, []).append((seconds.mean, spread.mean))
    found: dict[str, list[Line]] = {}
    for (size, arm, reference), measured in points.items():
        if len(measured) > 1:
            name = "the dataset's size" if size is None else f"{size} pixels"
            found.setdefault(name, []).append(Line(arm, reference, *zip(*sorted(measured), strict=True)))
    return found


def draw_quality_over_time(runs: Sequence[PlannedRun], rows: Sequence[Row], path: Path) -> bool:
    """Writes the panels as a PNG; False, and no file, where there is no line to draw."""
    panels = lines_by_size(runs, rows)
    if not panels:
        return False
    from matplotlib.figure import Figure

    from distill.reports.plot_axes import round_ticks

    figure = Figure(figsize=(5.2 * len(panels), 4.2), layout="constrained", dpi=110)
    colors = {arm: f"C{number}" for number, arm in enumerate(dict.fromkeys(row.arm for row in rows))}
    for axes, (size, lines) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        for line in lines:
            label = f"{line.arm}, to {REFERENCES[line.reference]}"
            style = {"color": colors[line.arm], "linestyle": _STYLES.get(line.reference, ":")}
            axes.plot(line.seconds, line.psnr, marker="o", markersize=3, linewidth=1.2, label=label, **style)
        axes.set_xscale("log")
        round_ticks(axes.xaxis)
        axes.set_title(f"{size}: PSNR of held-out views, dB", fontsize=10)
        axes.set_xlabel("training time, s", fontsize=9)
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return True
