"""Runs many jobs on what there is: processes of this machine, Slurm, or Ray; those that are killed go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distill.executors.job import Job, JobState, Ledger
from distill.executors.local import run_local
from distill.executors.progress import ProgressView
from distill.executors.ray import check_ray, run_ray
from distill.executors.slurm import check_slurm, run_slurm
from settings.executors import ExecutorConfig

EXECUTORS: dict[str, Callable[[Sequence[Job], ExecutorConfig, Path, Ledger], None]] = {
    "local": run_local,
    "slurm": run_slurm,
    "ray": run_ray,
}


_CHECKS: dict[str, Callable[[ExecutorConfig], None]] = {"slurm": check_slurm, "ray": check_ray}


def check_executor(settings: ExecutorConfig) -> None:
    """Raises ``InputError`` where the executor that the settings ask for is not to be had: before jobs are prepared."""
    if settings.kind in _CHECKS:
        _CHECKS[settings.kind](settings)


def run(
    jobs: Sequence[Job],
    settings: ExecutorConfig,
    folder: Path,
    on_state: Callable[[Job, JobState], None] = lambda job, state: None,
) -> Mapping[str, JobState]:
    """Runs jobs to their ends, and shows on stderr how far they are; returns their states by name.

    A job that a signal ends is run again, at most ``settings.retries`` times; one that ends by itself, however, is not.

    Args:
        jobs: their names are different.
        folder: of all of them, the same when some are run again later; what Slurm has been given is noted there.
        on_state: called, in this thread, when a job's state has changed.

    Raises:
        Stopped: a signal asked for it. Jobs on this machine or of Ray have saved what they had and are waiting again;
            those of Slurm go on.
        InputError: the executor that the settings ask for is not to be had.
        OSError: a folder or a log cannot be used.
    """
    view = ProgressView(jobs)

    def tell(job: Job, state: JobState) -> None:
        view.changed(job, state)
        on_state(job, state)

    ledger = Ledger(jobs, tell, view.refresh)
    try:
        EXECUTORS[settings.kind](jobs, settings, folder, ledger)
    finally:
        view.clear()
    return ledger.states
