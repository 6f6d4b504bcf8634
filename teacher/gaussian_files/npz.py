"""``.npz`` of the arrays of ``Gaussians``, deflated."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from machine.files import output_errors
from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED, FIELDS, FITTED_WIDTH, check_present, checked_gaussians
from teacher.gaussian_files.other_files import FROM_CHECKPOINT
from teacher.gaussians import Gaussians
from teacher.npz_files import NPZ_ERRORS, load_npz, narrowed, save_npz

NPZ_FORMAT, NPZ_VERSION = "3d-gaussians", 1
_NPZ_EXPECTED = f"an .npz of format {NPZ_FORMAT}, version {NPZ_VERSION}"


def write_npz(
    path: str | Path, gaussians: Gaussians, fitted_width: int | None = None, *, dtype: type = np.float16
) -> None:
    """Writes the arrays of ``Gaussians`` under their names, with ``format`` and ``version``, deflated.

    Args:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels; an array of that name holds it.
        dtype: ``np.float16``, which keeps values to 5e-4 of themselves, or ``np.float32``, which is exact. Means are
            float32 always: half precision would move a Gaussian that is 4 units out by 0.002.

    Raises:
        InputError: a value does not fit float16; the folder is missing or cannot be written.
    """
    arrays = {name: getattr(gaussians, name).detach().cpu().float().numpy() for name in FIELDS}
    for name in FIELDS[1:]:
        arrays[name] = narrowed(path, name, arrays[name], dtype, "Use .ply.")
    if not Path(path).parent.is_dir():
        raise InputError(path, "output file", f"no folder {Path(path).parent}", "a folder that can be written")
    with output_errors(path):
        known = {} if fitted_width is None else {FITTED_WIDTH: np.array(fitted_width)}
        save_npz(path, format=np.array(NPZ_FORMAT), version=np.array(NPZ_VERSION), **known, **arrays)


def fitted_width_of_npz(path: str | Path) -> int | None:
    """What ``write_npz`` wrote; None where the file does not say, or cannot be read."""
    try:
        width = load_npz(path, only=FITTED_WIDTH).get(FITTED_WIDTH)
    except NPZ_ERRORS:
        return None
    return int(width) if width is not None and width.ndim == 0 and width.dtype.kind in "iu" and width > 0 else None


def read_npz(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads what ``write_npz`` wrote, without unpickling anything.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: see ``read_gaussians``.
    """
    check_present(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not {"format", "version"} <= set(names):
            raise InputError(path, "npz file", f"an archive of {', '.join(names[:6])}", _NPZ_EXPECTED, FROM_CHECKPOINT)
        arrays = load_npz(path)
    except NPZ_ERRORS as error:
        raise InputError(path, "npz file", f"unreadable data ({error})", _NPZ_EXPECTED, DAMAGED) from None
    name, version = str(arrays["format"]), str(arrays["version"])
    if (name, version) != (NPZ_FORMAT, str(NPZ_VERSION)):
        raise InputError(path, "format, version", f"{name}, {version}", f"{NPZ_FORMAT}, {NPZ_VERSION}")
    if missing := [field for field in FIELDS if field not in arrays]:
        raise InputError(path, "arrays", f"no {', '.join(missing)}", _NPZ_EXPECTED)
    for field in FIELDS:
        if arrays[field].dtype.kind != "f":
            raise InputError(path, f"array {field}", arrays[field].dtype, "floating point")
    return checked_gaussians(path, {field: arrays[field] for field in FIELDS}, offset)
