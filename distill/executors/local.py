"""Runs jobs as processes of this machine, a few at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from distill.executors.job import Job, Ledger, Phase, failure
from distill.executors.processes import exit_status, start, thread_limits
from kernels.threads import available_threads
from machine.interrupts import Interrupt, Stopped
from settings.executors import ExecutorConfig

_POLL = 0.1  # s


def run_local(jobs: Sequence[Job], settings: ExecutorConfig, _: Path, ledger: Ledger) -> None:
    """Runs jobs to their ends, at most ``settings.workers`` at a time.

    A signal that asks this process to stop is passed on to the jobs, once, and their ends are waited for; the third
    one kills them. Should this process be killed, the jobs are sent SIGTERM (on Linux).

    Raises:
        Stopped: a signal asked for it; jobs that it ended are waiting again.
        OSError: a folder or a log cannot be used.
    """
    with Interrupt() as interrupt:
        pool = _Pool(settings, ledger)
        try:
            waiting = deque(jobs)
            while pool.running or (waiting and not interrupt.asked):
                while waiting and pool.free and not interrupt.asked:
                    pool.start(waiting.popleft())
                time.sleep(_POLL)
                if interrupt.asked:
                    pool.pass_on(interrupt.signal)
                waiting.extendleft(pool.take_ended(interrupt.asked))
                ledger.refresh()
        finally:
            pool.kill()
    if interrupt.asked:
        raise Stopped(interrupt.signal)


@dataclass
class _Attempt:
    """A job's process, the place of the pool that it takes, and where in the log its output begins, bytes."""

    job: Job
    process: subprocess.Popen
    place: int
    log_start: int


class _Pool:
    """The processes that run at a time.

    Attributes:
        running: their attempts.
        free: places that nothing runs in.
    """

    def __init__(self, settings: ExecutorConfig, ledger: Ledger) -> None:
        self._settings, self._ledger, self._gpus = settings, ledger, _visible_gpus()
        workers = settings.workers or len(self._gpus) or max(1, available_threads() // 2)
        self._cores = settings.cores or (max(1, available_threads() // workers) if workers > 1 else None)
        self.running: list[_Attempt] = []
        self.free = list(range(workers))
        self._passed_on = False

    def start(self, job: Job) -> None:
        """Starts a job in a free place."""
        variables = thread_limits(job.cores or self._cores)
        if len(self._gpus) > 1:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpus[self.free[0] % len(self._gpus)]
        log_start = job.log.stat().st_size if job.log.exists() else 0
        process = start(job.command, job.folder, job.log, variables, signal.SIGTERM)
        self.running.append(_Attempt(job, process, self.free.pop(0), log_start))
        self._ledger[job] = self._ledger[job].started()

    def pass_on(self, number: int) -> None:
        """Sends a signal to all, the first time."""
        if not self._passed_on:
            self._passed_on = True
            for attempt in self.running:
                attempt.process.send_signal(number)

    def take_ended(self, interrupted: bool) -> list[Job]:
        """The jobs among those that have ended that are to be run again; ``interrupted``: however often they were."""
        again = []
        for attempt in [attempt for attempt in self.running if attempt.process.poll() is not None]:
            self.running.remove(attempt)
            self.free.append(attempt.place)
            job, status = attempt.job, exit_status(attempt.process.returncode)
            state = self._ledger[job]
            reason = failure(job, status, attempt.log_start) if status else ""
            state = state.ended(status, reason, interrupted or state.attempts <= self._settings.retries)
            self._ledger[job] = state
            if state.phase is Phase.WAITING:
                again.append(job)
        return again

    def kill(self) -> None:
        """Ends what still runs at once."""
        for attempt in self.running:
            attempt.process.kill()
        for attempt in self.running:
            attempt.process.wait()
        self.take_ended(interrupted=True)


def _visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(torch.cuda.device_count())) if named is None else named.split(",")
    return [name for name in names if name.strip()]
