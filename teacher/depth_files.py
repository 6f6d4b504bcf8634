"""A teacher's depth files: reading one ``.npy``, and which of its values say that nothing is there."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from settings.errors import InputError

EmptyValues = Sequence[str | float]
"""What ``teacher.depth_empty`` says: ``"inf"``, ``"nan"``, ``"negative"``, a number > 0 and all beyond, or one < 0 and
all below."""

# numpy parses a file's header with ast, at which CPython 3.11 may fail when several threads do it: "SystemError: AST
# constructor recursion depth mismatch", seen once in thousands of files.
_HEADER_LOCK = threading.Lock()
_WHOLE = "a whole float32 (H, W) .npy file"
_OTHER_FILES = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "Fetch the files: git lfs pull."),
    b"\x89PNG": ("a PNG picture", "Save depth as float32 .npy in world units."),
}
# Depth is absurdly far when it is so many times that of the nearest quarter, in any scene, or when one value is that
# of a tenth of the pixels and so many times the median of the others.
_ABSURD, _ABSURD_ANYWHERE = 1e5, 1e9
_SKY_SHARE, _SKY_GAP = 0.1, 2.0
_SAMPLE = 4096
# A value this much smaller than the greatest, of any kind, is 1/z of a sky or rounding.
_NOTHING = 1e-6


def read_depth(path: str | Path, empty: EmptyValues | None = None) -> Tensor:
    """Reads one ``.npy`` depth map as (H, W) float32, 0 where nothing is there; axes of length 1 are dropped.

    Args:
        empty: values beside 0 that say so. None: 0 alone, and what looks like another one is refused.

    Raises:
        InputError: missing, truncated or overlong file, pickled objects, an archive, not a floating (H, W) array;
            non-finite, negative or absurdly far values, with their count and the setting that has them mean nothing.
    """
    path = Path(path)
    values = _read_array(path)
    if values.dtype.kind != "f":
        raise InputError(path, "depth dtype", *_no_floats(values))
    shape, values = values.shape, values.squeeze()
    if values.ndim != 2:
        raise InputError(path, "depth shape", shape, "(H, W)")
    with np.errstate(over="ignore"):
        values = np.array(values, np.float32)  # what follows is asked of the very values that are used
    if empty:
        values[_said_empty(values, empty)] = 0
    _check_values(path, values, guess=empty is None)
    values[values < _NOTHING * values.max(initial=0)] = 0
    return torch.from_numpy(values)


def _read_array(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return _array_in(path, file)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(path, "depth", "no such file", "a float32 (H, W) .npy file") from error
    except Exception as error:  # numpy's parser raises ValueError, SyntaxError, TypeError ... for bad bytes
        raise InputError(path, "depth", f"unreadable data ({error})", _WHOLE) from error


def _array_in(path: Path, file: BinaryIO) -> np.ndarray:
    """The array of an open file whose length is what its header says."""
    start = file.read(32)
    for magic, (found, hint) in _OTHER_FILES.items():
        if start.startswith(magic):
            raise InputError(path, "depth", found, _WHOLE, hint)
    if start.startswith(b"PK\x03\x04"):
        with np.load(path, allow_pickle=False) as archive:
            names = ", ".join(archive.files)
        hint = "Take one of its arrays out: np.save(path, np.load(path)['NAME'])."
        raise InputError(path, "depth", f"an archive (.npz) of {names}", _WHOLE, hint)
    file.seek(0)
    with _HEADER_LOCK:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    data, expected = file.read(), math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes of values where {shape} {dtype} takes {expected}")
    values = np.frombuffer(data, dtype)
    return values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


def _no_floats(values: np.ndarray) -> tuple[str, str, str]:
    """Found, expected and hint for an array that is not floating point."""
    hint = "Save depth in world units: np.save(path, depth.astype(np.float32))."
    if values.dtype.kind not in "iu" or not values.size or values.max() <= 0:
        return str(values.dtype), "floating point", hint
    found = f"{values.dtype}, {values[values > 0].min()} to {values.max()} where not 0"
    if values.max() > 255:
        hint = "If these are millimetres of metres, divide by 1000: np.save(path, depth.astype(np.float32) / 1000)."
    return found, "floating point, in world units", hint


def _said_empty(values: np.ndarray, empty: EmptyValues) -> np.ndarray:
    """(H, W) bool: values that mean that nothing is there."""
    found = np.zeros(values.shape, bool)
    for meaning in empty:
        if isinstance(meaning, str):
            found |= {"inf": np.isinf, "nan": np.isnan, "negative": _is_negative}[meaning](values)
        else:
            found |= values >= np.float32(meaning) if meaning > 0 else values <= np.float32(meaning)
    return found


def _is_negative(values: np.ndarray) -> np.ndarray:
    return np.isfinite(values) & (values < 0)


def _check_values(path: Path, values: np.ndarray, guess: bool) -> None:
    """InputError when some values cannot be depth, or, where that is to be guessed, are absurdly far."""
    kinds = {"inf": np.isinf(values), "nan": np.isnan(values), "negative": _is_negative(values)}
    counts = {name: int(mask.sum()) for name, mask in kinds.items()}
    settings = {name: name for name in counts}
    far = _far_from(values) if guess else None
    if far is not None:
        counts["far"], settings["far"] = int((values[np.isfinite(values)] >= np.float32(far)).sum()), f"{far:g}"
    if negative := values[kinds["negative"]].tolist():
        settings["negative"] = f"{negative[0]:g}" if len(set(negative)) == 1 else "negative"
    present = [name for name, count in counts.items() if count]
    if not present:
        return
    words = {"far": f"absurdly far ({settings.get('far')} and more)", "nan": "NaN"}
    found = ", ".join(f"{counts[name]} {words.get(name, name)}" for name in present) + f" of {values.size} values"
    said = [settings[name] for name in present]
    option = f"teacher.depth_empty={said[0]}" if len(said) == 1 else f"'teacher.depth_empty=[{', '.join(said)}]'"
    hint = f"If they mean that nothing is there: --set {option}. Otherwise render it again."
    if counts["negative"] and not (values > 0).any():
        hint = f"All depth is negative: if z is counted against the viewing direction, save its absolute value. {hint}"
    if present == ["far"]:
        hint += " If they are true: --set 'teacher.depth_empty=[]'."
    raise InputError(path, "depth", found, "finite values >= 0, 0 where nothing is there", hint)


def _far_from(values: np.ndarray) -> float | None:
    """The value from which on depth is absurdly far; None when none is."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not len(positive):
        return None
    sample = positive[:: max(1, len(positive) // _SAMPLE)]
    levels, counts = np.unique(sample, return_counts=True)
    often = levels[counts.argmax()]
    others = sample[sample != often]
    share = counts.max() * len(positive) / (len(sample) * values.size)
    if len(others) and counts.max() > 1 and share >= _SKY_SHARE and often >= _SKY_GAP * np.median(others):
        return float(str(often))  # the shortest decimal that means it
    limit = min(_ABSURD * float(np.percentile(sample, 25)), _ABSURD_ANYWHERE)
    return 10.0 ** math.floor(math.log10(positive[positive >= limit].min())) if positive.max() >= limit else None
