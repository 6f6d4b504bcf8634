"""One view of all jobs: a table that is refreshed in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from distill.executors.job import Job, JobState, Phase
from machine.files import CsvRow, parse_csv
from machine.run_folder import RunFolder

_TAIL = 8192  # bytes, more than a row has
_PERIOD = {True: 1.0, False: 60.0}  # s, between refreshes on a terminal and elsewhere


@dataclass(frozen=True)
class Figures:
    """How far a run is, by its own log.

    Attributes:
        step, steps: done, and at most to do.
        psnr: of the last logged step's rays, dB.
        seconds_left: of training, at the pace so far.
    """

    step: int
    steps: int
    psnr: float
    seconds_left: float


def figures(run: RunFolder) -> Figures | None:
    """Of a run; None: it has logged nothing yet that can be read."""
    with suppress(OSError, KeyError, TypeError, ValueError):  # it may be written at this moment
        row = _last_row(run.training_csv)
        train, step, seconds = run.config.train, int(row["step"]), float(row["wall_s"])
        done = max(step / train.max_steps, seconds / train.max_seconds if train.max_seconds else 0)
        return Figures(step, train.max_steps, float(row["psnr_batch"]), max(0, seconds * (1 / done - 1)))
    return None


def _last_row(path: Path) -> CsvRow:
    with open(path, "rb") as file:
        header, end = file.readline(), file.seek(0, 2)
        file.seek(max(len(header), end - _TAIL))
        whole = file.read().rpartition(b"\n")[0].splitlines()
    return list(parse_csv((header + whole[-1] + b"\n").decode()).rows.values())[-1] if whole else {}


class ProgressView:
    """Shows on stderr how far the jobs are."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._states = {job.name: JobState() for job in jobs}
        self._stream, self._is_terminal = sys.stderr, sys.stderr.isatty()
        self._lines = 0  # of the table that is shown
        self._shown_at = time.monotonic()

    def changed(self, job: Job, state: JobState) -> None:
        """Tells of a job's new state, in a line that stays."""
        self._states[job.name] = state
        self.clear()
        text = _change(state)
        if text and not (self._is_terminal and state.phase is Phase.RUNNING):
            self._write(f"{job.name}: {text}\n")
        if self._is_terminal:
            self._shown_at = 0.0

    def refresh(self) -> None:
        """Shows how far all are, if it is time to."""
        if time.monotonic() - self._shown_at < _PERIOD[self._is_terminal]:
            return
        self._shown_at = time.monotonic()
        lines = self._table()
        if not self._is_terminal:
            self._write("".join(f"{line}\n" for line in lines))
            return
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for line in lines[: max(1, rows - 1)]]
        self.clear()
        self._write("".join(f"{line}\n" for line in lines))
        self._lines = len(lines)

    def clear(self) -> None:
        """Takes the table away from a terminal, so that something else can be printed."""
        if self._lines:
            self._write(f"\x1b[{self._lines}F\x1b[J")
            self._lines = 0

    def _table(self) -> list[str]:
        counts = Counter(state.phase for state in self._states.values())
        told = ", ".join(f"{counts[phase]} {phase.value}" for phase in Phase if counts[phase])
        running = [name for name, state in self._states.items() if state.phase is Phase.RUNNING]
        width = max(map(len, running), default=0)
        rows = [f"{name:<{width}}  {self._row(name)}" for name in running]
        return [f"{len(self._states)} jobs: {told}", *rows]

    def _row(self, name: str) -> str:
        job, attempts = self._jobs[name], self._states[name].attempts
        found = None if job.run is None else figures(job.run)
        cells = ["running"]
        if found is not None:
            left = f"{timedelta(seconds=round(found.seconds_left))} left" if found.seconds_left else "measuring"
            cells = [f"step {found.step:>6} of {found.steps}", f"psnr {found.psnr:5.2f}", left]
        return "  ".join([*cells, *([f"attempt {attempts}"] if attempts > 1 else [])])

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _change(state: JobState) -> str:
    """What to say of a new state; empty: nothing."""
    if state.phase is Phase.RUNNING:
        return "started" if state.attempts <= 1 else f"started again, attempt {state.attempts}"
    if state.phase is Phase.WAITING:
        return f"interrupted: {state.reason}" if state.reason else ""
    return "done" if state.phase is Phase.DONE else f"failed: {state.reason}"
