"""What files of several forms and sizes show, as a table, a plot and a sentence that says which form to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.reports.markdown_table import REFERENCES, escape_markdown, markdown_table
from machine.files import atomic_path
from machine.memory import MIB

FIGURES = {"psnr": ("PSNR, dB", ".2f"), "ssim": ("SSIM", ".4f"), "lpips_vgg": ("LPIPS (VGG)", ".4f")}
COLUMNS = (
    *("form", "what", "bytes", "fps_median"),
    *(f"{figure}_{reference}" for reference in REFERENCES for figure in FIGURES),
    *(f"pareto_{reference}" for reference in REFERENCES),
)


@dataclass(frozen=True)
class RatePoint:
    """A file.

    Attributes:
        form: what kind of file, ``student hash_grid`` or ``.spz``.
        what: how it was made, for a person.
        size: bytes.
        figures: by reference and metric, means over the held-out frames; None: not measured.
        fps: median frames/s.
    """

    form: str
    what: str
    size: int
    figures: dict[str, dict[str, float | None]]
    fps: float

    def psnr(self, reference: str) -> float:
        """dB against a reference that there is."""
        return self.figures[reference]["psnr"]

    def text(self) -> str:
        """A line for a person."""
        return f"{self.form}, {self.what}: {self.size / MIB:.3f} MiB, {self.psnr('teacher'):.2f} dB"


def pareto(points: Sequence[RatePoint], reference: str) -> list[RatePoint]:
    """The points no smaller or equal one of which is as good in PSNR, from small to large."""
    best, found = float("-inf"), []
    for point in sorted(points, key=lambda point: (point.size, -point.psnr(reference))):
        if point.psnr(reference) > best:
            best = point.psnr(reference)
            found.append(point)
    return found


def which_form(points: Sequence[RatePoint], reference: str) -> str:
    """A sentence: from which size on which form has the best PSNR."""
    parts, last = [], None
    for point in pareto(points, reference):
        if point.form != last:
            parts.append(f"{point.form} from {point.size / MIB:.3g} MiB ({point.psnr(reference):.2f} dB there)")
            last = point.form
    return f"Best PSNR against {REFERENCES[reference]} for its size: {', '.join(parts)}."


def rows_of(points: Sequence[RatePoint]) -> list[dict[str, object]]:
    """A dict of ``COLUMNS`` per point, from small to large; what was not measured is None."""
    references = _references(points)
    fronts = {reference: pareto(points, reference) for reference in references}
    rows = []
    for point in sorted(points, key=lambda point: point.size):
        row: dict[str, object] = {"form": point.form, "what": point.what, "bytes": point.size, "fps_median": point.fps}
        for reference in references:
            row |= {f"{name}_{reference}": point.figures[reference].get(name) for name in FIGURES}
            row[f"pareto_{reference}"] = any(point is other for other in fronts[reference])
        rows.append(dict.fromkeys(COLUMNS) | row)
    return rows


def markdown(points: Sequence[RatePoint], title: str, about: str) -> str:
    """The table for people; Pareto points are bold."""
    references = _references(points)
    header = ["form", "how it was made", "bytes", "MiB", "frames/s"]
    header += [f"{label}, to {REFERENCES[reference]}" for reference in references for label, _ in FIGURES.values()]
    lines = []
    for row in rows_of(points):
        cells = [escape_markdown(str(row["form"])), escape_markdown(str(row["what"])), f"{row['bytes']:,}"]
        cells += [f"{row['bytes'] / MIB:.3f}", f"{row['fps_median']:.3g}"]
        for reference in references:
            for name, (_, spec) in FIGURES.items():
                value = row[f"{name}_{reference}"]
                text = "" if value is None else f"{value:{spec}}"
                cells.append(f"**{text}**" if name == "psnr" and row[f"pareto_{reference}"] else text)
        lines.append(cells)
    sentences = "\n\n".join(which_form(points, reference) for reference in references)
    bold = "Bold: no smaller file has as much PSNR."
    return f"# {title}\n\n{about} {bold}\n\n{sentences}\n\n{markdown_table(header, lines, '---')}\n"


def draw(points: Sequence[RatePoint], path: Path) -> None:
    """Writes a PNG: PSNR over bytes, a panel for each reference, Pareto points ringed."""
    from matplotlib.figure import Figure

    from distill.reports.plot_axes import round_ticks

    references = _references(points)
    figure = Figure(figsize=(6 * len(references), 4.5), layout="constrained", dpi=110)
    for axes, reference in zip(figure.subplots(1, len(references), squeeze=False).flat, references, strict=True):
        for form in dict.fromkeys(point.form for point in points):
            chosen = sorted((point for point in points if point.form == form), key=lambda point: point.size)
            sizes = [point.size / MIB for point in chosen]
            axes.plot(sizes, [point.psnr(reference) for point in chosen], "o", label=form, markersize=4)
        front = pareto(points, reference)
        sizes = [point.size / MIB for point in front]
        style = {"color": "black", "fillstyle": "none", "zorder": 0, "label": "no smaller file has as much"}
        axes.plot(sizes, [point.psnr(reference) for point in front], "o-", **style)
        axes.set_xscale("log")
        round_ticks(axes.xaxis)
        axes.set_xlabel("file, MiB")
        axes.set_ylabel(f"PSNR against {REFERENCES[reference]}, dB")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _references(points: Sequence[RatePoint]) -> list[str]:
    """Those that all points were measured against."""
    return [name for name in REFERENCES if all(name in point.figures for point in points)]
