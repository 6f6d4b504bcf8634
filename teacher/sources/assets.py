"""The files and folders that a teacher is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Asset(NamedTuple):
    """A file or folder that a config names: its field, its path (None: not used), what it should be, what to do."""

    field: str
    path: Path | None
    is_there: Callable[[Path], bool]
    expected: str
    hint: str = ""


def asset(field: str, path: Path | None, is_there: Callable[[Path], bool], expected: str, otherwise: str = "") -> Asset:
    """An asset that the user can put elsewhere; ``otherwise``: or what else they can do."""
    hint = f"Put it there, say where it is with `--set {field}=PATH`, or name another root with --assets. {otherwise}"
    return Asset(field, path, is_there, expected, hint.rstrip())
