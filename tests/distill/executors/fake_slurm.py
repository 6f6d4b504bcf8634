"""As much of Slurm as an array job needs, with processes of this machine: sbatch, squeue, scontrol requeue.

Its state is in $FAKE_SLURM: ``<task>`` for each in the queue, ``limit_<task>`` with the path of a file after whose
appearance the task is told that its time is nearly over, ``hold`` while no task starts.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

QUEUE = Path(os.environ["FAKE_SLURM"])


def sbatch(parsable: str, script: str) -> None:
    text = Path(script).read_text()
    if "--partition=none" in text:
        sys.exit("sbatch: error: invalid partition specified: none")
    first, last = re.search(r"^#SBATCH --array=(\d+)-(\d+)", text, re.MULTILINE).groups()
    for task in range(int(first), int(last) + 1):
        (QUEUE / str(task)).write_text("PENDING")
        command = [sys.executable, "-S", __file__, "task", script, str(task)]
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print("77;cluster")


def squeue(*options: str) -> None:
    tasks = [path for path in QUEUE.iterdir() if path.name.isdecimal()]
    if not tasks:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    for path in tasks:
        print(path.name, path.read_text())


def scontrol(action: str, name: str) -> None:
    (QUEUE / f"requeue_{name.removeprefix('77_')}").touch()


def task(script: str, number: str) -> None:
    limit, requeue = QUEUE / f"limit_{number}", QUEUE / f"requeue_{number}"
    environment = {**os.environ, "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": number}
    while (QUEUE / "hold").exists():
        time.sleep(0.02)
    while True:
        (QUEUE / number).write_text("RUNNING")
        process = subprocess.Popen(["bash", script], env=environment)
        if limit.exists():
            while not Path(limit.read_text()).exists():
                time.sleep(0.02)
            limit.unlink()
            process.send_signal(signal.SIGUSR1)
        process.wait()
        if not requeue.exists():
            break
        requeue.unlink()
    (QUEUE / number).unlink()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
