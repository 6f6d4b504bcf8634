"""A COLMAP model: its cameras and registered images, as ``cameras`` and ``images`` files hold them, and its points.

Binary and text, with or without ``rigs`` and ``frames`` beside: COLMAP writes every image's own pose in all of them.
https://colmap.github.io/format.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scene.formats import colmap_binary, colmap_text
from scene.formats.colmap_records import ColmapCamera, ColmapImage
from settings.errors import InputError

_READERS = {".bin": colmap_binary, ".txt": colmap_text}
_SAME = 1e-6  # relative; text of some programs has fewer digits than the binary
_UNIT = 1e-2  # of a quaternion's length
_HINT = "Remove the older of the two, or write both again with `colmap model_converter`."


@dataclass(frozen=True)
class ColmapModel:
    """Cameras by their ids, and images in the order of their names.

    Attributes:
        folder: where the model lies.
        kind: ``.bin`` or ``.txt``: the files it was read from.
    """

    cameras: dict[int, ColmapCamera]
    images: tuple[ColmapImage, ...]
    folder: Path
    kind: str

    def camera_of(self, image: ColmapImage) -> ColmapCamera:
        """The one that took an image."""
        return self.cameras[image.camera]

    def camera_to_world(self) -> np.ndarray:
        """(N, 4, 4) float64 rigid poses of the images; the camera looks down -Z, +Y is up."""
        quaternions = np.array([image.rotation for image in self.images])
        w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
        # Rows of the world-to-camera rotation are the camera's axes in the world; COLMAP's y points down, z forward.
        right = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=1)
        down = np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=1)
        forward = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)
        t = np.array([image.translation for image in self.images])
        poses = np.zeros((len(self.images), 4, 4))
        poses[:, :3, 3] = -(right * t[:, :1] + down * t[:, 1:2] + forward * t[:, 2:])
        poses[:, :3, 0], poses[:, :3, 1], poses[:, :3, 2] = right, -down, -forward
        poses[:, 3, 3] = 1
        return poses


class SparsePoints(NamedTuple):
    """A sparse point cloud: (M, 3) float64 positions in world units, and (M, 3) uint8 sRGB."""

    positions: np.ndarray
    colors: np.ndarray


def model_kinds(folder: Path) -> list[str]:
    """Those of ``.bin`` and ``.txt`` in which a folder has cameras or images."""
    return [kind for kind in _READERS if any((folder / f"{part}{kind}").is_file() for part in ("cameras", "images"))]


def read_model(folder: Path) -> ColmapModel:
    """Reads a model; where it is there in binary and as text, both, which must be one.

    Raises:
        InputError: a file is missing, cut off, foreign, or contradicts itself or its twin.
    """
    models = [_read(folder, kind) for kind in model_kinds(folder)]
    if not models:
        expected = "cameras and images, each .bin or .txt"
        raise InputError(folder, "COLMAP model", "neither", expected, "Name the folder of a model, such as sparse/0.")
    if len(models) == 2 and (difference := _difference(*models)):
        raise InputError(folder, "COLMAP model", difference, "one model in both", _HINT)
    return models[0]


def read_points(path: Path) -> SparsePoints:
    """Reads ``points3D.bin`` or ``points3D.txt``; InputError where it is missing, cut off or foreign."""
    positions, colors = _READERS[path.suffix.lower()].read_points(path)
    if not np.isfinite(positions).all():
        raise InputError(path, "points", "a position that is not finite", "finite numbers")
    return SparsePoints(positions, colors)


def points_file(folder: Path) -> Path | None:
    """The points of a model; None where it has none."""
    return next(filter(Path.is_file, (folder / f"points3D{kind}" for kind in _READERS)), None)


def _read(folder: Path, kind: str) -> ColmapModel:
    reader = _READERS[kind]
    cameras = reader.read_cameras(folder / f"cameras{kind}")
    images = reader.read_images(folder / f"images{kind}")
    _check_cameras(folder / f"cameras{kind}", cameras)
    _check_images(folder / f"images{kind}", images, {camera.id for camera in cameras})
    ordered = tuple(sorted(images, key=lambda image: image.name))
    return ColmapModel({camera.id: camera for camera in cameras}, ordered, folder, kind)


def _check_cameras(path: Path, cameras: Sequence[ColmapCamera]) -> None:
    if twice := _repeated(camera.id for camera in cameras):
        raise InputError(path, "cameras", f"camera {twice} more than once", "each id once")
    for camera in cameras:
        if not np.isfinite(camera.parameters).all():
            found = f"{camera.model} {list(camera.parameters)}"
            raise InputError(path, f"camera {camera.id}", found, "finite parameters")
        if not (1 <= camera.width <= 1_000_000 and 1 <= camera.height <= 1_000_000):
            found = f"{camera.width}x{camera.height} pixels"
            raise InputError(path, f"camera {camera.id}", found, "the size of its pictures")


def _check_images(path: Path, images: Sequence[ColmapImage], cameras: set[int]) -> None:
    if not images:
        hint = "The reconstruction has failed, or this is the model of another stage: take that of the last."
        raise InputError(path, "images", "none", "at least one registered image", hint)
    for what, values in (("id", [image.id for image in images]), ("name", [image.name for image in images])):
        if twice := _repeated(values):
            raise InputError(path, "images", f"the {what} '{twice}' more than once", f"each {what} once")
    for image in images:
        field = f"image {image.id} ({image.name})"
        if image.camera not in cameras:
            found = f"camera {image.camera}, which is not among the cameras"
            raise InputError(path, field, found, "a camera of the model", "Take both files of one model.")
        length = float(np.linalg.norm(image.rotation))
        if not abs(length - 1) <= _UNIT:
            found = f"a quaternion of length {length:.4g}"
            raise InputError(path, field, found, f"a rotation: length 1 to {_UNIT:g}")
        if not np.isfinite(image.translation).all():
            raise InputError(path, field, f"the translation {list(image.translation)}", "finite numbers")


def _repeated(values: Sequence[object]) -> object | None:
    return next((value for value, count in Counter(values).items() if count > 1), None)


def _difference(binary: ColmapModel, text: ColmapModel) -> str:
    """What two models do not share, in words; empty where they are one."""
    if len(binary.images) != len(text.images):
        return f"images.bin with {len(binary.images)} images beside images.txt with {len(text.images)}"
    if binary.cameras.keys() != text.cameras.keys():
        return f"cameras.bin with cameras {sorted(binary.cameras)} beside cameras.txt with {sorted(text.cameras)}"
    for key, camera in binary.cameras.items():
        if camera[:4] != text.cameras[key][:4] or not _close(camera.parameters, text.cameras[key].parameters):
            return f"camera {key} as {_words(camera)} in cameras.bin and {_words(text.cameras[key])} in cameras.txt"
    for one, other in zip(binary.images, text.images, strict=True):
        if one.name != other.name:
            return f"'{one.name}' in images.bin where images.txt has '{other.name}'"
        if one.camera != other.camera or not _close((*one.rotation, *one.translation), (*other[1], *other[2])):
            return f"another pose or camera of '{one.name}' in images.bin than in images.txt"
    return ""


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return bool(np.allclose(one, other, rtol=_SAME, atol=_SAME))


def _words(camera: ColmapCamera) -> str:
    return f"{camera.model} {camera.width}x{camera.height} {[round(value, 4) for value in camera.parameters]}"
