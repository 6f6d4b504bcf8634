"""What an evaluation found: the columns of its CSVs, means over frames, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from distill.evaluation import metrics
from distill.evaluation.speed import frames_per_second
from settings.errors import ExitCode

Row = dict[str, object]
R = TypeVar("R", bound=Mapping[str, object])

METRICS = ("psnr", "ssim", "lpips_vgg", "psnr_foreground", "psnr_blank", "alpha_mean")
MORE_METRICS = ("lpips_alex", "depth_abs", "depth_rel", "alpha_iou", "flicker", "psnr_teacher")
LATEST_METRICS = ("psnr_silhouette", "coverage")
_SPEED = ("avg_fps", "gpu_peak_gib", "power_avg_w")
FIGURES = (*METRICS, *_SPEED, *MORE_METRICS, *LATEST_METRICS)
"""The columns that hold what was measured."""
EVAL_COLUMNS = (
    *("step", "split", "reference", "frames", *METRICS),
    *(*_SPEED, "collapsed"),
    *(*MORE_METRICS, "background", "width", "height"),
    *(*LATEST_METRICS, "verdict"),
)
FRAME_COLUMNS = (
    *("step", "frame", "name", "split", "reference", *METRICS, "render_s"),
    *(*MORE_METRICS, "background", "width", "height", *LATEST_METRICS),
)
COLLAPSED = "COLLAPSED"
REMEDY = "run tools/check_alignment.py"
_JUDGED_BY = ("psnr", "psnr_blank", "psnr_silhouette", "alpha_mean", "coverage")
_OF = {"teacher": "its teacher", "ground_truth": "ground truth"}


@dataclass(frozen=True)
class EvaluationResult:
    """What was measured.

    Args:
        rows: a dict of ``EVAL_COLUMNS`` per split and reference; None is not measured.
        frame_rows: a dict of ``FRAME_COLUMNS`` per frame and reference.
        collapsed: whether the student is no better than what needs no learning.
        evidence: one sentence with the figures that say so, or say that it is not.
    """

    rows: list[Row]
    frame_rows: list[Row]
    collapsed: bool
    evidence: str

    @property
    def status(self) -> ExitCode:
        """The exit status of a program that measures this."""
        return ExitCode.COLLAPSED if self.collapsed else ExitCode.DONE

    @property
    def is_far(self) -> bool:
        """Whether the student, though not collapsed, is far from what it is judged by."""
        return not self.collapsed and judged_row(self.rows)["verdict"] is not None

    def summary_text(self) -> str:
        """A table for the console, what could not be measured as ``-``, and the evidence below it."""
        titles = ("PSNR", "SSIM", "LPIPS", "PSNR fg", "PSNR blank", "PSNR teacher")
        lines = [_line("split", "reference", "frames", *titles)]
        for row in self.rows:
            cells = ((".2f", "psnr"), (".4f", "ssim"), (".4f", "lpips_vgg"), (".2f", "psnr_foreground"))
            cells = (*cells, (".2f", "psnr_blank"), (".2f", "psnr_teacher"))
            texts = [shown(row[name], spec) for spec, name in cells]
            word = (row["verdict"] or "").partition(":")[0]
            lines.append(_line(row["split"], row["reference"], row["frames"], *texts) + f"  {word}")
        last = self.rows[-1]
        speed = f"{last['avg_fps']:.3g} frames/s"
        memory = "" if last["gpu_peak_gib"] is None else f", GPU peak {last['gpu_peak_gib']:.2f} GiB"
        power = "" if last["power_avg_w"] is None else f", mean power {last['power_avg_w']:.0f} W"
        return "\n".join([*(line.rstrip() for line in lines), speed + memory + power, self.evidence])


@dataclass(frozen=True)
class GpuFigures:
    """Of rendering: most memory on the GPU in GiB, mean power in W; None where not measured."""

    peak_gib: float | None
    power_w: float | None


def overall_gpu(parts: Sequence[tuple[GpuFigures, float]]) -> GpuFigures:
    """Of several parts, each with the seconds it took: the highest peak, the mean power over time."""
    peaks = [part.peak_gib for part, _ in parts if part.peak_gib is not None]
    powers = [(part.power_w, seconds) for part, seconds in parts if part.power_w is not None]
    if not powers:
        return GpuFigures(max(peaks, default=None), None)
    watts, seconds = zip(*powers, strict=True)
    return GpuFigures(max(peaks, default=None), float(np.average(watts, weights=seconds)))


def summarize(frame_rows: Sequence[Row], split: str, reference: str, frames: Sequence[int], gpu: GpuFigures) -> Row:
    """One row of ``EVAL_COLUMNS``: means of the per-frame figures over those of ``frames`` that have one.

    Flicker counts where the frame before is one of ``frames`` too.
    """
    members = set(frames)
    chosen = [row for row in frame_rows if row["reference"] == reference and row["frame"] in members]
    row: Row = {"step": chosen[0]["step"], "split": split, "reference": reference, "frames": len(chosen)}
    for name in (*METRICS, *MORE_METRICS, *LATEST_METRICS):
        pairs = name == "flicker"
        measured = [
            frame[name] for frame in chosen if frame[name] is not None and (not pairs or frame["frame"] - 1 in members)
        ]
        row[name] = float(np.mean(measured)) if measured else None
    row["avg_fps"] = frames_per_second([frame["render_s"] for frame in chosen])
    row["gpu_peak_gib"], row["power_avg_w"] = gpu.peak_gib, gpu.power_w
    collapsed = metrics.is_collapsed(*(row[name] for name in _JUDGED_BY))
    row["collapsed"] = row["verdict"] = COLLAPSED if collapsed else None
    if not collapsed and metrics.is_far(row["psnr"], row["psnr_blank"], row["psnr_silhouette"]):
        row["verdict"] = f"far from {_OF[reference]}: {REMEDY}"
    return row | {name: chosen[0][name] for name in ("background", "width", "height")}


def judged_row(rows: Sequence[R]) -> R:
    """The row that a student is judged by: of held-out frames, against the teacher, or the next best there is."""
    return min(rows, key=lambda row: (row["reference"] != "teacher", row["split"] != "holdout"))


def verdict(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether the student collapsed, and the figures that say so."""
    row = judged_row(rows)
    psnr, blank = row["psnr"], row["psnr_blank"]
    of = "the teacher" if row["reference"] == "teacher" else "ground truth"
    figures = f"{row['split']} PSNR {psnr:.2f} dB against {of}"
    alpha = f"mean alpha {row['alpha_mean']:.3f}, {of}'s coverage {row['coverage']:.3f}"
    silhouette = f"{of}'s silhouette in one colour has {row['psnr_silhouette']:.2f} dB"
    if row["collapsed"] is None:
        text = f"{figures}, {psnr - blank:.2f} dB above a blank image ({blank:.2f} dB); {silhouette}; {alpha}."
        return False, text if row["verdict"] is None else f"{row['verdict'].capitalize()}. {text}"
    margin = metrics.COLLAPSE_MARGIN_DB
    place = "below that of" if psnr < blank - margin else f"within {margin} dB of"
    if psnr > blank + margin:
        place = f"{psnr - blank:.2f} dB above"
    return True, f"{COLLAPSED}: {figures} is {place} a blank image ({blank:.2f} dB); {silhouette}; {alpha}."


def _line(*cells: object) -> str:
    widths = (8, 13, 7, 8, 8, 8, 9, 11, 13)
    return "".join(
        f"{cell!s:{'<' if n < 2 else '>'}{width}}" for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def shown(value: object, spec: str) -> str:
    """A number as ``spec`` has it; ``-`` where it was not measured."""
    return "-" if value is None else format(value, spec)
