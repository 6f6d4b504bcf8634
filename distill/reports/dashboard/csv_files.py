"""CSV and YAML files of any age and in any state: what can be read is read, the rest is said, never raised."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, "float | str | None"]
"""Column -> value; None is an empty cell. Text columns hold text, all others finite numbers."""

TEXT_COLUMNS = frozenset(("name", "split", "reference", "collapsed", "background", "subject", "source"))
_SAID_PER_FILE = 3  # a file that is wrong in every line is not worth more
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file; ``file`` is relative to the root."""

    file: str
    reason: str


@dataclass
class Problems:
    """What was wrong with the files under ``root``, collected and logged as it is found."""

    root: Path
    found: list[Problem] = field(default_factory=list)

    def add(self, path: Path, reason: str) -> None:
        problem = Problem(path.relative_to(self.root).as_posix(), reason)
        self.found.append(problem)
        _log.warning("%s: %s", problem.file, reason)

    def add_some(self, path: Path, reasons: Sequence[str]) -> None:
        """The first few of many."""
        for reason in reasons[:_SAID_PER_FILE]:
            self.add(path, reason)
        if len(reasons) > _SAID_PER_FILE:
            self.add(path, f"and {len(reasons) - _SAID_PER_FILE} more of the kind")


def read_csv(
    path: Path, problems: Problems, expected: Collection[str], aliases: dict[str, str] | None = None
) -> list[Row]:
    """The rows of a CSV with a header.

    A row is left out where its number of cells is not the header's; a cell that is no finite number is None.

    Args:
        expected: columns whose absence is worth a word; with none of them, nothing is read.
        aliases: other names for columns, which take their place where they are absent.
    """
    text = _text_of(path, problems)
    if text is None:
        return []
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        problems.add(path, f"not a CSV file ({error})")
        return []
    lines = [(number, cells) for number, cells in enumerate(lines, 1) if cells]
    if not lines:
        problems.add(path, "empty file")
        return []
    header = [name.strip() for name in lines[0][1]]
    header = [name if (aliases or {}).get(name, name) in header else (aliases or {}).get(name, name) for name in header]
    missing = [name for name in expected if name not in header]
    if len(missing) == len(expected):
        problems.add(path, f"none of the columns {', '.join(expected)} in its first line")
        return []
    if missing:
        problems.add(path, f"without the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    if len(lines) == 1:
        problems.add(path, "a header and no rows")
    reasons: list[str] = []
    rows = [_row(number, header, cells, reasons) for number, cells in lines[1:]]
    if len(lines) > 1 and rows[-1] is not None and not text.endswith(("\n", "\r")):
        reasons.append(f"line {lines[-1][0]}: no line end, its last figure may be cut off")
    problems.add_some(path, reasons)
    return [row for row in rows if row is not None]


def read_mapping(path: Path, problems: Problems) -> dict[str, Any]:
    """A YAML or JSON file's mapping, by its ending; empty where there is no such file, or none in it."""
    if not path.exists():
        return {}
    text = _text_of(path, problems)
    if text is None:
        return {}
    try:
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        problems.add(path, f"not {path.suffix.removeprefix('.').upper()} ({str(error).splitlines()[0]})")
        return {}
    if not isinstance(content, dict):
        problems.add(path, f"holds {type(content).__name__}, not a mapping")
        return {}
    return content


def section(mapping: Any, *keys: str) -> Any:
    """The value at a path of keys, None where a step of it is missing."""
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, dict) else None
    return mapping


def _text_of(path: Path, problems: Problems) -> str | None:
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror or error})")
        return None
    if not data.strip():
        problems.add(path, "empty file")
        return None
    if b"\0" in data:
        problems.add(path, "binary data, not text")
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problems.add(path, f"not UTF-8 text (byte {error.start})")
        return data.decode("utf-8-sig", errors="replace")


def _row(number: int, header: Sequence[str], cells: Sequence[str], reasons: list[str]) -> Row | None:
    if len(cells) != len(header):
        reasons.append(f"line {number}: {len(cells)} cells under a header of {len(header)}, left out")
        return None
    row: Row = {}
    for name, cell in zip(header, cells, strict=True):
        cell = cell.strip()
        if name in TEXT_COLUMNS:
            row[name] = cell or None
            continue
        row[name] = None
        if cell:
            row[name] = _number(cell)
            if row[name] is None:
                reasons.append(f"line {number}: {name} is {_short(cell)}, not a finite number")
    return row


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 24 else cell[:21] + "...")
