"""Runs jobs through Ray: a thin task each, which starts the command on a machine that has room and waits for its end.

The folders of the jobs, and the program, are at the same paths on all machines.
"""

from __future__ import annotations

import logging
import re
import socket
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.executors import processes
from distill.executors.job import KILLED, Job, Ledger, Phase, failure
from machine.interrupts import Interrupt, Stopped
from machine.memory import GIB
from settings.errors import ExitCode, InputError
from settings.executors import ExecutorConfig

_POLL, _PATIENCE = 0.5, 10.0  # s
_log = logging.getLogger(__name__)


def check_ray(settings: ExecutorConfig) -> None:
    """Raises ``InputError`` where Ray is not installed, or there is none at the address, if one is set."""
    ray = _imported()
    if settings.ray.address is not None and not ray.is_initialized():
        _connect(ray, settings)
        ray.shutdown()


def run_ray(jobs: Sequence[Job], settings: ExecutorConfig, _: Path, ledger: Ledger) -> None:
    """Runs jobs to their ends; should this process be killed, Ray and with it the jobs are.

    Ray itself retries nothing: a job whose worker died is given to it again here, where that is counted and told.

    Raises:
        Stopped: a signal asked for it; jobs that it ended have saved what they had and are waiting again.
        InputError: Ray is not installed, or there is none at the address.
    """
    ray = _imported()
    own = not ray.is_initialized()
    if own:
        _connect(ray, settings)
        _warn_of_room(ray, settings)
    try:
        with Interrupt() as interrupt:
            tasks = _Tasks(ray, settings, ledger)
            waiting = deque(jobs)
            while tasks.refs or (waiting and not interrupt.asked):
                while waiting and not interrupt.asked and len(tasks.refs) < (settings.workers or len(jobs)):
                    tasks.submit(waiting.popleft())
                if interrupt.asked:
                    tasks.cancel()
                waiting.extendleft(tasks.take_ended(interrupt.asked))
                ledger.refresh()
        if interrupt.asked:
            raise Stopped(interrupt.signal)
    finally:
        if own:
            ray.shutdown()


class _Tasks:
    """What Ray has been given.

    Attributes:
        refs: the tasks that have not ended, by Ray's reference, each with its job and the size that its log had, bytes.
    """

    def __init__(self, ray: Any, settings: ExecutorConfig, ledger: Ledger) -> None:
        self._ray, self._settings, self._ledger = ray, settings, ledger
        ray.cloudpickle.register_pickle_by_value(processes)  # workers need nothing of this program to start one
        self._task = ray.remote(processes.run_to_end)
        self._out_of_memory: Counter[str] = Counter()
        self._cancelled = False
        self.refs: dict[Any, tuple[Job, int]] = {}

    def submit(self, job: Job) -> None:
        """Gives Ray a job."""
        cores, memory = job.cores or self._settings.cores or 1, self._settings.ray.memory_gib
        size = job.log.stat().st_size if job.log.exists() else 0
        arguments = (list(job.command), str(job.folder.resolve()), str(job.log.resolve()))
        task = self._task.options(
            name=job.name, max_retries=0, num_cpus=cores, num_gpus=self._settings.gpus,
            memory=None if memory is None else int(memory * GIB),
        )  # fmt: skip
        self.refs[task.remote(*arguments, processes.thread_limits(cores))] = job, size

    def cancel(self) -> None:
        """Asks all to end, once: a task passes that on to its command, and waits for it."""
        if not self._cancelled:
            self._cancelled = True
            for ref in self.refs:
                self._ray.cancel(ref, force=False)

    def take_ended(self, interrupted: bool) -> list[Job]:
        """Waits a moment; the jobs among those that have ended that are to be run again."""
        ended, _ = self._ray.wait(list(self.refs), timeout=_POLL)
        for job, size in self.refs.values():  # a task that has begun says so in the log
            state = self._ledger[job]
            if state.phase is Phase.WAITING and job.log.exists() and job.log.stat().st_size > size:
                self._ledger[job] = state.started()
        return [job for ref in ended for job in self._end(ref, interrupted)]

    def _end(self, ref: Any, interrupted: bool) -> list[Job]:
        """Records how a task ended; its job, if that is to be run again."""
        errors, memory_ran_out = self._ray.exceptions, False
        job, size = self.refs.pop(ref)
        try:
            status = self._ray.get(ref)
            reason = failure(job, status, size) if status else ""
        except errors.TaskCancelledError:
            status, reason = ExitCode.INTERRUPTED, "cancelled"
        except errors.RayTaskError as error:
            status, reason = ExitCode.MACHINE_FAILED, str(error.cause)
        except errors.RayError as error:  # the worker, its machine or the way to it
            memory_ran_out = isinstance(error, errors.OutOfMemoryError)
            self._out_of_memory[job.name] += memory_ran_out
            status, reason = KILLED, str(error).partition("\n")[0]
        state = self._ledger[job]
        again = state.attempts <= self._settings.retries
        again &= not memory_ran_out or self._out_of_memory[job.name] <= self._settings.ray.memory_retries
        if state.phase is Phase.RUNNING or status != ExitCode.INTERRUPTED:
            self._ledger[job] = state.ended(status, reason, interrupted or again)
        return [job] if self._ledger[job].phase is Phase.WAITING else []


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        hint = 'Install it with pip install -e ".[ray]", or choose executor local.'
        raise InputError("city.executor.kind", "ray", "nothing installed", "the package ray", hint) from error
    return ray


def _connect(ray: Any, settings: ExecutorConfig) -> None:
    """To a cluster, or to one that is started on this machine and ends with this process."""
    address = settings.ray.address
    place = re.fullmatch(r"(?:ray://)?([^:/]+):([0-9]+)", address or "")
    try:
        if place is not None:  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=_PATIENCE).close()
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # some of Ray's are of no class of their own
        found = f"{address or 'null'} ({' '.join(str(error).split()) or type(error).__name__})"
        raise InputError("city.executor.ray", "address", found, "the address of a Ray cluster that answers") from error


def _warn_of_room(ray: Any, settings: ExecutorConfig) -> None:
    room = max((node["Resources"].get("CPU", 0) for node in ray.nodes()), default=0)
    cores = settings.cores or 1
    if cores > room:
        _log.warning("no machine of the Ray cluster has %d cores, the largest %d: the jobs wait for one", cores, room)
