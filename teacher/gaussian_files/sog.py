"""PlayCanvas's SOG: pictures whose pixels are bytes of Gaussians, and a ``meta.json`` that says what the bytes mean.

All are members of a zip archive (``.sog``), or lie beside each other. Pixel k of a lossless WebP is Gaussian k, row by
row. Positions have 16 bits in two pictures, between bounds, of ``sign(x) log(1 + |x|)``; rotations are the three
smallest of w, x, y, z, the alpha channel saying which is the largest; log-scales and colours are indices of a table.
Version 1 has linear tables, given by their ends. Higher harmonics are indices of palettes in a picture that has 64 in
each of its rows.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scene.world_offset import Offset
from settings.errors import InputError
from teacher.gaussian_files.checks import (
    DAMAGED,
    FIELDS,
    check_present,
    checked_gaussians,
    warn_of_antialiasing,
)
from teacher.gaussian_files.compressed_ply import logits_of_opacities, quaternions_of_smallest
from teacher.gaussian_files.other_files import CONVERT, LONGEST_META
from teacher.gaussians import Gaussians

_META = "meta.json"
_SECTIONS = {"means": 2, "scales": 1, "quats": 1, "sh0": 1}
_PALETTES_A_ROW = 64
_MOST_PIXELS = 64  # of a picture for each of its bytes
_LARGEST_IS = 252  # alpha of a rotation whose largest part is the first
_DEGREES = {3: 1, 8: 2, 15: 3}  # of the harmonics, by their number without the constant one
_ERRORS = (OSError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError)

Member = Callable[[str], bytes]


def read_sog(path: str | Path, offset: Offset | None = None) -> Gaussians:
    """Reads SOG, versions 1 and 2: a ``.sog``, or the ``meta.json`` of one that is unpacked.

    Args:
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: see ``read_gaussians``.
    """
    check_present(path)
    path = Path(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return checked_gaussians(path, _arrays(path, lambda name: _of_archive(archive, name)), offset)
    # The JSON of an unpacked one may have another name; its pictures have those that it says.
    beside = {_META: path}
    return checked_gaussians(
        path, _arrays(path, lambda name: beside.get(name, path.parent / name).read_bytes()), offset
    )


def _of_archive(archive: zipfile.ZipFile, name: str) -> bytes:
    # Pictures hardly deflate: what unpacks to much more than its archive is not one.
    most = LONGEST_META + 4 * Path(archive.filename).stat().st_size
    with archive.open(name) as member:
        data = member.read(most + 1)
    if len(data) > most:
        raise ValueError("it unpacks to far more than its size")
    return data


class _Sog:
    """The sections of a SOG and its pictures, checked as they are asked for."""

    def __init__(self, path: Path, member: Member) -> None:
        self._path, self._member = path, member
        try:
            self.meta = json.loads(member(_META))
        except (*_ERRORS, KeyError, RecursionError) as error:
            raise self.refused(_META, f"unreadable data ({error})", "JSON", DAMAGED) from None
        if not isinstance(self.meta, dict):
            raise self.refused(_META, "no sections", "means, scales, quats and sh0")
        version = self.meta.get("version", 1)
        if version not in (1, 2):
            raise self.refused("SOG version", str(version)[:40], "1 or 2", CONVERT.format(name=path.name))
        count = self.meta.get("count") if version == 2 else self._shape()
        if type(count) is not int or count < 1:
            raise self.refused("count", str(count)[:40], "a number of Gaussians, at least 1")
        if self.meta.get("antialias") is True:
            warn_of_antialiasing(path, f"its {_META} says so")
        self.count = count

    def refused(self, field: str, found: str, expected: str, hint: str = "") -> InputError:
        return InputError(self._path, field, found, expected, hint)

    def _shape(self) -> object:
        shape = self.section("means").get("shape")
        return shape[0] if isinstance(shape, list) and shape else None

    def section(self, name: str) -> dict[str, Any]:
        section = self.meta.get(name)
        if not isinstance(section, dict):
            raise self.refused(name, "no such section", "means, scales, quats and sh0", DAMAGED)
        return section

    def numbers(self, name: str, key: str, count: int) -> np.ndarray:
        """(count,) float64, of one number or as many."""
        try:
            values = np.array(self.section(name).get(key), dtype=np.float64)
            return np.broadcast_to(values, count)
        except (TypeError, ValueError):
            raise self.refused(f"{name}.{key}", "something else", f"{count} numbers", DAMAGED) from None

    def table(self, name: str, channels: int) -> np.ndarray:
        """(256, channels) what the bytes of each channel mean; NaN: nothing."""
        codebook = self.section(name).get("codebook")
        if codebook is not None:
            count = len(codebook) if isinstance(codebook, list) and 0 < len(codebook) <= 256 else 256
            values = np.pad(self.numbers(name, "codebook", count), (0, 256 - count), constant_values=np.nan)
            return np.repeat(values[:, None], channels, axis=1)
        low, high = (self.numbers(name, key, channels) for key in ("mins", "maxs"))
        return low + (high - low) * (np.arange(256) / 255)[:, None]

    def pictures(self, name: str, count: int) -> list[np.ndarray]:
        """``count`` pictures of a section, (H, W, 4) uint8 each.

        Raises:
            InputError: they are not there, or are no pictures that the Gaussians of this file could have.
        """
        files = self.section(name).get("files")
        names = files if isinstance(files, list) else []
        # A name with a folder in it could lead out of that of the file.
        if len(names) != count or not all(isinstance(file, str) and file == Path(file).name for file in names):
            raise self.refused(f"{name}.files", str(files)[:80], f"{count} names of pictures")
        pictures = []
        for file in names:
            try:
                data = self._member(file)
                with Image.open(BytesIO(data), formats=("WEBP", "PNG")) as image:
                    pixels = image.width * image.height
                    # Colours may all be one, which takes no bytes; places are not.
                    if pixels > _MOST_PIXELS * len(data) + (0 if name == "means" else 4 * self.count):
                        raise ValueError(f"{image.width}x{image.height} pixels in {len(data)} bytes")
                    pictures.append(np.asarray(image.convert("RGBA")))
            except (*_ERRORS, KeyError) as error:
                raise self.refused(file, f"unreadable data ({error})", "a picture of the splat", DAMAGED) from None
        return pictures

    def pixels(self, name: str) -> list[np.ndarray]:
        """(count, 4) uint8 of each picture of a section: a pixel for each Gaussian."""
        rows = [picture.reshape(-1, 4) for picture in self.pictures(name, _SECTIONS[name])]
        return [self.enough(name, row) for row in rows]

    def enough(self, name: str, row: np.ndarray) -> np.ndarray:
        if len(row) < self.count:
            raise self.refused(name, f"{len(row)} pixels", f"one for each of {self.count} Gaussians", DAMAGED)
        return row[: self.count]


@np.errstate(over="ignore", invalid="ignore")  # what is not finite then is checked
def _arrays(path: Path, member: Member) -> dict[str, np.ndarray]:
    """The arrays of ``Gaussians`` from the pictures."""
    sog = _Sog(path, member)
    (low, high), (scales,), (quats,), (sh0,) = (sog.pixels(name) for name in _SECTIONS)
    lower, upper = (sog.numbers("means", key, 3) for key in ("mins", "maxs"))
    words = low[:, :3].astype(np.uint16) | high[:, :3].astype(np.uint16) << 8
    means = lower + (upper - lower) * (words / 65535)
    means = np.sign(means) * np.expm1(np.abs(means))
    colors, is_coded = sog.table("sh0", 4), "codebook" in sog.section("sh0")
    opacity_logits = logits_of_opacities(sh0[:, 3] / 255) if is_coded else colors[:, 3][sh0[:, 3]]
    sh = _looked_up(colors[:, :3], sh0[:, :3])[:, None, :]
    if "shN" in sog.meta:
        sh = np.concatenate([sh, _higher_harmonics(sog)], axis=1)
    smallest = (quats[:, :3] / np.float32(255) - 0.5) * np.float32(np.sqrt(2))
    place = quats[:, 3].astype(np.int64) - _LARGEST_IS
    if (place < 0).any():
        raise sog.refused("quats", f"an alpha of {quats[:, 3].min()}", f"{_LARGEST_IS} to 255", DAMAGED)
    arrays = means, _looked_up(sog.table("scales", 3), scales[:, :3]), quaternions_of_smallest(smallest, place)
    return dict(zip(FIELDS, (*arrays, opacity_logits, sh), strict=True))


def _higher_harmonics(sog: _Sog) -> np.ndarray:
    """(N, K - 1, 3) coefficients after the constant one."""
    palette, labels = sog.pictures("shN", 2)
    count = palette.shape[1] // _PALETTES_A_ROW
    if palette.shape[1] % _PALETTES_A_ROW or count not in _DEGREES:
        raise sog.refused("shN", f"palettes {palette.shape[1]} pixels wide", "192, 512 or 960", DAMAGED)
    labels = sog.enough("shN", labels.reshape(-1, 4))
    rows = labels[:, 0].astype(np.int64) | labels[:, 1].astype(np.int64) << 8
    palettes = palette[:, :, :3].reshape(-1, count, 3)
    if rows.max() >= len(palettes):
        raise sog.refused("shN", f"palette {rows.max()}", f"one of {len(palettes)}", DAMAGED)
    return _looked_up(sog.table("shN", 3), palettes)[rows]


def _looked_up(table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """(..., C) float32: of (256, C) tables what (..., C) bytes stand for."""
    return np.stack([table[:, c][indices[..., c]] for c in range(table.shape[1])], axis=-1).astype(np.float32)
