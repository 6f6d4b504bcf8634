"""What came out of a study's runs, read from the files that the runs wrote."""

from __future__ import annotations

import json
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from distill.studies.study_plan import PlannedRun
from machine.files import CsvRow, read_csv
from machine.run_folder import RunFolder
from settings.errors import InputError

Figure = tuple[str, str]
"""Metric and reference; an empty reference for what has none."""

STEPS, SECONDS, RATE = ("steps", ""), ("seconds", ""), ("samples_per_s", "")
RAYS, PER_RAY = ("rays_per_s", ""), ("samples_per_ray", "")


@dataclass(frozen=True)
class Outcome:
    """One finished run.

    Attributes:
        figures: holdout means by metric and reference, and ``STEPS``, ``SECONDS`` (of training), ``RATE`` and ``RAYS``
            (samples and rays per s of training), ``PER_RAY`` (samples), means over the logged steps; what was not
            measured is absent.
        remark: of a run that diverged or collapsed, the program's own words.
        made_with: device, torch and commit, as the run recorded them.
    """

    arm: str
    budget: str
    seed: int
    status: Literal["done", "collapsed", "diverged"]
    figures: dict[Figure, float] = field(default_factory=dict)
    remark: str = ""
    made_with: str = ""


def read_outcome(run: PlannedRun, root: Path, status: str, remark: str, metrics: Sequence[str]) -> Outcome:
    """The figures of a run that ended with ``status``.

    Raises:
        InputError: a file that the run should have written is not there or not what it was.
    """
    folder = RunFolder(run.config, root)
    figures = {} if status == "diverged" else _training(folder)
    if figures:
        figures |= _evaluation(folder.eval_csv(int(figures[STEPS])), metrics, run.config.taught_by_images)
    return Outcome(run.arm, run.budget, run.seed, status, figures, remark, _made_with(folder))


def _training(folder: RunFolder) -> dict[Figure, float]:
    path = folder.training_csv
    rows = _rows(path)
    try:
        rays, per_ray = ([float(row[name]) for row in rows] for name, _ in (RAYS, PER_RAY))
        rates = map(operator.mul, rays, per_ray)
        means = {RATE: statistics.mean(rates), RAYS: statistics.mean(rays), PER_RAY: statistics.mean(per_ray)}
        return {STEPS: float(rows[-1]["step"]), SECONDS: float(rows[-1]["wall_s"]), **means}
    except (KeyError, ValueError, IndexError, TypeError) as error:
        found = f"something unreadable ({type(error).__name__}: {error})"
        raise InputError(path, "rows", found, "rows of training figures", _AGAIN) from error


def _evaluation(path: Path, metrics: Sequence[str], taught_by_images: bool) -> dict[Figure, float]:
    """The figures on held-out frames. An arm whose teacher is the images has ground truth alone: beside other arms'
    figures to their teacher its own would look like figures to the same pictures."""
    figures: dict[Figure, float] = {}
    for row in _rows(path):
        if row.get("split") != "holdout":
            continue
        for metric in metrics:
            cell = row.get(metric)
            reference = "ground_truth" if taught_by_images else row["reference"]
            if cell:
                figures[(metric, "" if metric == "avg_fps" else reference)] = float(cell)
    return figures


_AGAIN = "Delete the run's folders in results/ and logs/ and run the study again."


def _rows(path: Path) -> list[CsvRow]:
    table = read_csv(path)
    if not table.header:
        raise InputError(path, "file", table.problems[0][1], "the CSV of a finished run", _AGAIN)
    return list(table.rows.values())


def _made_with(folder: RunFolder) -> str:
    try:
        found = json.loads(folder.versions_json.read_text(encoding="utf-8"))
        return f"{found['device_name']}, torch {found['torch']}, commit {found['git_commit'] or 'unknown'}"
    except (OSError, ValueError, KeyError) as error:
        raise InputError(folder.versions_json, "file", error, "what the run recorded", _AGAIN) from error
