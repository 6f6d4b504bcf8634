"""Becomes a command that is sent a signal when the process that started it dies, however that dies (Linux).

    python dies_with_parent.py SIGNAL PARENT COMMAND...

A program of its own, since code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; exec keeps it
_NOT_FOUND = 127  # as shells say


def main(number: int, parent: int, command: list[str]) -> int:
    """Does not return unless the command cannot be started; then the exit status."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before
        return 128 + number
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray blocks signals in what it starts
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return _NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
