"""The one exception for what a user can put right: a file, a field, a setting."""

from __future__ import annotations

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
