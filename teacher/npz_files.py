"""What the teacher's ``.npz`` files share: one write of all arrays, float16 without overflow, the errors of reading."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from machine.files import write_atomically
from settings.errors import InputError

NPZ_ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, AttributeError, TypeError, OverflowError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What reading a damaged file may raise."""


def save_npz(path: str | Path, **arrays: np.ndarray) -> None:
    """Writes the arrays deflated, all or none."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def narrowed(path: str | Path, name: str, values: np.ndarray, dtype: DTypeLike, hint: str) -> np.ndarray:
    """The values in a narrower floating type; InputError about ``path`` where one does not fit."""
    with np.errstate(over="ignore"):
        narrow = values.astype(dtype)
    if not np.isfinite(narrow).all():
        raise InputError(path, name, "a value beyond 65504", f"values that fit {np.dtype(dtype).name}", hint)
    return narrow
