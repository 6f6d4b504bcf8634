"""An export's folder: gone on with only as it was begun, and written by several threads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernels.threads import available_threads
from machine.files import output_errors, remove_litter, write_atomically
from machine.folder_lock import locked
from settings.errors import InputError
from teacher.export.export_cameras import ExportViews

# Files waiting to be written hold their pictures in memory: this many for each thread.
_PENDING_PER_THREAD = 4


class FolderExport(ABC):
    """Files of some views in a folder, beside a record of the settings they were made with.

    Args:
        record: name of the JSON file that holds the settings.
        outputs: files and folders that are there only beside such a record.

    Attributes:
        todo: frames that are not on disk yet.

    Raises:
        InputError: the folder holds files that were made otherwise, or by another program. Nothing is written yet.
    """

    def __init__(
        self, folder: Path, views: ExportViews, record: str, settings: dict[str, Any], outputs: Sequence[str]
    ) -> None:
        self.folder, self.views, self._record, self._settings = folder, views, record, settings
        self._check_settings(outputs)
        frames = range(len(views.names))
        self.todo = [i for i in frames if not all(path.is_file() for path in self._paths(i).values())]

    @abstractmethod
    def _paths(self, index: int) -> dict[str, Path]:
        """The files of a frame, by what they hold."""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Writes the record, then lets the rest be written, by this process alone.

        Raises:
            InputError: the folder does not take it, or another process writes to it.
        """
        with output_errors(self.folder, "output folder"), locked(self.folder):
            remove_litter(self.folder)
            write_json(self.folder / self._record, self._settings)
            yield

    def _check_settings(self, outputs: Sequence[str]) -> None:
        """Checks that what is in the folder was made with the same settings; InputError for others or no record."""
        hint = "Name another --output, or delete this folder to render it again."
        record = self.folder / self._record
        if not record.is_file():
            if any((self.folder / output).exists() for output in outputs):
                found = f"views without {self._record}"
                raise InputError(self.folder, "output folder", found, "an empty folder", hint)
            return
        try:
            old = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(record, "settings", f"unreadable text ({error})", "JSON", hint) from error
        old = old if isinstance(old, dict) else {}
        if different := [field for field, value in self._settings.items() if old.get(field) != value]:
            found, expected = (
                "; ".join(f"{field} {_short(settings.get(field))}" for field in different)
                for settings in (old, self._settings)
            )
            raise InputError(self.folder, "settings of the views in it", found, expected, hint)


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
        if len(self._pending) >= _PENDING_PER_THREAD * self._threads:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(write, *args))


def write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
