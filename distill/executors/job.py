"""A job, how far it is, and what becomes of one that has ended: the same for all executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from machine.run_folder import RunFolder
from settings.errors import ExitCode
from settings.loading import REPO_ROOT

PROGRAM = REPO_ROOT / "lego_response_distill.py"
"""Trains a run; jobs that do are commands of it."""
KILLED = 137
"""Exit status of what SIGKILL ended, or what could not say how it ended."""
_TAIL = 4000  # bytes
_ERRORS = ("error: ", "COLLAPSED: ")


@dataclass(frozen=True)
class Job:
    """A command that may be run again after it was killed: then it goes on where it was (``--resume auto``).

    Attributes:
        name: of the job, different from all others'.
        command: program and arguments.
        folder: where it runs.
        log: file that what it prints is added to.
        cores: CPU cores that it computes on; None: as the executor's settings say.
        run: the run that it trains, whose figures tell how far it is; None: nothing tells.
    """

    name: str
    command: Sequence[str]
    folder: Path
    log: Path
    cores: int | None = None
    run: RunFolder | None = None


class Phase(str, Enum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class JobState:
    """How far a job is.

    Attributes:
        phase: waiting for its turn, also after it was interrupted; running; done; failed for good.
        attempts: how many times it was started.
        status: exit status of the last attempt that has ended, 128 and the signal's number where one ended it.
        reason: why that attempt was no success, one sentence.
    """

    phase: Phase = Phase.WAITING
    attempts: int = 0
    status: int | None = None
    reason: str = ""

    def started(self) -> JobState:
        """Of the job when it has been started once more."""
        return replace(self, phase=Phase.RUNNING, attempts=self.attempts + 1)

    def ended(self, status: int, reason: str, again: bool) -> JobState:
        """Of the job when an attempt has ended, which may have been too short to be seen running.

        Args:
            status: exit status, 128 and the signal's number where one ended it.
            reason: why, where it is not 0.
            again: whether it may be run again; only after a signal it is.
        """
        state = self if self.phase is Phase.RUNNING else self.started()
        if status == ExitCode.DONE:
            return replace(state, phase=Phase.DONE, status=status, reason="")
        phase = Phase.WAITING if again and died(status) else Phase.FAILED
        return replace(state, phase=phase, status=status, reason=reason)


class Ledger:
    """The states of all jobs; tells of each change.

    Args:
        jobs: their names are different.
        on_state: called when a job's state has changed.
        refresh: called a few times a second while jobs run.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        on_state: Callable[[Job, JobState], None] = lambda job, state: None,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._states = {job.name: JobState() for job in jobs}
        if len(self._states) < len(jobs):
            raise ValueError(f"jobs of the same name among {[job.name for job in jobs]}")
        self._on_state, self.refresh = on_state, refresh

    @property
    def states(self) -> Mapping[str, JobState]:
        """By the jobs' names."""
        return self._states

    def __getitem__(self, job: Job) -> JobState:
        return self._states[job.name]

    def __setitem__(self, job: Job, state: JobState) -> None:
        if state != self._states[job.name]:
            self._states[job.name] = state
            self._on_state(job, state)


def died(status: int) -> bool:
    """Whether a signal ended a program, by its exit status as shells count it; all others are its own decision."""
    return status > 128


def failure(job: Job, status: int, start: int = 0) -> str:
    """Why a job ended with a status that is not 0: its own last error, or where to look.

    Args:
        start: size of the log when that attempt began, bytes.
    """
    how = f"by signal {status - 128}" if died(status) else f"with exit status {status}"
    return last_error(printed(job.log, start)) or f"ended {how}; see {job.log}"


def last_error(text: str) -> str:
    """What a program that printed this says of its own failure: the last ``error: ...``, or the sentence that says it
    collapsed; else nothing.
    """
    for line in reversed(text.splitlines()):
        for beginning in _ERRORS:
            if line.startswith(beginning):
                return line.removeprefix(beginning)
    return ""


def printed(log: Path, start: int = 0) -> str:
    """The end of what was added to a log since it had so many bytes."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, file.seek(0, 2) - _TAIL))
            return file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
