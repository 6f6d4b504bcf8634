"""Runs jobs through Slurm: an array job in a file that a person can read, submitted, watched, collected."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.executors.job import KILLED, Job, Ledger, Phase, failure
from distill.executors.processes import thread_limits
from machine.files import write_atomically
from settings.errors import ExitCode, InputError
from settings.executors import ExecutorConfig

_POLL, _TICK = 15.0, 0.2  # s, between questions to Slurm and between looks at the runs' logs
_GRACE = 120.0  # s, until a file that a task wrote on another machine is seen at the latest
_GOING = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING")
_log = logging.getLogger(__name__)

_PROGRAM = """\
# Slurm tells this script, and this script the job, that time is nearly over or that it has to end: the job saves.
told=
trap 'told=USR1; kill -s USR1 $process' USR1
trap 'told=TERM; kill -s TERM $process' TERM

status_file={folder}/task_$SLURM_ARRAY_TASK_ID.status
rm -f "$status_file"
cd "$folder" || exit {machine_failed}
mkdir -p "$(dirname "$log")"
status={interrupted}
for ((attempt = 0; attempt <= {retries}; attempt++)); do
    if [ -n "$told" ]; then break; fi
    "${{command[@]}}" >>"$log" 2>&1 &
    process=$!
    if [ -n "$told" ]; then kill -s "$told" $process; fi
    while true; do # a signal ends a wait early
        wait $process
        status=$?
        kill -0 $process 2>/dev/null || break
    done
    if [ $status -le 128 ]; then break; fi # it ended by itself: only what was killed is run again
