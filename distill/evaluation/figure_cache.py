"""What has been measured already: figures kept on disk, found again only under the key of all they depend on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from machine.files import append_text, write_atomically
from machine.fingerprints import cache_key

_SOURCE = Path(__file__).resolve().parents[2]
_PACKAGES = ("distill", "kernels", "machine", "scene", "settings", "students", "teacher")
_LIBRARIES = ("torch", "torchvision", "numpy", "numba", "scikit-image", "lpips")


class FigureCache:
    """Named figures, each under the key of what it was made from; written as soon as they are known.

    The file holds a JSON object per line. A torn or foreign line is no record; the last of several of one name counts.

    Args:
        path: the file, its folder exists; None keeps nothing and finds nothing.
        fresh: forget what the file holds.
    """

    def __init__(self, path: Path | None, fresh: bool = False) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file() and not fresh:
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                record = _parsed(line)
                if record is not None:
                    self._lines[record["name"]] = record
        if path is not None:
            self.keep(self._lines)

    def get(self, name: str, key: str) -> Any | None:
        """The figures of that name, if they were made from what ``key`` is the ``cache_key`` of."""
        record = self._lines.get(name)
        return record["figures"] if record is not None and record["key"] == key else None

    def put(self, name: str, key: str, figures: Any) -> None:
        """Adds figures (plain JSON values) to the file."""
        if self._path is None:
            return
        self._lines[name] = {"name": name, "key": key, "figures": figures}
        append_text(self._path, json.dumps(self._lines[name]) + "\n")

    def keep(self, names: Iterable[str]) -> None:
        """Drops all other figures, and the file when none are left."""
        if self._path is None:
            return
        self._lines = {name: self._lines[name] for name in names if name in self._lines}
        if not self._lines:
            self._path.unlink(missing_ok=True)
            return
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in self._lines.values()))


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"name", "key", "figures"} <= record.keys() else None


@cache
def code_digest() -> str:
    """Digest of this program's source and of the versions of the libraries that its figures depend on."""
    files = sorted(path for package in _PACKAGES for path in (_SOURCE / package).rglob("*.py"))
    texts = [[path.relative_to(_SOURCE).as_posix(), path.read_text(encoding="utf-8")] for path in files]
    return cache_key(texts, [_version(library) for library in _LIBRARIES])


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
