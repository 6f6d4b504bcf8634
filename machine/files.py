"""Files written so that a kill at any moment leaves them readable, whole or by whole rows; and CSVs read back."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from machine.failures import is_machines_fault
from settings.errors import InputError

_LITTER = re.compile(r"\..*?\.(\d+)\.(\d+\.)?tmp(\.[^.]*)?")  # of earlier versions without the second number
_NAMED = 8  # of a folder's files, in messages
_number = itertools.count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` on success, removed on failure.

    The temporary name ends like ``path`` does, for writers that go by the ending, and is no longer than a file's name
    may be. An ``OSError`` within is about ``path``, if it names no other file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:40]}.{os.getpid()}.{next(_number)}.tmp{path.suffix}")
    try:
        with _about(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_dir() -> Path:
    """What the program makes or fetches once is kept here: ``lego_response_distill`` in ``$XDG_CACHE_HOME``, else in
    ``~/.cache``.

    Of a user who has no home it is in the temporary folder.
    """
    home = os.path.expanduser("~")
    own = Path(home, ".cache") if os.path.isabs(home) else Path(tempfile.gettempdir())
    return Path(os.environ.get("XDG_CACHE_HOME") or own) / "lego_response_distill"


def contents(folder: Path) -> str:
    """What is in a folder, for messages: the first names, and how many there are besides."""
    if not folder.is_dir():
        return "a file" if folder.exists() else "no such folder"
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "an empty folder"


def remove_litter(folder: Path, below: bool = True) -> None:
    """Deletes the temporary files that killed processes left in a folder.

    Args:
        below: in those within it too.
    """
    for path in (folder.rglob if below else folder.glob)(".*.tmp*"):
        named = _LITTER.fullmatch(path.name)
        if named is not None and (int(named[1]) == os.getpid() or not _is_alive(int(named[1]))):
            with suppress(OSError):
                path.unlink()


def _is_alive(process: int) -> bool:
    """Whether there is such a process, on a system that can be asked without harm; else it may be."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        pass
    return True


