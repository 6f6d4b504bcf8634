"""The Blender/NeRF dataset format: ``transforms_*.json`` beside its images.

Mildenhall et al. 2020 (``camera_angle_x``), and nerfstudio's dialect (``fl_x``, ``w``, ..., per file or frame).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine.files import write_atomically
from scene.cameras import Cameras
from scene.formats.dataset_format import DatasetFormat, note_once
from scene.formats.json_text import read_json
from scene.formats.nerfstudio_json import SPLIT_LISTS, find_masks, find_points, frames_of_splits, in_world, points_world
from scene.formats.picture_sizes import picture_sizes
from scene.formats.transforms_images import find_images, first_sought, frame_names
from scene.formats.transforms_lens import distortion, fields_of_frames, read_intrinsics, stated_size
from scene.formats.transforms_poses import read_poses
from scene.formats.undistortion import Lens, straight_frames
from scene.frames import Frames, Size
from scene.world_offset import moved_cameras
from settings.data import DataConfig
from settings.errors import InputError

# Other JSON files about cameras: keys that tell them, what they are, and what to do.
_OTHER_FILES = (
    (
        {"position", "rotation", "img_name"},
        "graphdeco's cameras.json, written beside a trained model",
        "Name it cameras.json, or set data.format: graphdeco.",
    ),
    (
        {"frames", "rot_mat"},
        "MatrixCity's raw export (rot_mat in place of transform_matrix and file_path)",
        "Set data.format: auto or matrixcity.",
    ),
    (
        {"transform", "scale"},
        "nerfstudio's dataparser_transforms.json, which says how a world was moved and has no cameras",
        "Take the transforms.json of the dataset.",
    ),
    (
        {"camera_path", "render_width"},
        "nerfstudio's camera path, which has no images",
        "Take the transforms.json of the dataset; to render along the path, write its camera_to_world matrices as the "
        "transform_matrix of frames.",
    ),
    (
        {"cameras", "shots"},
        "OpenSfM's reconstruction.json",
        "Convert it to a transforms.json, with nerfstudio or instant-ngp's scripts.",
    ),
)


class TransformsJson(DatasetFormat):
    """``transforms_<split>.json`` files, one beside the other."""

    name = "transforms"
    has_worlds = True

    def recognises(self, path: Path) -> str | None:
        if path.suffix.lower() == ".json":
            return "its name ends in .json"
        found = _json_in(path)
        return None if found is None else f"{found.name} is there"

    def load(self, path: Path, image_size: Size | None, data: DataConfig) -> Frames:
        return load_transforms(_json_in(path) or path, image_size=image_size, data=data)

    def files(self, path: Path) -> list[Path]:
        return [_json_in(path) or path]

    def is_split(self, path: Path) -> bool:
        return re.fullmatch(r"transforms_\w+\.json", path.name) is not None

    def split(self, path: Path, name: str) -> Path | None:
        own = _json_in(path) or path
        beside = own.with_name(f"transforms_{name}.json")
        return beside if self.is_split(own) or beside.is_file() else None  # a lone transforms.json is all there is


def _json_in(folder: Path) -> Path | None:
    """The JSON of a folder's dataset: its whole one, or its first split; None where the path is no such folder."""
    names = ("transforms.json", "transforms_train.json") if folder.is_dir() else ()
    return next((folder / name for name in names if (folder / name).is_file()), None)


def load_transforms(path: str | Path, *, image_size: Size | None = None, data: DataConfig | None = None) -> Frames:
    """Reads cameras, frame names and image paths.

    Args:
        path: the transforms file; ``file_path`` entries are relative to its folder, extension or not.
        image_size: (width, height), used when neither the file nor an image says it.
        data: the world that cameras are moved into, see ``in_world`` and ``moved_cameras``; None: they stay.

    Raises:
        InputError: the file is missing, damaged, of another kind or lacks a field; a pose is not rigid; the lens is
            none that is read; the cameras are where float32 is coarse; an image differs in shape from what the file
            says; the image size is nowhere to be found.
    """
    path, data = Path(path), data or DataConfig()
    content = read_json(path, "a transforms JSON file")
    entries, tests = frames_of_splits(path, content, _entries(path, content))
    poses = moved_cameras(path, in_world(path, content, read_poses(path, entries), data), data)
    fields = fields_of_frames(path, content, entries)
    _note_unread(path, content)
    file_paths = [entry["file_path"] for entry in entries]
    names = frame_names(path, file_paths)
    image_paths = find_images(path, file_paths)
    stated = [stated_size(path, index, field) for index, field in enumerate(fields)]
    sought = first_sought(path, file_paths, image_paths)
    sizes = picture_sizes(path, stated, image_paths, image_size, sought)
    intrinsics = read_intrinsics(path, fields, stated, sizes)
    lenses = [Lens(own, distortion(field)) for own, field in zip(intrinsics, fields, strict=True)]
    masks = find_masks(path, entries, image_paths)
    points, world = find_points(path, content), points_world(path, content, data)
    more = {"tests": tests, "points": points, "points_world": world, "sought": sought}
    return straight_frames(path, poses, names, lenses, sizes, image_paths, masks, **more)


