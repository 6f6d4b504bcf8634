"""What the teacher's ``.npz`` files share: arrays written at once and read to the byte, float16 without overflow."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from machine.files import write_atomically
from settings.errors import InputError

NPZ_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, OverflowError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file may raise."""
_MOST_DEFLATED = 1032  # bytes that deflate can make of one
_READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def save_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Writes the arrays deflated, all or none."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def load_npz(path: str | Path, only: str | None = None) -> dict[str, np.ndarray]:
    """The arrays by name. Nothing is unpickled, and nothing allocated that the file is too short for.

    Args:
        only: the one that is wanted, if it is there; None: all.

    Raises:
        one of ``NPZ_ERRORS``: the archive is damaged, or an array is not as long as its header says.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        return {name: _array(archive, info) for name, info in members.items() if only in (None, name)}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.file_size > _MOST_DEFLATED * (info.compress_size + 1):
        raise ValueError(f"{info.filename}: {info.compress_size} bytes cannot hold {info.file_size}")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        shape, is_fortran, kind = _READ_HEADER[version](file)
        if kind.hasobject:
            raise ValueError(f"{info.filename} is a pickle, which is not read")
        size = math.prod(shape) * kind.itemsize
        if file.tell() + size != info.file_size:
            raise ValueError(f"{info.filename}: {info.file_size - file.tell()} bytes for {kind} {shape}")
        data = bytearray(file.read())  # to the end, where zipfile compares the checksum
    return np.frombuffer(data, kind).reshape(shape, order="F" if is_fortran else "C")


def narrowed(path: str | Path, name: str, values: np.ndarray, dtype: DTypeLike, hint: str) -> np.ndarray:
    """The values in a narrower floating type; InputError about ``path`` where one does not fit."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if not np.isfinite(narrow).all():
        raise InputError(path, name, "a value beyond 65504", f"values that fit {np.dtype(dtype).name}", hint)
    return narrow
