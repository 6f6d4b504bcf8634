"""Runs of the program before this one, whose evaluator left ``metrics_summary.csv`` and ``metrics_white.json``.

Its first version measured sRGB values, as this program does. The one that also wrote ``psnr_foreground`` took squared
errors, SSIM and LPIPS of linear RGB, which is another quantity: those runs have a stage of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from distill.reports.dashboard.run_files import Problems, Row, read_mapping, read_rows
from distill.reports.dashboard.run_records import Evaluation, Run
from distill.reports.dashboard.stages import LINEAR, stage_of, student_of

SUMMARY = "metrics_summary.csv"
_JSON = re.compile(r"metrics_(white|black)\.json")
_STEPS = (re.compile(r"step_?0*(\d+)(k?)"), re.compile(r"(?<!\d)(\d+)(k)(?![a-z])"))
_FIGURES = {"psnr": "psnr", "ssim": "ssim", "lpips": "lpips_vgg", "psnr_foreground": "psnr_foreground"}
_SPEED = {"avg_fps": "avg_fps", "fps": "avg_fps", "gpu_peak_gib": "gpu_peak_gib", "power_avg_w": "power_avg_w"}


def read_older_runs(root: Path, problems: Problems) -> list[Run]:
    """Every method of a summary in ``root``, ``logs/`` or ``results/``, and every JSON in the latter two, by name."""
    runs = []
    for path in _files(root):
        if path.name == SUMMARY:
            runs += _of_summary(path, root, problems)
        else:
            content = read_mapping(path, problems)
            row = _row(content, "", _JSON.fullmatch(path.name)[1])
            if row is not None:
                runs.append(_run(_place(path, root), [row], "psnr_foreground" in content))
    return sorted(runs, key=lambda run: run.key)


def _files(root: Path) -> Iterator[Path]:
    if (root / SUMMARY).is_file():
        yield root / SUMMARY
    for tree in ("logs", "results"):
        for path in sorted((root / tree).rglob("metrics_*")):
            if path.name == SUMMARY or _JSON.fullmatch(path.name):
                yield path


def _of_summary(path: Path, root: Path, problems: Problems) -> Iterator[Run]:
    for line in read_rows(path, problems, ("method", "psnr_white")):
        rows = [row for background in ("white", "black") if (row := _row(line, f"_{background}", background))]
        if line.get("method") and rows:
            yield _run(_place(path, root) / str(line["method"]), rows, line.get("psnr_foreground") is not None)


def _place(path: Path, root: Path) -> Path:
    """The file's folder, as seen from ``logs/`` or ``results/``."""
    return Path(*path.parent.relative_to(root).parts[1:])


def _row(content: dict[str, Any], ending: str, background: str) -> Row | None:
    """A row as this program's evaluations have it; None without a PSNR."""
    figures = {new: content.get(old + ending, content.get(old)) for old, new in _FIGURES.items()}
    figures |= {new: content[old] for old, new in _SPEED.items() if old in content}
    row: Row = {name: float(value) for name, value in figures.items() if _is_number(value)}
    return row | {"reference": "teacher", "background": background} if "psnr" in row else None


def _run(name: Path, rows: list[Row], linear: bool) -> Run:
    words = name.as_posix()
    match = next(filter(None, (pattern.search(words) for pattern in _STEPS)), None)
    step = None if match is None else int(match[1]) * (1000 if match[2] else 1)
    return Run(
        scene=name.parent.as_posix() if name.parent != Path() else "",
        name=name.name,
        stage=LINEAR if linear else stage_of({}, words, fitted=False),
        student=student_of({}, words),
        width=None,
        training=[],
        evaluations=[Evaluation(step, "", rows, [], [], [])],
        size_mib=None,
        parameters=None,
        versions={},
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
