"""The files of a COLMAP model as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from machine.file_kinds import refuse_other_kinds
from machine.files import write_atomically
from scene.cameras import Cameras
from scene.formats.colmap_records import CAMERA_MODELS, ColmapCamera, ColmapImage
from settings.errors import InputError

_ANNOUNCED = re.compile(r"#\s*Number of (?:cameras|images|points):\s*(\d+)")
_LONG = 1000  # characters
_CUT = "Copy the model again, all files of it."


def read_cameras(path: Path) -> list[ColmapCamera]:
    """``cameras.txt``; InputError where it is missing, cut off or foreign."""
    cameras = []
    lines, announced = _lines(path)
    for number, line in _rows(lines):
        words = line.split()
        model = words[1] if len(words) > 1 else ""
        if model not in CAMERA_MODELS:
            raise _error(path, number, f"'{line[:60]}'", "CAMERA_ID MODEL WIDTH HEIGHT PARAMS, MODEL one of COLMAP's")
        count = CAMERA_MODELS[model][1]
        if len(words) != 4 + count:
            found = f"{max(0, len(words) - 4)} parameters of {model}"
            raise _error(path, number, found, f"{count} after CAMERA_ID MODEL WIDTH HEIGHT")
        key, width, height = (_integer(path, number, words[place]) for place in (0, 2, 3))
        cameras.append(ColmapCamera(key, model, width, height, _numbers(path, number, words[4:])))
    _check_count(path, len(cameras), announced)
    return cameras


def read_images(path: Path) -> list[ColmapImage]:
    """``images.txt`` without observations, whose short lines alone are checked; InputError as ``read_cameras``."""
    images = []
    lines, announced = _lines(path)
    rows = iter(enumerate(lines, 1))
    for number, line in rows:
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then a line of points, which may be empty"
            raise _error(path, number, f"'{line[:60]}'", expected)
        pose = _numbers(path, number, words[1:8])
        key, camera = _integer(path, number, words[0]), _integer(path, number, words[8])
        images.append(ColmapImage(key, pose[:4], pose[4:], camera, words[9].strip()))
        after, points = next(rows, (number + 1, None))
        if points is None:
            raise _error(path, number, "the end of the file", "a line of points after each image, which may be empty")
        # Long lines are whole unless the file is cut there: counting the words of all would take most of the time.
        if len(points) < _LONG or after == len(lines):
            _check_observations(path, after, key, points.split())
    _check_count(path, len(images), announced)
    return images


def _check_observations(path: Path, number: int, key: int, words: list[str]) -> None:
    """InputError for a line that holds no observations: it may be the next image, where they were left out."""
    if len(words) % 3:
        found = f"{len(words)} words in the points of image {key}"
        raise _error(path, number, found, "a multiple of 3: X Y POINT3D_ID each")
    if not all(re.fullmatch(r"-?\d+", word) for word in words[2::3]) or not all(map(_is_number, words)):
        found = f"'{' '.join(words)[:60]}' as the points of image {key}"
        expected = "X Y POINT3D_ID each, or an empty line where an image has no points"
        raise _error(path, number, found, expected)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """``points3D.txt``: (M, 3) float64 positions and (M, 3) uint8 colours; InputError as ``read_cameras``."""
    positions, colors = [], []
    lines, announced = _lines(path)
    for number, line in _rows(lines):
        words = line.split(maxsplit=8)
        if len(words) < 8:
            raise _error(path, number, f"'{line[:60]}'", "POINT3D_ID X Y Z R G B ERROR TRACK")
        positions.append(_numbers(path, number, words[1:4]))
        colors.append([_integer(path, number, word) for word in words[4:7]])
        if not all(0 <= value <= 255 for value in colors[-1]):
            raise _error(path, number, f"the colour {colors[-1]}", "R, G, B from 0 to 255")
    _check_count(path, len(positions), announced)
    return np.array(positions, np.float64).reshape(-1, 3), np.array(colors, np.uint8).reshape(-1, 3)


def write_model(
    folder: Path, cameras: Cameras, names: Sequence[str], positions: np.ndarray, colors: np.ndarray
) -> None:
    """Writes ``cameras.txt``, ``images.txt`` and ``points3D.txt``, without tracks; a PINHOLE of its own for each image.

    Args:
        names: N file names of the pictures.
        positions, colors: (M, 3) float and (M, 3) uint8 sRGB.
    """
    from scipy.spatial.transform import Rotation  # slow to import, and few programs write models

    turned = cameras.c2w.double().numpy() * np.array([1.0, -1.0, -1.0, 1.0])  # to OpenCV's axes: y down, z forward
    inverse = np.linalg.inv(turned)
    x, y, z, w = Rotation.from_matrix(inverse[:, :3, :3]).as_quat().T
    poses = np.column_stack([w, x, y, z, inverse[:, :3, 3]])
    lenses = np.column_stack([part.double().numpy() for part in (cameras.fx, cameras.fy, cameras.cx, cameras.cy)])
    size = f"PINHOLE {cameras.width} {cameras.height}"
    rows = {
        "cameras": [f"{key} {size} {_text(lens)}" for key, lens in enumerate(lenses, 1)],
        "images": [
            f"{key} {_text(pose)} {key} {name}\n" for key, (pose, name) in enumerate(zip(poses, names, strict=True), 1)
        ],
        "points3D": [
            f"{key} {_text(place)} {_text(color)} 0"
            for key, (place, color) in enumerate(zip(positions, colors, strict=True), 1)
        ],
    }
    for name, lines in rows.items():
        head = f"# Number of {name.removesuffix('3D')}: {len(lines)}"
        write_atomically(folder / f"{name}.txt", "\n".join([head, *lines]) + "\n")


def _text(values: np.ndarray) -> str:
    return " ".join(map(repr, values.tolist()))


def _lines(path: Path) -> tuple[list[str], int | None]:
    """The lines of a file, and how many records its head announces; None where it does not say."""
    expected = f"COLMAP's {path.name}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, "file", error.strerror or error, expected) from error
    refuse_other_kinds(path, "file", expected)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise InputError(path, "text", "zero bytes", expected, "Binary models end in .bin.")
    # Not splitlines, which also ends a line at characters that a file name may hold.
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    head = (_ANNOUNCED.match(line) for line in lines[:16])
    announced = next((int(match[1]) for match in head if match), None)
    return lines, announced


def _rows(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with something in them, comments apart, with their numbers."""
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#"))


def _numbers(path: Path, number: int, words: list[str]) -> tuple[float, ...]:
    try:
        return tuple(map(float, words))
    except ValueError as error:
        raise _error(path, number, f"'{' '.join(words)[:60]}'", "numbers") from error


def _integer(path: Path, number: int, word: str) -> int:
    if not re.fullmatch(r"\d{1,18}", word):
        raise _error(path, number, f"'{word[:40]}'", "a whole number")
    return int(word)


def _check_count(path: Path, found: int, announced: int | None) -> None:
    if announced is not None and found != announced:
        raise InputError(path, "records", f"{found} of them", f"{announced}, as its head says", _CUT)


def _error(path: Path, number: int, found: str, expected: str) -> InputError:
    return InputError(path, f"line {number}", found, expected, _CUT)
