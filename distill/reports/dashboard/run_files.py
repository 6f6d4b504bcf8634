"""CSV and YAML files of any age and in any state: what can be read is read, the rest is said, never raised."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import files
from settings.errors import InputError
from settings.yaml_text import parse_yaml

Row = dict[str, "float | str | None"]
"""Column -> value; None is an empty cell. Text columns hold text, all others finite numbers."""

TEXT_COLUMNS = frozenset(
    ("name", "split", "reference", "collapsed", "background", "subject", "source", "verdict", "method")
)
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
        """What is wrong with a file under the root."""
        problem = Problem(path.relative_to(self.root).as_posix(), reason)
        self.found.append(problem)
        _log.warning("%s: %s", problem.file, reason)

    def add_some(self, path: Path, reasons: Sequence[str]) -> None:
        """The first few of many."""
        for reason in reasons[:_SAID_PER_FILE]:
            self.add(path, reason)
        if len(reasons) > _SAID_PER_FILE:
            self.add(path, f"and {len(reasons) - _SAID_PER_FILE} more of the kind")


def read_rows(
    path: Path, problems: Problems, expected: Collection[str], aliases: Mapping[str, str] | None = None
) -> list[Row]:
    """The rows of a CSV with a header; a cell that is no finite number is None, but for those of ``TEXT_COLUMNS``.

    Args:
        expected: columns whose absence is worth a word; with none of them, nothing is read.
        aliases: other names for columns, which take their place where they are absent.
    """
    table, aliases = files.read_csv(path), aliases or {}
    for line, reason in table.problems:
        if line == 0:
            problems.add(path, reason)
    if not table.header:
        return []
    names = {name: name if aliases.get(name, name) in table.header else aliases[name] for name in table.header}
    missing = [name for name in expected if name not in names.values()]
    if len(missing) == len(expected):
        problems.add(path, f"none of the columns {', '.join(expected)} in its first line")
        return []
    if missing:
        problems.add(path, f"without the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    reasons: list[tuple[int, str]] = []
    rows = []
    for line, row in table.rows.items():
        rows.append({names[name]: _value(line, names[name], cell, reasons) for name, cell in row.items()})
    reasons += [(line, reason) for line, reason in table.problems if line]
    if not rows and not reasons:
        problems.add(path, "a header and no rows")
    problems.add_some(path, [reason for _, reason in sorted(reasons, key=lambda pair: pair[0])])
    return rows


def read_mapping(path: Path, problems: Problems) -> dict[str, Any]:
    """A YAML or JSON file's mapping, by its ending; empty where there is no such file, or none in it."""
    if not path.exists():
        return {}
    text, wrong = files.read_text(path)
    if wrong is not None:
        problems.add(path, wrong)
    if not text:
        return {}
    try:
        content = json.loads(text) if path.suffix == ".json" else parse_yaml(text, str(path))
    except InputError as error:
        problems.add(path, f"not YAML ({error.field}: {error.found})")
        return {}
    except (ValueError, RecursionError) as error:
        problems.add(path, f"not JSON ({str(error).splitlines()[0]})")
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


def _value(line: int, name: str, cell: str | None, reasons: list[tuple[int, str]]) -> float | str | None:
    if cell is None or name in TEXT_COLUMNS:
        return cell
    with suppress(ValueError):
        if math.isfinite(value := float(cell)):
            return value
    shown = repr(cell if len(cell) <= 24 else cell[:21] + "...")
    reasons.append((line, f"line {line}: {name} is {shown}, not a finite number"))
    return None
