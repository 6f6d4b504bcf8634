"""Files of tensors and plain values, as ``torch.save`` writes them, closed with a checksum: the seal.

torch checks neither the CRCs of the zip archive that such a file is nor anything else, so a flipped bit would load. The
seal is the archive's comment, the SHA-256 of every byte before it; any program still reads the file.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from machine.file_kinds import is_text, refuse_other_kinds
from machine.files import atomic_path
from settings.errors import InputError

_MARK = b"sha256:"
_DIGITS = 64
_COMMENT = len(_MARK) + _DIGITS
_LENGTH = struct.pack("<H", _COMMENT)  # of the comment, the last field of the record that ends an archive
_RECORD, _RECORD_SIZE = b"PK\5\6", 22
_CHUNK = 1 << 20
_DAMAGED = "It was damaged after it was written; use another one."
_CODE = "It may be truncated, or hold Python code, which is never loaded; use another one."


def write_weights(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors and plain values only) under a temporary name, then renames it.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        sealed = _SealedFile(file)
        torch.save(state, sealed)
        sealed.close()


class _SealedFile:
    """A file that ``torch.save`` writes to, closed with a seal; no byte of it is in memory twice.

    torch complains of something else where a disk is full: the error is kept, and raised when the file is closed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha, self._last = file, hashlib.sha256(), b""
        self._error: OSError | None = None

    def write(self, part: bytes | memoryview) -> int:
        """Takes a part of the archive, whose last bytes, the length of its comment, will be others."""
        most = memoryview(part)
        if len(most) < len(_LENGTH):
            most = memoryview(self._last + bytes(part))
        else:
            self._put(self._last)
        self._put(most[: -len(_LENGTH)])
        self._last = bytes(most[-len(_LENGTH) :])
        return len(part)

    def flush(self) -> None:
        """For ``torch.save``: there is nothing to do before the end."""

    def close(self) -> None:
        """Adds the seal.

        Raises:
            OSError: something could not be written.
        """
        self._put(_LENGTH + _MARK)
        self._put(self._sha.hexdigest().encode())
        if self._error is not None:
            raise self._error

    def _put(self, part: bytes | memoryview) -> None:
        if self._error is not None:
            return
        try:
            self._file.write(part)
            self._sha.update(part)
        except OSError as error:
            self._error = error


def read_weights(path: Path, field: str, expected: str, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what ``write_weights`` wrote, or an earlier version without a seal; weights only: no code is ever run.

    Args:
        field: what the file is, for messages.
        expected: what it should be, for messages.

    Raises:
        InputError: another kind of file, a damaged one, or one that holds no mapping.
    """
    sealed = _has_true_seal(path)
    if sealed is False:
        raise InputError(path, field, "bytes that do not match its checksum", expected, _DAMAGED)
    if sealed is None:
        refuse_other_kinds(path, field, expected, "torch", "pickle")
        _check_archive(path, field, expected)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds here, by where the damage is
        if is_text(path):
            raise InputError(path, field, "a text file", expected) from error
        found = "a file that cannot be read as weights"
        if not isinstance(error, pickle.UnpicklingError):  # of which torch says only how to run the code in it
            found += f" ({in_one_line(error)})"
        raise InputError(path, field, found, expected, _CODE) from error
    if not isinstance(state, dict):
        hint = "Use one that this program wrote. Gaussians of a 3DGS program go into teacher.ply, as a PLY."
        raise InputError(path, field, f"a {type(state).__name__} of another program", expected, hint)
    return state


@contextmanager
def restoring(path: str | Path, part: str) -> Iterator[None]:
    """Turns any error within, while a part of a file is restored, into an ``InputError`` about that part."""
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        found = f"something that does not fit ({type(error).__name__}: {in_one_line(error)})"
        raise InputError(path, part, found, "what this program wrote", "Use another one, or start anew.") from error


def in_one_line(error: BaseException) -> str:
    """The beginning of what an error says."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _has_true_seal(path: Path) -> bool | None:
    """Whether the file's seal is that of its bytes; None: it has none, not even a damaged one."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _RECORD_SIZE - _COMMENT))
        tail = file.read()
        record = tail.rfind(_RECORD)
        if record < 0 or tail[record:][_RECORD_SIZE - 2 :] == b"\0\0":
            return None
        seal = tail[record + _RECORD_SIZE - 2 :]
        digits = seal[len(_LENGTH + _MARK) :]
        is_seal = seal.startswith(_LENGTH + _MARK) and len(digits) == _DIGITS
        return is_seal and digits == _sha256(file, size - _DIGITS).encode()


def _sha256(file: BinaryIO, end: int) -> str:
    """Of the first ``end`` bytes."""
    sha = hashlib.sha256()
    file.seek(0)
    while (left := end - file.tell()) > 0 and (chunk := file.read(min(_CHUNK, left))):
        sha.update(chunk)
    return sha.hexdigest()


def _check_archive(path: Path, field: str, expected: str) -> None:
    """Checks the CRCs of a zip archive; files of other kinds pass."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() and "an entry's CRC does not match"
    except Exception as error:  # a damaged archive can fail in any way
        damaged = in_one_line(error)
    if damaged is not None:
        raise InputError(path, field, f"a damaged archive ({damaged})", expected, _DAMAGED)