@contextmanager
def _about(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """An ``OSError`` within names ``path``, unless it names a file already that is not the temporary one."""
    try:
        yield
    except OSError as error:
        named = error.filename
        is_temporary = named is not None and temporary is not None and Path(str(named)).name == temporary.name
        if error.errno is not None and (named is None or is_temporary):
            error.filename, error.filename2 = str(path), None
        raise


def append_text(path: Path, text: str) -> None:
    """Adds UTF-8 text to the end of a file; it is on its way to the disk when this returns."""
    with _about(path), open(path, "a", encoding="utf-8", newline="") as file:
        file.write(text)


@contextmanager
def output_errors(path: str | Path, field: str = "output file") -> Iterator[None]:
    """An ``OSError`` within becomes the ``InputError`` that ``path`` cannot be written; a full disk's stays."""
    try:
        yield
    except OSError as error:
        if is_machines_fault(error):
            raise
        raise InputError(path, field, error.strerror or error, "a folder that can be written") from error


def check_output_file(option: str, path: Path, endings: Sequence[str], inputs: Iterable[Path | None] = ()) -> None:
    """Refuses before the work a file to write that cannot be meant.

    Args:
        option: that names it.
        endings: of names in its formats, in lower case; the name may have it in capitals.
        inputs: what the work reads, as far as it is known; None: nothing.

    Raises:
        InputError: another ending, a folder, or one of the inputs, which would be gone.
    """
    if path.suffix.lower() not in endings:
        raise InputError(option, "file", path.name, f"a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise InputError(option, "file", f"{path}, which is a folder", "a file to write")
    if any(each is not None and path.resolve() == Path(each).resolve() for each in inputs):
        raise InputError(option, "file", f"{path}, which is read", "another file", "It would be gone.")


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Writes a whole file or none; makes its folder. Text becomes UTF-8."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_csv(path: str | Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    """Writes a CSV atomically: a header, then a line per row; None or a missing key is an empty cell.

    Raises:
        ValueError: a row has a key that is no column.
    """
    write_atomically(path, _csv_text(rows, columns, header=True))


CsvRow = dict[str, "str | None"]
"""Column -> cell as it is written; None is an empty cell."""


@dataclass(frozen=True)
class CsvTable:
    """What could be read of a CSV.

    Attributes:
        header: names of the columns; empty where there is no line.
        rows: by the number of their line, those whose number of cells is the header's.
        problems: what is wrong, each with the number of its line, 0 for the whole file.
    """

    header: tuple[str, ...] = ()
    rows: dict[int, CsvRow] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_text(path: str | Path) -> tuple[str, str | None]:
    """A text file in any state: what can be read of it, and what is wrong with it or None; raises nothing."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return "", f"cannot be read ({error.strerror or error})"
    if not data.strip():
        return "", "empty file"
    if b"\0" in data:
        return "", "binary data, not text"
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return data.decode("utf-8-sig", errors="replace"), f"not UTF-8 text (byte {error.start})"


def read_csv(path: str | Path) -> CsvTable:
    """A CSV of any age and in any state: what can be read of it, and what is wrong with the rest; raises nothing."""
    text, wrong = read_text(path)
    table = parse_csv(text)
    if wrong is not None:
        table.problems.insert(0, (0, wrong))
    return table


def parse_csv(text: str) -> CsvTable:
    """The text of a CSV with a header, as ``read_csv``."""
    if not text.strip():
        return CsvTable()
    try:
        lines = [(number, cells) for number, cells in enumerate(csv.reader(text.splitlines()), 1) if cells]
    except csv.Error as error:
        return CsvTable(problems=[(0, f"not a CSV file ({error})")])
    table = CsvTable(tuple(name.strip() for name in lines.pop(0)[1]))
    for number, cells in lines:
        if len(cells) == len(table.header):
            cells = [cell.strip() or None for cell in cells]
            table.rows[number] = dict(zip(table.header, cells, strict=True))
        else:
            reason = f"line {number}: {len(cells)} cells under a header of {len(table.header)}, left out"
            table.problems.append((number, reason))
    if lines and lines[-1][0] in table.rows and not text.endswith(("\n", "\r")):
        number = lines[-1][0]
        table.problems.append((number, f"line {number}: no line end, its last figure may be cut off"))
    return table


class CsvLog:
    """A CSV that grows by whole rows, each on disk when ``append`` returns; its first column is ``step``.

    Args:
        path: the file; its folder exists.
        columns: names of the columns, ``step`` the first.
        first_step: None starts a new file. On resume, the first step that will be logged again: rows before it are
            kept, later ones and a torn last line are dropped, atomically.

    Raises:
        InputError: the file to resume has columns that are not among these. Those that an earlier version did not write
            are empty in its rows.
    """

    def __init__(self, path: str | Path, columns: Sequence[str], first_step: int | None = None) -> None:
        self.path, self.columns = Path(path), tuple(columns)
        rows = [] if first_step is None else [row for row in self._read() if int(row["step"]) < first_step]
        write_csv(self.path, rows, self.columns)

    def append(self, row: Mapping[str, object]) -> None:
        """Adds a row; None or a missing key is an empty cell, a key that is no column a ``ValueError``."""
        append_text(self.path, _csv_text([row], self.columns))

    def _read(self) -> list[CsvRow]:
        """The rows up to the first damaged one."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace").replace("\0", "\ufffd")
        text = text[: text.rfind("\n") + 1]
        found = parse_csv(text)
        if text.strip() and not {"step"} <= set(found.header) <= set(self.columns):
            hint = "It was written by another version: move it away to resume."
            raise InputError(self.path, "header", ",".join(found.header), ",".join(self.columns), hint)
        rows = {line: row for line, row in found.rows.items() if (row["step"] or "").isdecimal()}
        damaged = {line for line, _ in found.problems} | (found.rows.keys() - rows.keys())
        return [row for line, row in rows.items() if line < min(damaged, default=math.inf)]


def _csv_text(rows: Iterable[Mapping[str, object]], columns: Sequence[str], header: bool = False) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
