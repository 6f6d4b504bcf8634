"""Jobs that go on where they were, as training runs do, and take next to no time."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from distill import executors
from distill.executors.job import Job, JobState, Phase
from machine.interrupts import Stopped
from settings.executors import ExecutorConfig
from tests.program import wait_for

# Counts into a file, by whole files; a signal lets it finish the step.
SCRIPT = """
import os, signal, sys, time
path, steps, killed_at, victim, pause = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
asked = []
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: asked.append(number))
done = open(path).read().split() if os.path.exists(path) else []
begun = len(done)
print("from", begun, flush=True)
for step in range(begun, steps):
    if asked:
        print("saved", flush=True)
        sys.exit(128 + asked[0])
    if step == killed_at and begun < killed_at:
        os.kill(eval(victim), signal.SIGKILL)
        time.sleep(60)
    done.append(str(step))
    with open(path + ".part", "w") as file:
        file.write(" ".join(done))
    os.replace(path + ".part", path)
    time.sleep(pause)
"""


def counting(
    folder: Path, name: str, killed_at: int = -1, pause: float = 0.0, steps: int = 10, victim: str = "os.getpid()"
) -> Job:
    """A job that counts into ``<name>.txt``; at a step, if it began before it, a process dies by SIGKILL: itself."""
    command = [sys.executable, "-S", "-c", SCRIPT, f"{name}.txt", str(steps), str(killed_at), victim, str(pause)]
    return Job(name, command, folder, folder / f"{name}.log")


def status_of_interrupted(folder: Path, settings: ExecutorConfig) -> int:
    """The exit status after Ctrl-C while two of three long jobs run; these have saved, and wait to be gone on with."""
    jobs = [counting(folder, name, pause=0.05, steps=1000) for name in "abc"]

    def interrupt() -> None:
        wait_for(lambda: all((folder / f"{name}.txt").exists() for name in "ab"))
        os.kill(os.getpid(), signal.SIGINT)

    states: dict[str, JobState] = {}
    threading.Thread(target=interrupt).start()
    with pytest.raises(Stopped) as stopped:
        executors.run(jobs, settings, folder, lambda job, state: states.update({job.name: state}))
    ends = {name: (state.phase, state.status) for name, state in states.items()}
    assert ends == dict.fromkeys("ab", (Phase.WAITING, 130))
    assert jobs[0].log.read_text().splitlines()[-1] == "saved"  # it was asked, not killed
    return stopped.value.status
