"""Files written so that a kill at any moment leaves them readable: whole, or by whole rows."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from settings.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    The temporary name ends like ``path`` does, for writers that go by the ending.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: str | Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Writes a CSV atomically: a header, then a line per row; None or a missing key is an empty cell.

    Raises:
        ValueError: a row has a key that is no column.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(_csv_text(rows, columns, header=True), encoding="utf-8")


class CsvLog:
    """A CSV that grows by whole rows, each on disk when ``append`` returns; its first column is ``step``.

    Args:
        path: the file; its folder exists.
        columns: names of the columns, ``step`` the first.
        first_step: None starts a new file. On resume, the first step that will be logged again: rows before it are
            kept, later ones and a torn last line are dropped, atomically.

    Raises:
        InputError: the file to resume has other columns.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], first_step: int | None = None) -> None:
        self.path, self.columns = Path(path), tuple(columns)
        rows = [] if first_step is None else [row for row in self._read() if int(row["step"]) < first_step]
        write_csv(self.path, rows, self.columns)

    def append(self, row: Mapping[str, object]) -> None:
        """Adds a row; None or a missing key is an empty cell, a key that is no column a ``ValueError``."""
        text = _csv_text([row], self.columns)
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(text)

    def _read(self) -> list[dict[str, str]]:
        """The rows up to the first damaged one, as text."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        header, *lines = list(csv.reader(text[: text.rfind("\n") + 1].splitlines())) or [list(self.columns)]
        if tuple(header) != self.columns:
            hint = "It was written by another version: move it away to resume."
            raise InputError(self.path, "header", ",".join(header), ",".join(self.columns), hint)
        whole = takewhile(lambda cells: len(cells) == len(header) and cells[0].isdecimal(), lines)
        return [dict(zip(header, cells, strict=True)) for cells in whole]


def _csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], header: bool = False) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes a whole file or none: to a temporary name in the same folder, then renamed. Makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
