"""A verdict as text: one sentence, then the table of what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distill.alignment.depth_reading import DepthReading
from distill.alignment.diagnosis import STUDENT, Verdict
from distill.alignment.hypotheses import Cause
from distill.alignment.planted_mistakes import Fault
from distill.reports.markdown_table import markdown_table
from teacher.depth import DepthKind


class Planted(NamedTuple):
    """A mistake made on purpose, and what was said of it."""

    fault: Fault
    verdict: Verdict

    @property
    def is_named(self) -> bool:
        """Whether the right cause was named."""
        return self.verdict.cause == self.fault.cause


def verdict_text(verdict: Verdict) -> str:
    """Pass or fail, the cause, its evidence and what to change."""
    gate = verdict.gate
    blank = f"a blank picture has {gate.psnr_blank:.2f} dB"
    figures = f"{gate.psnr:.2f} dB, the gate is {verdict.threshold:g} dB; {blank}"
    if not verdict.passed and gate.psnr >= verdict.threshold:
        why = "is no more than a blank picture" if verdict.subject == STUDENT else "Gaussians should fit their pictures"
        figures = f"{gate.psnr:.2f} dB passes the gate of {verdict.threshold:g} dB, but {why}; {blank}"
    lines = [f"{'PASS' if verdict.passed else 'FAIL'}: {figures}."]
    if verdict.cause == Cause.NONE:
        lines.append(f"Nothing wrong: {verdict.sentence}.")
    else:
        intro = "It passes, but something is wrong" if verdict.passed else "Likeliest cause"
        lines.append(f"{intro}: {verdict.cause.value}: {verdict.sentence}.")
        lines.append(verdict.advice)
    return "\n".join(lines)


def trials_table(verdict: Verdict, size: tuple[int, int]) -> str:
    """Every mistake that was tried, the best first, with the PSNR that undoing it gives; Markdown.

    Args:
        size: (width, height) at which they were tried, pixels.
    """
    gaussians = "teacher's Gaussians, dB"
    subjects = [("student, dB" if verdict.subject == STUDENT else gaussians, verdict.student)]
    if verdict.witness is not None:
        subjects.append((gaussians, verdict.witness))
    figures = [{trial.hypothesis.name: trial for trial in one.trials} for _, one in subjects]
    names = list(dict.fromkeys(name for column in figures for name in column))
    names.sort(key=lambda name: -max(column[name].psnr for column in figures if name in column))
    rows = []
    for name in names:
        cells = []
        for column, (_, one) in zip(figures, subjects, strict=True):
            trial = column.get(name)
            mark = " <- fits" if trial is not None and trial is one.likeliest else ""
            cells.append("" if trial is None else f"{trial.psnr:.2f}{mark}")
        cause = next(column[name] for column in figures if name in column).hypothesis.cause
        rows.append([name, "" if cause == Cause.NONE else cause.value, *cells])
    return markdown_table([f"supposing that (at {size[0]}x{size[1]})", "cause", *(name for name, _ in subjects)], rows)


def depth_table(readings: Sequence[DepthReading], used: DepthKind) -> str:
    """The depth files as each kind; Markdown."""
    rows = [
        [f"{one.kind.value}{' (in use)' if one.kind == used else ''}", _percent(one.error), _percent(one.error_partial)]
        for one in readings
    ]
    return markdown_table(["depth read as", "median error", "at partly covered pixels"], rows)


def planted_table(planted: Sequence[Planted]) -> str:
    """What each mistake scores and what is said of it; Markdown, and how many were named right."""
    rows = []
    for fault, verdict in planted:
        one = verdict.student if verdict.student.likeliest is not None else verdict.witness
        likeliest = None if one is None else one.likeliest
        undone = "" if likeliest is None else f"{likeliest.psnr:.2f}"
        said = verdict.cause.value if verdict.cause == fault.cause else f"{verdict.cause.value} (wrong)"
        detail = likeliest.hypothesis.name if likeliest is not None else verdict.sentence
        gate = verdict.gate
        rows.append([fault.what, f"{gate.psnr:.4f}", f"{gate.psnr_blank:.4f}", said, detail, undone])
    header = ["planted", "PSNR, dB", "blank, dB", "cause named", "evidence", "undone, dB"]
    right = sum(one.is_named for one in planted)
    return f"{markdown_table(header, rows)}\n\n{right} of {len(planted)} named right."


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
