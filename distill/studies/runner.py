"""Runs a study's runs one after another, each in a process of its own, and keeps the table up to date.

A process of its own starts every run from the same state, so that its times do not depend on the runs before it; the
compiled kernels are on disk and are not compiled again.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from distill.studies.outcome import Outcome, read_outcome
from distill.studies.study_plan import PlannedRun, StudyPlan
from distill.studies.study_table import csv_columns, csv_rows, markdown, spoiled, summarize
from machine.files import write_atomically, write_csv
from machine.interrupts import Interrupt
from machine.run_folder import RunFolder
from settings.errors import ExitCode, InputError
from settings.loading import REPO_ROOT, to_yaml

_ENTRY = REPO_ROOT / "lego_response_distill.py"
_FINISHED = {ExitCode.DONE: "done", ExitCode.DIVERGED: "diverged", ExitCode.COLLAPSED: "collapsed"}
_TAIL = 4000
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
        """Sees to it that no run would go on with, or be taken for, one of other settings.

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
            _log.info("deleting %s and %s: the settings are others now", folder.results, folder.logs)
            shutil.rmtree(folder.results)
            shutil.rmtree(folder.logs, ignore_errors=True)

    def state(self, run: PlannedRun) -> RunState:
        """Of a run that ``check`` has passed."""
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
            status, output = self._execute(run)
            remark = _last_error(output)
            if status not in _FINISHED or (status == ExitCode.DIVERGED and not remark):
                if status not in (ExitCode.BAD_INPUT, ExitCode.MACHINE_FAILED) and status <= 128:
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
        write_csv(self.folder / "table.csv", csv_rows(study, rows), csv_columns(study))

    def _execute(self, run: PlannedRun) -> tuple[int, str]:
        """Trains and evaluates; returns the exit status and the end of what it printed."""
        config = self.folder / "configs" / f"{run.config.run}.yaml"
        write_atomically(config, to_yaml(run.config))
        going_on = ["--resume", "auto"] if self.state(run) is RunState.STARTED else []
        self._save_record(run, _Record(run.fingerprint))
        command = [sys.executable, str(_ENTRY), "--config", str(config), "--output", str(self.root), *going_on]
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
    """Runs a command; what it prints goes to stderr and to ``log``, a signal to it, so that it saves and ends."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # In a session of its own the terminal's Ctrl-C reaches it only through us, once: two would end it unsaved.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    output = bytearray()
    pump = threading.Thread(target=_pump, args=(process, log, output), daemon=True)
    told = False
    try:
        with Interrupt() as interrupt:
            pump.start()
            while not _ended(process):
                if interrupt.asked and not told:
                    process.send_signal(interrupt.signal)
                    told = True
            status = 128 + interrupt.signal if interrupt.asked else process.returncode
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        pump.join()
    return status, output.decode("utf-8", errors="replace")


def _ended(process: subprocess.Popen, seconds: float = 0.2) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _pump(process: subprocess.Popen, log: Path, output: bytearray) -> None:
    with open(log, "ab") as file:
        while chunk := process.stdout.read1(65536):
            file.write(chunk)
            file.flush()
            sys.stderr.write(chunk.decode("utf-8", errors="replace"))
            sys.stderr.flush()
            output.extend(chunk)
            del output[:-_TAIL]


def _last_error(output: str) -> str:
    """What a run says of its own failure: the last ``error: ...``, or the sentence that says it collapsed."""
    for line in reversed(output.splitlines()):
        for start in ("error: ", "COLLAPSED: "):
            if line.startswith(start):
                return line.removeprefix(start)
    return ""
