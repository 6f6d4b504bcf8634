"""Captures with a COLMAP model: ``sparse/0/`` and the pictures it was made from, or smaller ones of the same names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from scene.formats.capture_pictures import find_masks, pair_pictures, picture_folder, picture_sought
from scene.formats.colmap_model import ColmapModel, model_kinds, points_file, read_model
from scene.formats.colmap_records import ColmapCamera
from scene.formats.dataset_format import DatasetFormat, note_once
from scene.formats.nerfstudio_json import in_world, points_world
from scene.formats.picture_sizes import picture_sizes
from scene.formats.transforms_images import frame_names
from scene.formats.undistortion import NEGLIGIBLE, Lens, straight_frames, way_out
from scene.frames import Frames, Size
from scene.world_offset import moved_cameras
from settings.data import DataConfig
from settings.errors import InputError
from settings.words import counted

_PLACES = ("", "sparse/0", "sparse", "0", "colmap/sparse/0")
"""Where the model of a capture may be, from its folder."""
_PARTS = ("cameras", "images", "points3D", "rigs", "frames")
_UNDISTORT = (
    "Undistort the pictures with COLMAP, and take the folder that it writes: "
    "`colmap image_undistorter --image_path images --input_path sparse/0 --output_path undistorted`."
)
_LENSES = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")


class Colmap(DatasetFormat):
    """A folder with a COLMAP model, or the model's own."""

    name = "colmap"
    has_picture_folder = True
    has_worlds = True

    def recognises(self, path: Path) -> str | None:
        model = _model_folder(path)
        # nerfstudio leaves the model that its JSON was made from in colmap/.
        if model is None or (model.parts[-3:-2] == ("colmap",) and (path / "transforms.json").is_file()):
            return None
        [kind, *more] = model_kinds(model)
        files = f"{(model / 'cameras').relative_to(path)}{kind}"
        return f"{files} is there" + (f" (and {more[0]})" if more else "")

    def load(self, path: Path, image_size: Size | None, data: DataConfig) -> Frames:
        folder = _model_folder(path)
        if folder is None:
            expected = "cameras and images (.bin or .txt), there or in sparse/0"
            raise InputError(path, "COLMAP model", "none", expected, "Name the capture's folder, or the model's.")
        _note_others(folder)
        return _frames(path, read_model(folder), data)

    def files(self, path: Path) -> list[Path]:
        folder = _model_folder(path)
        names = [] if folder is None else [f"{part}{kind}" for kind in model_kinds(folder) for part in _PARTS]
        return [folder / name for name in names if (folder / name).is_file()]


def _model_folder(path: Path) -> Path | None:
    return next((path / place for place in _PLACES if model_kinds(path / place)), None)


def _note_others(folder: Path) -> None:
    """Says that a capture fell into several models, of which one is read."""
    others = [part.name for part in folder.parent.iterdir() if re.fullmatch(r"\d+", part.name) and part != folder]
    others = sorted(name for name in others if model_kinds(folder.parent / name))
    if folder.name.isdecimal() and others:
        note_once(
            "warning",
            f"{folder.parent}: models {', '.join(others)} lie beside {folder.name}, which is read: COLMAP could not "
            "join them, and each is in a world of its own. To read another, name its folder in data.transforms.",
        )


def _frames(path: Path, model: ColmapModel, data: DataConfig) -> Frames:
    names = [image.name for image in model.images]
    source = model.folder / f"images{model.kind}"
    pictures = picture_folder(path, model.folder, data.images)
    paths = (None,) * len(names) if pictures is None else pair_pictures(source, pictures, names)
    cameras = [model.camera_of(image) for image in model.images]
    stated = [(camera.width, camera.height) for camera in cameras]
    lenses = [_lens_of(model.folder / f"cameras{model.kind}", camera) for camera in cameras]
    sizes = picture_sizes(source, stated, paths, as_stored=True)
    scaled = [
        lens.scaled(size[0] / own[0], size[1] / own[1]) for lens, size, own in zip(lenses, sizes, stated, strict=True)
    ]
    _note_used(model, pictures, paths, sizes)
    masks = None if pictures is None else find_masks(pictures, paths)
    poses = in_world(source, {}, torch.from_numpy(model.camera_to_world()), data)
    more = {"points": points_file(model.folder), "points_world": points_world(source, {}, data), "as_stored": True}
    more["sought"] = picture_sought(pictures, names, paths)
    return straight_frames(
        source, moved_cameras(source, poses, data), frame_names(source, names), scaled, sizes, paths, masks, **more
    )


def _note_used(model: ColmapModel, pictures: Path | None, paths: Sequence[Path | None], sizes: Sequence[Size]) -> None:
    kind = {".bin": "binary", ".txt": "text"}[model.kind]
    count, cameras = len(model.images), len(model.cameras)
    found = sum(path is not None for path in paths)
    shown = "no pictures"
    if pictures is not None:
        shown = f"{counted(found, 'picture')} of {pictures} ({sizes[0][0]}x{sizes[0][1]})"
    note_once(
        "info",
        f"{model.folder}: a COLMAP model ({kind}) of {counted(count, 'image')} by {counted(cameras, 'camera')}, in the "
        f"order of their names, with {shown}.",
    )


def _lens_of(source: Path, camera: ColmapCamera) -> Lens:
    """The lens of a camera, at the camera's size: those that a pinhole with OpenCV's first coefficients describes.

    Raises:
        InputError: it is a fisheye, or of another kind that is not undistorted here; a focal length is not positive.
    """
    model, values = camera.model, camera.parameters
    if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"):
        values = (values[0], *values)
    if model not in _LENSES or any(abs(value) > NEGLIGIBLE for value in values[9:]):
        found = f"{model} {[round(value, 5) for value in camera.parameters]}"
        expected = "SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV, or FULL_OPENCV with k4 to k6 0"
        raise InputError(source, f"camera {camera.id}", found, expected, way_out(model, _UNDISTORT))
    fx, fy, cx, cy, *bends = values
    if not (fx > 0 and fy > 0):
        raise InputError(source, f"camera {camera.id}", f"focal lengths {fx:g}, {fy:g}", "positive ones")
    k1, k2, p1, p2, k3 = (*bends[:5], 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
    return Lens((fx, fy, cx, cy), (k1, k2, p1, p2, k3))
