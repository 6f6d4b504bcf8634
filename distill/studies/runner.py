"""Runs a study's runs one after another, each in a process of its own, and keeps the table up to date.

A process of its own starts every run from the same state, so that its times do not depend on the runs before it; the
compiled kernels are on disk and are not compiled again.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from distill.executors.job import PROGRAM, Job, Ledger, last_error, printed
from distill.executors.local import run_local
from distill.studies.outcome import Outcome, read_outcome
from distill.studies.study_plan import PlannedRun, StudyPlan
from distill.studies.study_plot import draw_quality_over_time
from distill.studies.study_table import csv_columns, csv_rows, markdown, spoiled, summarize
from machine.files import write_atomically, write_csv
from machine.interrupts import Stopped
from machine.run_folder import RunFolder
from settings.errors import ExitCode, InputError
from settings.executors import ExecutorConfig
from settings.loading import to_yaml

_FINISHED = {ExitCode.DONE: "done", ExitCode.DIVERGED: "diverged", ExitCode.COLLAPSED: "collapsed"}
_log = logging.getLogger(__name__)


class RunState(Enum):
    """How far a run is."""

    NEW = "to run"
    STARTED = "to go on with"
    FINISHED = "finished"


@dataclass(frozen=True)
class _Record:
    """``study_run.json`` in the run's results folder: written before the run, completed after it."""

    fingerprint: str
    status: str | None = None
    remark: str = ""


