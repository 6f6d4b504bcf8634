"""Gaussians on disk, each format in a file of its own, behind one door.

A new format is a module that reads and writes ``Gaussians``, and one more pair in ``FORMATS``.
"""

from __future__ import annotations

from pathlib import Path

from settings.errors import InputError
from teacher.gaussian_files.npz import read_npz, write_npz
from teacher.gaussian_files.ply import read_ply, write_ply
from teacher.gaussian_files.spz import import_gsply, read_spz, write_spz
from teacher.gaussians import Gaussians

FORMATS = {".ply": (read_ply, write_ply), ".npz": (read_npz, write_npz), ".spz": (read_spz, write_spz)}
"""What reads and what writes the files of an extension."""


def read_gaussians(path: str | Path) -> Gaussians:
    """Reads Gaussians from ``.ply`` (``read_ply``), ``.npz`` or ``.spz``, chosen by the extension.

    Raises:
        InputError: another extension; the file is missing, damaged or of another kind; it holds no Gaussians,
            values that are not finite or rotations of length zero; ``.spz`` without gsply.
    """
    read, _ = FORMATS[_extension(path)]
    return read(path)


def write_gaussians(path: str | Path, gaussians: Gaussians) -> None:
    """Writes ``.ply`` (``write_ply``), ``.npz`` (float16) or ``.spz``, chosen by the extension.

    Raises:
        InputError: another extension, a folder that cannot be written, ``.spz`` without gsply.
    """
    _, write = FORMATS[_extension(path)]
    write(path, gaussians)


def check_gaussians_file(path: str | Path) -> None:
    """InputError when ``write_gaussians`` could not write there: extension, missing folder, missing gsply."""
    path = Path(path)
    if _extension(path) == ".spz":
        import_gsply(path)
    if not path.parent.is_dir():
        raise InputError(path, "output file", f"no folder {path.parent}", "an existing folder", "Make it first.")


def _extension(path: str | Path) -> str:
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        expected = f"one of {', '.join(FORMATS)}"
        raise InputError(path, "file extension", extension or "none", expected, "The extension says the format.")
    return extension
