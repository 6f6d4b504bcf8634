"""What ends a command: the exceptions whose message is all that a user is shown, and the exit statuses."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class InputError(Exception):
    """Bad input, said in one message: where, what, found, expected, and what to do.

    Args:
        source: file or option the problem is in.
        field: the part of it that is wrong.
        found: what is there.
        expected: what should be there.
        hint: what to do about it, one sentence.
    """

    def __init__(self, source: str | Path, field: str, found: object, expected: object, hint: str = "") -> None:
        self.source, self.field, self.found, self.expected, self.hint = str(source), field, found, expected, hint
        message = f"{source}: {field}: found {found}, expected {expected}."
        super().__init__(f"{message} {hint}" if hint else message)


class TrainingDiverged(Exception):
    """Training cannot go on: a loss term is not a finite number, or every step overflows."""


class ExitCode(IntEnum):
    """What the program's exit status says; the last four are 128 and the number of the signal that ended it."""

    DONE = 0
    DIVERGED = 1
    BAD_INPUT = 2
    COLLAPSED = 3
    MACHINE_FAILED = 4
    HUNG_UP = 129
    INTERRUPTED = 130
    USER_SIGNAL = 138
    TERMINATED = 143