def write_transforms(
    path: str | Path,
    cameras: Cameras,
    names: Sequence[str],
    tests: Sequence[bool] | None = None,
    fields: Mapping[str, Any] | None = None,
    masks: Sequence[str] | None = None,
) -> None:
    """Writes cameras atomically so that ``load_transforms`` reads the same numbers back.

    Args:
        names: N unique names, written as ``file_path``; images of these names (.png) belong in the same folder.
        tests: whether each frame is kept for tests, some and not all; None: the file does not say.
        fields: more of the whole file, as ``world_fields``.
        masks: ``mask_path`` of each frame; None: there are none.

    Raises:
        ValueError: not one name for each camera.
    """
    if len(names) != len(cameras):
        raise ValueError(f"{len(names)} names for {len(cameras)} cameras")
    # camera_angle_x is for readers of the original format; ours prefers fl_x.
    angles = [2 * math.atan(0.5 * cameras.width / focal) for focal in cameras.fx.tolist()]
    frames = []
    for index, name in enumerate(names):
        frame: dict[str, Any] = {"file_path": f"./{name}", "transform_matrix": cameras.c2w[index].tolist()}
        for field, values in (("fl_x", cameras.fx), ("fl_y", cameras.fy), ("cx", cameras.cx), ("cy", cameras.cy)):
            frame[field] = values[index].item()
        if angles[index] != angles[0]:
            frame["camera_angle_x"] = angles[index]
        if masks is not None:
            frame["mask_path"] = masks[index]
        frames.append(frame)
    content = {"camera_angle_x": angles[0], "w": cameras.width, "h": cameras.height, **(fields or {})}
    if tests is not None:
        for key, wanted in (("train_filenames", False), ("test_filenames", True)):
            content[key] = [frame["file_path"] for frame, test in zip(frames, tests, strict=True) if test == wanted]
    content["frames"] = frames
    write_atomically(path, json.dumps(content, indent=1).encode())


def _entries(path: Path, content: object) -> list[dict[str, Any]]:
    """The frames, each with its ``file_path``; InputError for what is another kind of JSON."""
    for keys, what, hint in _OTHER_FILES:
        if keys <= _keys(content):
            raise InputError(path, "JSON", what, "a transforms JSON file with 'frames'", hint)
    if not isinstance(content, dict):
        raise InputError(path, "JSON", type(content).__name__, "an object with 'frames'")
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else type(entries).__name__
        if entries is None:
            found = f"nothing, but the keys {', '.join(map(repr, list(content)[:6]))}" if content else "nothing"
        raise InputError(path, "frames", found, "a list of at least one frame")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
            found = f"frames[{index}], an entry without file_path"
            if isinstance(entry, dict):
                found += f" (its keys: {', '.join(list(entry)[:6]) or 'none'})"
            raise InputError(path, "frames", found, "each frame to name its file_path")
    return entries


def _keys(content: object) -> set[str]:
    """The keys of an object and of the first of its frames, or of the first entry of a list."""
    first = content
    if isinstance(content, dict):
        first = content.get("frames")
    if isinstance(first, list):
        first = first[0] if first else None
    return {key for part in (content, first) if isinstance(part, dict) for key in part}


def _note_unread(path: Path, content: dict[str, Any]) -> None:
    """Says which keys a user may count on that change what is trained on or measured, and are not read."""
    lists = [key for key in content if re.fullmatch(r"(train|val|test|eval)_(filenames|files|indices|ids)", key)]
    lists = [key for key in lists if key not in SPLIT_LISTS]
    if lists:
        note_once(
            "warning",
            f"{path}: {', '.join(lists)}: these lists are not read. data.holdout_every decides which frames are held "
            "out of training; data.train_transforms names a JSON of others.",
        )