class StudyRunner:
    """Runs what is not finished yet.

    Args:
        plan: the study.
        root: where ``results/`` and ``logs/`` are.
        command: how a reader of the table can make it again.
    """

    def __init__(self, plan: StudyPlan, root: Path, command: str) -> None:
        self.plan, self.root, self.command = plan, root, command
        self.folder = plan.folder(root)

    def check(self, replace: bool = False) -> None:
        """Refuses run folders that hold a run of other settings, which would be gone on with or taken for the study's.

        Args:
            replace: delete the folders of this study's runs whose settings were others.

        Raises:
            InputError: there is such a run, and it is not to be replaced or not a study's.
        """
        stale = [run for run in self.plan.runs if self._is_stale(run)]
        if not stale:
            return
        folders = [RunFolder(run.config, self.root) for run in stale]
        if not replace:
            found = f"{len(stale)} runs of other settings, this one the first"
            hint = "Use --replace to delete those and run them again, or give the study another name."
            raise InputError(folders[0].results, "study_run.json", found, "the study's settings", hint)
        for folder in folders:
            _log.info("deleting %s and %s: their settings have changed since", folder.results, folder.logs)
            shutil.rmtree(folder.results)
            shutil.rmtree(folder.logs, ignore_errors=True)

    def state(self, run: PlannedRun) -> RunState:
        """How far a run is that ``check`` has passed."""
        record = self._record(run)
        if record is None:
            return RunState.NEW
        return RunState.STARTED if record.status is None else RunState.FINISHED

    def run(self) -> int:
        """Runs what is not finished; the tables are written after each run.

        Returns:
            0, or the exit status of the run that stopped the study: interrupted, bad input, or a crash.
        """
        self._write_tables()
        for number, run in enumerate(self.plan.runs, 1):
            place = f"run {number} of {len(self.plan.runs)}: {run.config.run}"
            if self.state(run) is RunState.FINISHED:
                _log.info("%s: finished before", place)
                continue
            _log.info("%s", place)
            try:
                status, output = self._execute(run)
            except Stopped as stop:
                _log.warning("stopped in %s: the same command goes on with it", run.config.run)
                return stop.status
            remark = last_error(output)
            if status not in _FINISHED or (status == ExitCode.DIVERGED and not remark):
                if status not in (ExitCode.BAD_INPUT, ExitCode.MACHINE_FAILED):
                    _log.error("%s ended with exit status %d; see %s", run.config.run, status, self._console(run))
                return status
            self._save_record(run, _Record(run.fingerprint, _FINISHED[status], remark))
            self._write_tables()
        for sentence in spoiled(self.plan.study, summarize(self.plan.study, self.outcomes())):
            _log.warning("%s", sentence)
        return ExitCode.DONE

    def outcomes(self) -> list[Outcome]:
        """Of the finished runs.

        Raises:
            InputError: files of a finished run are missing or damaged.
        """
        found = []
        for run in self.plan.runs:
            record = self._record(run)
            if record is not None and record.status is not None:
                metrics = self.plan.study.metrics
                found.append(read_outcome(run, self.root, record.status, record.remark, metrics))
        return found

    def table(self) -> str:
        """Of the finished runs, as Markdown."""
        return markdown(self.plan.study, summarize(self.plan.study, self.outcomes()), self.command)

    def _write_tables(self) -> None:
        study, rows = self.plan.study, summarize(self.plan.study, self.outcomes())
        write_atomically(self.folder / "table.md", markdown(study, rows, self.command))
        write_csv(self.folder / "table.csv", csv_rows(rows), csv_columns(study))
        draw_quality_over_time(self.plan.runs, rows, self.folder / "quality_over_time.png")

    def _execute(self, run: PlannedRun) -> tuple[int, str]:
        """Trains and evaluates; returns the exit status and the end of what it printed."""
        config = self.folder / "configs" / f"{run.config.run}.yaml"
        write_atomically(config, to_yaml(run.config))
        going_on = ["--resume", "auto"] if self.state(run) is RunState.STARTED else []
        self._save_record(run, _Record(run.fingerprint))
        command = [sys.executable, str(PROGRAM), "--config", str(config), "--output", str(self.root), *going_on]
        return _execute(command, self._console(run))

    def _is_stale(self, run: PlannedRun) -> bool:
        folder = RunFolder(run.config, self.root)
        record = self._record(run)
        if record is None:
            if folder.results.exists():
                hint = "Give the study another name, or move the folder away."
                raise InputError(folder.results, "folder", "a run that is no study's", "nothing, or a study's", hint)
            return False
        return record.fingerprint != run.fingerprint

    def _record_path(self, run: PlannedRun) -> Path:
        return RunFolder(run.config, self.root).results / "study_run.json"

    def _record(self, run: PlannedRun) -> _Record | None:
        path = self._record_path(run)
        if not path.exists():
            return None
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            return _Record(**found)
        except (OSError, ValueError, TypeError) as error:
            hint = "Delete the run's folder to run it again."
            raise InputError(path, "text", f"something unreadable ({error})", "what a study wrote", hint) from error

    def _save_record(self, run: PlannedRun, record: _Record) -> None:
        write_atomically(self._record_path(run), json.dumps(vars(record), indent=2) + "\n")

    def _console(self, run: PlannedRun) -> Path:
        return RunFolder(run.config, self.root).logs / "console.log"


def _execute(command: list[str], log: Path) -> tuple[int, str]:
    """Runs a command; what it prints goes to ``log`` and to stderr, a signal to it, so that it saves and ends.

    Returns:
        Its exit status, and the end of what it printed.

    Raises:
        Stopped: a signal.
    """
    echo = _Echo(log)
    start, job = echo.position, Job(log.parent.name, command, Path.cwd(), log)
    ledger = Ledger([job], refresh=echo)
    try:
        run_local([job], ExecutorConfig(workers=1, retries=0), log.parent, ledger)
    finally:
        echo()
    return ledger[job].status, printed(log, start)


class _Echo:
    """Copies to stderr what is added to a file.

    Attributes:
        position: up to where it has been copied, bytes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.position = path.stat().st_size if path.exists() else 0

    def __call__(self) -> None:
        with open(self._path, "rb") as file:
            file.seek(self.position)
            sys.stderr.write(file.read().decode("utf-8", errors="replace"))
            sys.stderr.flush()
            self.position = file.tell()