done
if [ "$told" = USR1 ] && [ $status -gt 128 ]; then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" && exit $status
fi
echo $status >"$status_file.part" && mv "$status_file.part" "$status_file"
exit $status
"""


def check_slurm(_: ExecutorConfig) -> None:
    """Raises ``InputError`` where there is no Slurm."""
    if shutil.which("sbatch") is None:
        raise _without("sbatch")


def run_slurm(jobs: Sequence[Job], settings: ExecutorConfig, folder: Path, ledger: Ledger) -> None:
    """Submits jobs as one array job and waits for their ends; what was submitted before is collected instead.

    The file, what was submitted and the tasks' ends are in ``slurm/`` in the folder.

    Raises:
        InputError: Slurm is not there, or does not take the file; other jobs were submitted and are not collected yet.
        KeyboardInterrupt: a signal asked for it; the tasks go on.
    """
    folder = folder.resolve() / "slurm"
    submission = _Submission.read(folder, jobs) or _submit(jobs, settings, folder)
    try:
        _watch(submission, jobs, settings.slurm.wait, ledger)
    except KeyboardInterrupt:
        _log.warning(
            "array job %s goes on: run this again to wait for it, or end it with scancel %s", *[submission.id] * 2
        )
        raise
    if all(ledger[job].phase in (Phase.DONE, Phase.FAILED) for job in jobs):
        submission.path.unlink()
    else:
        _log.info("array job %s is under way: run this again to see how far it is", submission.id)


@dataclass(frozen=True)
class _Submission:
    """An array job that is not collected yet: its number, the file that says so, and the names of its jobs in order."""

    id: str
    path: Path
    names: list[str]

    @staticmethod
    def read(folder: Path, jobs: Sequence[Job]) -> _Submission | None:
        """That of a folder, if there is one.

        Raises:
            InputError: it lacks one of the jobs, or cannot be read.
        """
        path = folder / "submitted.json"
        if not path.exists():
            return None
        try:
            found = _Submission(path=path, **json.loads(path.read_text(encoding="utf-8")))
            missing = [job.name for job in jobs if job.name not in found.names]
        except (OSError, ValueError, TypeError) as error:
            hint = "Delete it once squeue shows no job of it."
            raise InputError(
                path, "text", f"something unreadable ({error})", "what a submission wrote", hint
            ) from error
        if missing:
            text = f"array job {found.id} without {missing[0]}"
            hint = f"End it with scancel {found.id}, or wait until squeue does not show it, and delete this file."
            raise InputError(path, "jobs", text, f"one of all {len(jobs)} jobs", hint)
        _log.info("array job %s was submitted before and is not collected yet: nothing new is submitted", found.id)
        return found

    def write(self) -> None:
        write_atomically(self.path, json.dumps({"id": self.id, "names": self.names}) + "\n")

    def index(self, job: Job) -> int:
        return self.names.index(job.name)

    def status(self, job: Job) -> tuple[int, str] | None:
        """Exit status and reason of a task that is not in the queue any more; None: it has not been told yet."""
        path = self.path.with_name(f"task_{self.index(job)}.status")
        if path.exists():
            status = int(path.read_text())
            return status, failure(job, status) if status else ""
        state, _, code = _answer("sacct", "-nXP", f"--jobs={self.id}_{self.index(job)}", "-oState,ExitCode").partition(
            "|"
        )
        if state == "COMPLETED":
            return ExitCode.DONE, ""
        if not state or state in ("PENDING", "REQUEUED", *_GOING):
            return None
        return int(code.partition(":")[0] or 0) or KILLED, f"Slurm says {state}; see {job.log}"


def array_file(jobs: Sequence[Job], settings: ExecutorConfig, folder: Path) -> str:
    """The text of the file for ``sbatch``: options, the jobs, and what a task does with its own.

    Args:
        folder: for what the tasks themselves print, and how they ended; absolute.
    """
    slurm = settings.slurm
    cores = max([settings.cores or 1, *(job.cores for job in jobs if job.cores)])
    at_a_time = f"%{settings.workers}" if settings.workers else ""
    options = {
        "job-name": shlex.quote(folder.parent.name),
        "array": f"0-{len(jobs) - 1}{at_a_time}",
        "output": f"{shlex.quote(str(folder).replace('%', '%%'))}/task_%a.out",
        "open-mode": "append",
        "requeue": None,
        "signal": f"B:USR1@{slurm.warning_seconds}",
        "cpus-per-task": cores,
        **({"partition": slurm.partition} if slurm.partition else {}),
        **({"time": slurm.time_limit} if slurm.time_limit else {}),
        **({"mem": slurm.memory} if slurm.memory else {}),
        **({"gres": f"gpu:{settings.gpus}"} if settings.gpus else {}),
    }
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={value}") for name, value in options.items()]
    # After the first command Slurm reads no more options.
    lines += sorted(slurm.lines, key=lambda line: not line.startswith("#SBATCH"))
    lines += ["", *(f"export {name}={value}" for name, value in thread_limits(cores).items())]
    lines += ["case $SLURM_ARRAY_TASK_ID in"]
    for index, job in enumerate(jobs):
        lines += [
            f"{index}) # {job.name}",
            f"    folder={shlex.quote(str(job.folder.resolve()))}",
            f"    log={shlex.quote(str(job.log.resolve()))}",
            f"    command=({shlex.join(job.command)})",
            "    ;;",
        ]
    program = _PROGRAM.format(
        folder=shlex.quote(str(folder)), retries=settings.retries,
        machine_failed=int(ExitCode.MACHINE_FAILED), interrupted=int(ExitCode.USER_SIGNAL),
    )  # fmt: skip
    about = f"# {len(jobs)} jobs, a task of an array job each. By hand: sbatch FILE"
    return "\n".join(["#!/bin/bash", about, *lines, "esac", "", program])


def _submit(jobs: Sequence[Job], settings: ExecutorConfig, folder: Path) -> _Submission:
    path = folder / "jobs.sbatch"
    write_atomically(path, array_file(jobs, settings, folder))
    for old in folder.glob("task_*.status"):
        old.unlink()
    ended = _ask("sbatch", "--parsable", str(path))
    if ended.returncode:
        found = " ".join((ended.stderr or ended.stdout).split()) or f"exit status {ended.returncode}"
        raise InputError(path, "sbatch", found, "a file that it takes", "Change city.executor.slurm.")
    submission = _Submission(
        ended.stdout.strip().partition(";")[0], folder / "submitted.json", [job.name for job in jobs]
    )
    submission.write()
    _log.info("array job %s of %d jobs: %s", submission.id, len(jobs), path)
    return submission


def _watch(submission: _Submission, jobs: Sequence[Job], wait: bool, ledger: Ledger) -> None:
    """Records how far the jobs are, until all have ended or, without ``wait``, once."""
    unseen: dict[str, float] = {}  # since when a job is neither in the queue nor known to have ended
    while True:
        queue = _queue(submission.id)
        for job in jobs:
            state = ledger[job]
            if state.phase in (Phase.DONE, Phase.FAILED) or queue is None:
                continue
            place = queue.get(submission.index(job))
            if place is not None:
                unseen.pop(job.name, None)
                if place in _GOING and state.phase is Phase.WAITING:
                    ledger[job] = state.started()
                elif place not in _GOING and state.phase is Phase.RUNNING:
                    ledger[job] = state.ended(ExitCode.USER_SIGNAL, "it is queued again", again=True)
                continue
            ended = submission.status(job)
            if ended is None and time.monotonic() - unseen.setdefault(job.name, time.monotonic()) > _GRACE:
                ended = KILLED, f"Slurm no longer has it and does not say why; see {job.log}"
            if ended is not None:
                ledger[job] = state.ended(*ended, again=False)
        if not wait or all(ledger[job].phase in (Phase.DONE, Phase.FAILED) for job in jobs):
            return
        end = time.monotonic() + _POLL
        while time.monotonic() < end:
            ledger.refresh()
            time.sleep(_TICK)


def _queue(number: str) -> dict[int, str] | None:
    """State by task of what is in the queue; None: Slurm does not answer."""
    ended = _ask("squeue", "--noheader", "--array", f"--jobs={number}", "--format=%K %T")
    if ended.returncode and "Invalid job id" not in ended.stderr:
        _log.warning("squeue: %s; asking again", " ".join(ended.stderr.split()))
        return None
    found = (line.split() for line in ended.stdout.splitlines())
    return {int(words[0]): words[1] for words in found if len(words) == 2 and words[0].isdecimal()}


def _answer(*command: str) -> str:
    """The first line that a program prints; nothing where it is not there or fails."""
    try:
        lines = _ask(*command).stdout.splitlines()
    except InputError:
        return ""
    return lines[0].strip() if lines else ""


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise _without(command[0]) from error


def _without(program: str) -> InputError:
    hint = "Run it where Slurm's commands are, or choose executor local."
    return InputError("city.executor.kind", "slurm", f"no program {program}", "Slurm on the PATH", hint)
