"""A job as a process of this machine. Ray's workers run this too, and have nothing but Python: it imports no more."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_POLL = 0.2  # s
_DIES_WITH_PARENT = str(Path(__file__).with_name("dies_with_parent.py"))


def thread_limits(cores: int | None) -> dict[str, str]:
    """The environment variables that keep a job to so many cores; None: to none."""
    return {} if cores is None else {"NUMBA_NUM_THREADS": str(cores), "OMP_NUM_THREADS": str(cores)}


def start(
    command: Sequence[str], folder: str | Path, log: str | Path, variables: Mapping[str, str], at_our_death: int
) -> subprocess.Popen:
    """Starts a command.

    It is in a session of its own: a terminal's Ctrl-C would reach it a second time beside the signal that it is sent.

    Args:
        folder: where it runs.
        log: what it prints is added to this file, whose folder is made if need be.
        variables: of its environment, beside this process's.
        at_our_death: signal that it is sent should this process die (on Linux).

    Raises:
        OSError: the folder or the log cannot be used, or off Linux the command is not there.
    """
    os.makedirs(os.path.dirname(os.path.abspath(log)), exist_ok=True)
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", _DIES_WITH_PARENT, str(int(at_our_death)), str(os.getpid()), *command]
    with open(log, "ab") as output:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **variables}, start_new_session=True,
        )  # fmt: skip


def run_to_end(command: Sequence[str], folder: str, log: str, variables: Mapping[str, str]) -> int:
    """Runs a command, which SIGKILL ends should this process die; its exit status.

    The log is told where and when it began. ``KeyboardInterrupt`` is passed on as a signal, and its end waited for.
    """
    # What a shell starts in the background ignores SIGINT, and so does what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(command, folder, log, variables, signal.SIGKILL)
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"on {platform.node()}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    while process.poll() is None:
        try:
            time.sleep(_POLL)  # Ray's interrupt ends no wait of the system
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
    return exit_status(process.returncode)


def exit_status(returncode: int) -> int:
    """A process's end as shells say it: 128 and the number of the signal that killed it."""
    return 128 - returncode if returncode < 0 else returncode
