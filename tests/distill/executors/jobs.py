"""Jobs that go on where they were, as training runs do, and take next to no time."""

from __future__ import annotations

import sys
from pathlib import Path

from distill.executors.job import Job

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
