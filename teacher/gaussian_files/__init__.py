"""Gaussians on disk, each format in a file of its own, behind one door.

A new format is a module that reads ``Gaussians``, and may write them, one more pair in ``FORMATS`` and, in
``machine/file_kinds.py``, the first bytes that tell it.
"""

from __future__ import annotations

from pathlib import Path

from machine.file_kinds import file_kind
from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import check_present
from teacher.gaussian_files.npz import fitted_width_of_npz, read_npz, write_npz
from teacher.gaussian_files.other_files import is_sog_json, refuse_other_file
from teacher.gaussian_files.ply import fitted_width_of_ply, read_ply, write_ply
from teacher.gaussian_files.sog import read_sog
from teacher.gaussian_files.splat import is_splat, read_splat
from teacher.gaussian_files.spz import import_gsply, read_spz, write_spz
from teacher.gaussians import Gaussians

FORMATS = {
    "ply": (read_ply, write_ply),
    "npz": (read_npz, write_npz),
    "spz": (read_spz, write_spz),
    "splat": (read_splat, None),
    "sog": (read_sog, None),
}
"""What reads and what writes a format (None: nothing), by its key among the kinds of files, its extension too."""
_WRITTEN = [name for name, (_, write) in FORMATS.items() if write is not None]


def read_gaussians(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads Gaussians from a PLY (``read_ply``), ``.npz``, ``.spz``, ``.splat`` or SOG, told by its first bytes.

    Args:
        offset: ``data.offset``, taken off the means: see ``moved_positions``.

    Raises:
        InputError: the file is missing, damaged or something else; what it holds cannot be drawn, see
            ``checked_gaussians``; ``.spz`` without gsply, or of version 4 without zstandard.
    """
    check_present(path)
    kind = file_kind(path)
    key = None if kind is None else kind.key
    # Without a header, a .splat may begin with any byte: one of 128 with that of a text.
    if key not in FORMATS and (kind is None or Path(path).suffix.lower() == ".splat") and is_splat(path):
        key = "splat"
    elif key == "json" and is_sog_json(path):
        key = "sog"
    if key not in FORMATS:
        refuse_other_file(path, kind)
    read, _ = FORMATS[key]
    return read(path, offset)


def write_gaussians(path: str | Path, gaussians: Gaussians, fitted_width: int | None = None) -> None:
    """Writes ``.ply`` (``write_ply``), ``.npz`` (float16) or ``.spz``, chosen by the extension.

    Args:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels, for ``fitted_width_in``; None: unknown.

    Raises:
        InputError: another extension, a folder that cannot be written, no Gaussians, ``.spz`` without gsply.
    """
    if not len(gaussians):
        raise InputError(path, "Gaussians", "none", "at least 1 to write")
    _, write = FORMATS[_format(path)]
    write(path, gaussians, fitted_width)


def fitted_width_in(path: str | Path) -> int | None:
    """The width in pixels at which a file's Gaussians were fitted; None where it does not say.

    Raises:
        OSError: it cannot be read.
    """
    kind = file_kind(path)
    read = None if kind is None else {"ply": fitted_width_of_ply, "npz": fitted_width_of_npz}.get(kind.key)
    return None if read is None else read(path)


def check_gaussians_file(path: str | Path) -> None:
    """InputError when ``write_gaussians`` could not write there: extension, missing folder, missing gsply."""
    path = Path(path)
    if _format(path) == "spz":
        import_gsply(path)
    if not path.parent.is_dir():
        raise InputError(path, "output file", f"no folder {path.parent}", "an existing folder", "Make it first.")


def _format(path: str | Path) -> str:
    """The kind of file that an extension asks for."""
    extension = Path(path).suffix.lower()
    if (name := extension.removeprefix(".")) not in _WRITTEN:
        expected = f"one of {', '.join(f'.{name}' for name in _WRITTEN)}"
        raise InputError(path, "file extension", extension or "none", expected, "The extension says the format.")
    return name
