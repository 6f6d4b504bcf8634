"""antimatter15's ``.splat``: rows of 32 bytes without a header, as web viewers load them.

A row is a position and three standard deviations in float32, red, green, blue and opacity in 8 bits each, and a
rotation w, x, y, z of bytes, 128 being 0. There are no harmonics but the constant one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from machine.file_kinds import is_text
from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import DAMAGED, FIELDS, check_present, checked_gaussians
from teacher.gaussian_files.compressed_ply import logits_of_opacities
from teacher.gaussians import Gaussians, sh_of_colors

_ROW = np.dtype([("means", "<f4", 3), ("scales", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])
_TOLD_BY = 256  # rows that are looked at to tell what a file is
_FARTHEST, _THINNEST, _WIDEST = 1e6, 1e-12, 1e4  # a float32 made of other data is mostly beyond, or negative
_FARTHEST_NAMED = 1e8  # of what is called .splat: map coordinates may be large
_MOST_STRANGE = 0.1  # share of these rows that may be damaged


def is_splat(path: str | Path) -> bool:
    """Whether the file is a ``.splat``, as its size and first rows tell; of one that is cut its name tells."""
    path = Path(path)
    size = path.stat().st_size
    if size < _ROW.itemsize or (size % _ROW.itemsize and path.suffix.lower() != ".splat"):
        return False
    if is_text(path):  # digits make small numbers: a table of text would be a cloud
        return False
    rows = np.fromfile(path, _ROW, _TOLD_BY)
    plausible = ((rows["scales"] >= 0) & (rows["scales"] < _WIDEST)).all(axis=1)
    plausible &= rows["scales"].max(axis=1) > _THINNEST
    farthest = _FARTHEST_NAMED if path.suffix.lower() == ".splat" else _FARTHEST
    plausible &= (np.abs(rows["means"]) < farthest).all(axis=1)
    return bool(plausible.mean() >= 1 - _MOST_STRANGE)


def read_splat(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads a ``.splat``; its axes are those of the PLY that it was made from.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: see ``read_gaussians``.
    """
    check_present(path)
    count, over = divmod(Path(path).stat().st_size, _ROW.itemsize)
    if over:
        found = f"{count} rows of {_ROW.itemsize} bytes and {over} bytes more"
        raise InputError(path, ".splat file", found, "whole rows", DAMAGED)
    rows = np.memmap(path, _ROW, "r")
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no number then is checked
        log_scales = np.log(rows["scales"])
    arrays = (
        rows["means"],
        log_scales,
        (rows["rotation"].astype(np.float32) - 128) / 128,
        logits_of_opacities(rows["color"][:, 3] / 255),
        sh_of_colors(rows["color"][:, :3] / np.float32(255)),
    )
    return checked_gaussians(path, dict(zip(FIELDS, arrays, strict=True)), offset)
