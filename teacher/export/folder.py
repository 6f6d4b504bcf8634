"""An export's folder: gone on with only as it was begun, and written by several threads."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kernels.threads import available_threads
from machine.files import write_atomically
from settings.errors import InputError

# Files waiting to be written hold their pictures in memory: this many for each thread.
_PENDING_PER_THREAD = 4


def check_settings(folder: Path, record: str, settings: dict[str, Any], outputs: Sequence[str]) -> None:
    """Checks that what is in a folder was made with the same settings.

    Args:
        record: name of the JSON file that holds them.
        outputs: files and folders that are there only beside such a record.

    Raises:
        InputError: it was made with others, or by another program.
    """
    hint = "Name another --output, or delete this folder to render it again."
    path = folder / record
    if not path.is_file():
        if any((folder / output).exists() for output in outputs):
            raise InputError(folder, "output folder", f"views without {record}", "an empty folder", hint)
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(path, "settings", f"unreadable text ({error})", "JSON", hint) from error
    old = old if isinstance(old, dict) else {}
    if different := [field for field, value in settings.items() if old.get(field) != value]:
        found, expected = (
            "; ".join(f"{field} {_short(each.get(field))}" for field in different) for each in (old, settings)
        )
        raise InputError(folder, "settings of the views in it", found, expected, hint)


class Writers:
    """A pool of threads that write files, only so many of them waiting; leaving it waits for all.

    A file that fails raises its error from the next ``submit``, or on leaving.
    """

    def __init__(self) -> None:
        self._threads = max(2, available_threads())
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> Writers:
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="write")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        for done in self._pending if kind is None else ():
            done.result()

    def submit(self, write: Callable[..., None], *args: Any) -> None:
        """Has a thread call ``write(*args)``; waits where too many calls wait already, and raises what one raised."""
        if len(self._pending) >= _PENDING_PER_THREAD * self._threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(write, *args))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON atomically, a key a line."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
