"""The files of a COLMAP model in binary: little endian, counts before what they count."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from machine.file_kinds import refuse_other_kinds
from scene.formats.colmap_records import CAMERA_MODELS, ColmapCamera, ColmapImage
from settings.errors import InputError

_BY_NUMBER = {number: (name, parameters) for name, (number, parameters) in CAMERA_MODELS.items()}
_LONGEST_NAME = 4096  # bytes
_POINT2D, _TRACK = 24, 8  # bytes of an observation in images.bin, in points3D.bin


class _Cursor:
    """A place in a file; what lies beyond its end is an InputError that names the record."""

    def __init__(self, path: Path, data: mmap.mmap | bytes, what: str) -> None:
        self._path, self._data, self._what, self._at, self._record = path, data, what, 0, ""

    def records(self, least: int) -> Iterator[int]:
        """Numbers of the records, as many as the file says, each of ``least`` bytes or more; then the file must end."""
        self._record = "its count"
        (count,) = self.take("<Q")
        if count * least > len(self._data) - self._at:
            found = f"{count:,} {self._what}s announced in {len(self._data):,} bytes"
            raise self._error(found, f"at least {least} bytes for each")
        for index in range(count):
            self._record = f"{self._what} {index + 1} of {count}"
            yield index
        if self._at != len(self._data):
            raise self._error(f"{len(self._data) - self._at:,} bytes after the last {self._what}", "none")

    def take(self, layout: str) -> tuple:
        start = self._at
        self.skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self._data, start)

    def skip(self, size: int) -> None:
        if size > len(self._data) - self._at:
            found = f"the end of the file after {len(self._data):,} bytes, within {self._record}"
            raise self._error(found, "all of it")
        self._at += size

    def text(self) -> str:
        end = self._data.find(b"\0", self._at, self._at + _LONGEST_NAME)
        if end < 0:
            raise self._error(f"no end of the name of {self._record}", "a name that ends in a zero byte")
        raw, self._at = bytes(self._data[self._at : end]), end + 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def _error(self, found: str, expected: str) -> InputError:
        # Only now: the first bytes of a whole model can be those of many a format.
        refuse_other_kinds(self._path, "file", f"COLMAP's {self._path.name}")
        return InputError(self._path, f"{self._what}s", found, expected, "Copy the model again, all files of it.")


@contextmanager
def _opened(path: Path, what: str) -> Iterator[_Cursor]:
    expected = f"COLMAP's {path.name}"
    try:
        with open(path, "rb") as file:
            if not file.read(1):  # nothing cannot be mapped
                yield _Cursor(path, b"", what)
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield _Cursor(path, data, what)
    except OSError as error:
        raise InputError(path, "file", error.strerror or error, expected) from error


def read_cameras(path: Path) -> list[ColmapCamera]:
    """``cameras.bin``; InputError where it is missing, cut off or foreign."""
    cameras = []
    with _opened(path, "camera") as cursor:
        for _ in cursor.records(least=24 + 3 * 8):
            key, number, width, height = cursor.take("<IiQQ")
            if number not in _BY_NUMBER:
                expected = f"one of 0 to {max(_BY_NUMBER)}"
                raise InputError(path, f"camera {key}", f"camera model number {number}", expected)
            name, count = _BY_NUMBER[number]
            cameras.append(ColmapCamera(key, name, width, height, cursor.take(f"<{count}d")))
    return cameras


def read_images(path: Path) -> list[ColmapImage]:
    """``images.bin`` without its observations, which are skipped; InputError as ``read_cameras``."""
    images = []
    with _opened(path, "image") as cursor:
        for _ in cursor.records(least=64 + 1 + 8):
            key, *pose, camera = cursor.take("<I7dI")
            name = cursor.text()
            (observations,) = cursor.take("<Q")
            cursor.skip(observations * _POINT2D)
            images.append(ColmapImage(key, tuple(pose[:4]), tuple(pose[4:]), camera, name))
    return images


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``points3D.bin``: (M, 3) float64 positions and (M, 3) uint8 colours; InputError as ``read_images``."""
    positions, colors = [], []
    with _opened(path, "point") as cursor:
        for _ in cursor.records(least=51):
            _, x, y, z, red, green, blue, _, track = cursor.take("<Q3d3BdQ")
            cursor.skip(track * _TRACK)
            positions.append((x, y, z))
            colors.append((red, green, blue))
    return np.array(positions, np.float64).reshape(-1, 3), np.array(colors, np.uint8).reshape(-1, 3)
