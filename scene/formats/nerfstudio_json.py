"""What nerfstudio's dialect of a transforms file says besides cameras: splits, masks, points, and other worlds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scene.formats.dataset_format import note_once
from scene.formats.json_text import is_number, read_json
from scene.formats.transforms_images import slashed
from scene.formats.transforms_poses import rigid_poses
from settings.data import DataConfig
from settings.errors import InputError
from settings.words import show

_WHOLE = "Take the key out to use it whole."
Entries = list[dict[str, Any]]
SPLIT_LISTS = ("train_filenames", "val_filenames", "test_filenames")


def frames_of_splits(path: Path, content: dict[str, Any], entries: Entries) -> tuple[Entries, tuple[bool, ...] | None]:
    """The frames that the file's own splits name, and whether each is for tests; None where none is, or no list is.

    ``val_filenames`` and ``test_filenames`` are both held out. Frames in no list are left out, which is said.

    Raises:
        InputError: a list holds no file names, or names a frame as one to train on and to test; none is left.
    """
    lists = {key: _names(path, key, content[key]) for key in SPLIT_LISTS if content.get(key) is not None}
    if not lists:
        return entries, None
    tests = lists.get("val_filenames", set()) | lists.get("test_filenames", set())
    everything = {slashed(entry["file_path"]) for entry in entries}
    train = lists.get("train_filenames", everything - tests)
    if both := sorted(train & tests):
        found = f"'{both[0]}' ({len(both)} frames) in train_filenames and in another list"
        raise InputError(path, "train_filenames", found, "frames to train on or to test", "Name each in one of them.")
    listed = train | tests
    kept = [entry for entry in entries if slashed(entry["file_path"]) in listed]
    if not kept:
        raise InputError(path, ", ".join(lists), "none of the frames", "file_path of some frames in them")
    held = tuple(slashed(entry["file_path"]) in tests for entry in kept)
    words = [f"{len(kept) - sum(held)} of its frames are trained on, {sum(held)} held out"]
    if len(kept) < len(entries):
        words.append(f"{len(entries) - len(kept)} are in no list and left out")
    if absent := len(listed - everything):
        words.append(f"{absent} names in the lists are no frame's")
    note_once("info", f"{path}: by its {', '.join(lists)} {', '.join(words)}.")
    return kept, held if any(held) else None


def find_masks(path: Path, entries: Entries, images: Sequence[Path | None]) -> tuple[Path | None, ...] | None:
    """The ``mask_path`` of each frame, from the folder of the file; None where no frame has one.

    Where some pictures have none the log says how many. A picture that is not there needs none.

    Raises:
        InputError: that of a picture is not there, or without any picture some are; one is no text.
    """
    found: list[Path | None] = []
    missing: list[InputError] = []
    for index, (entry, image) in enumerate(zip(entries, images, strict=True)):
        text, field = entry.get("mask_path") or None, f"frames[{index}] ({entry['file_path']}) mask_path"
        if text is not None and not isinstance(text, str):
            raise InputError(path, field, show(text), "the path of a picture", _WHOLE)
        mask = None if text is None else path.parent / slashed(text)
        if mask is not None and not mask.is_file():
            missing.append(InputError(path, field, f"'{text}', no such file", "a picture", _WHOLE))
            if image is not None:
                raise missing[-1]
            mask = None
        found.append(mask)
    if missing and not any(images):
        if any(found):
            raise missing[0]
        # Neither pictures nor masks are there, as where poses alone were copied.
        note_once("info", f"{path}: none of the masks that it names is there, nor a picture.")
    masked = [mask is not None for mask, image in zip(found, images, strict=True) if image is not None]
    if 0 < (count := sum(masked)) < (pictures := len(masked)):
        note_once("warning", f"{path}: masks for {count} of {pictures} pictures; the others are used whole.")
    return tuple(found) if any(found) else None


def find_points(path: Path, content: dict[str, Any]) -> Path | None:
    """The sparse points of ``ply_file_path``; None where there are none."""
    text = content.get("ply_file_path")
    points = path.parent / slashed(text) if isinstance(text, str) and text else None
    return points if points is not None and points.is_file() else None


def in_world(path: Path, content: dict[str, Any], poses: Tensor, data: DataConfig) -> Tensor:
    """(N, 4, 4) float64 poses in the world that the Gaussians are in: as the file has them, unless ``data`` says more.

    nerfstudio turns a COLMAP model when it makes the file (``applied_transform``), and moves, turns and scales it
    again when it trains (``dataparser_transforms.json``, which holds both turns). Cameras go there; Gaussians could not
    without turning their harmonics.

    Raises:
        InputError: one of the transforms is none.
    """
    world = _world(path, content, data)
    if world is None:
        return poses
    matrix, factor = world
    where = data.dataparser_transforms
    words = "to the world before its applied_transform" if where is None else f"into the world of {where}"
    if where is None and factor == 1 and torch.equal(matrix, torch.eye(4, dtype=matrix.dtype)):
        found = "an applied_transform that moves nothing" if "applied_transform" in content else "no applied_transform"
        note_once(
            "warning",
            f"{path}: data.applied_transform is undo, but the file has {found}: the cameras stay as they are.",
        )
        return poses
    note_once("info", f"{path}: the cameras are moved {words}.")
    poses = matrix @ poses
    poses[:, :3, 3] *= factor
    return poses


def world_fields(data: DataConfig) -> dict[str, Any]:
    """What a new file of this format says of cameras that ``in_world`` has moved, so that it finds them there already.

    Raises:
        InputError: as ``in_world``.
    """
    if data.dataparser_transforms is None:
        return {}
    matrix, factor = _dataparser(data.dataparser_transforms)
    return {"applied_transform": matrix[:3].tolist(), "applied_scale": factor}


def out_of_world(path: Path, poses: Tensor, data: DataConfig) -> Tensor:
    """(N, 4, 4) float64 poses to write to a new file at ``path``, of this format and without an ``applied_transform``:
    the inverse of ``in_world``.

    Raises:
        InputError: as ``in_world``.
    """
    world, poses = _world(path, {}, data), poses.double()
    if world is None:
        return poses
    matrix, factor = world
    poses[:, :3, 3] /= factor
    return torch.linalg.inv(matrix) @ poses


def points_world(path: Path, content: dict[str, Any], data: DataConfig) -> Tensor | None:
    """(4, 4) float64, by which the points of ``ply_file_path`` come to where ``in_world`` puts the cameras.

    They are in the world of the file, as the poses are. None: they are there.

    Raises:
        InputError: as ``in_world``.
    """
    world = _world(path, content, data)
    if world is None:
        return None
    matrix, factor = world
    return torch.diag(matrix.new_tensor([factor, factor, factor, 1])) @ matrix


def note_dataparser(ply: Path, data: DataConfig) -> None:
    """Says that Gaussians lie beside a ``dataparser_transforms.json`` that is not set."""
    beside = ply.with_name("dataparser_transforms.json")
    if data.dataparser_transforms is None and beside.is_file():
        note_once(
            "warning",
            f"{beside} lies beside the Gaussians, which nerfstudio has trained in a world of its own then: "
            f"--set data.dataparser_transforms={beside} moves the cameras there.",
        )


def _names(path: Path, key: str, value: object) -> set[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InputError(path, key, repr(value)[:60], "a list of the file_path of frames")
    return {slashed(name) for name in value}


def _world(path: Path, content: dict[str, Any], data: DataConfig) -> tuple[Tensor, float] | None:
    """(4, 4) float64 rigid motion, and the factor of positions after it; None: everything stays."""
    applied, scale = _applied(path, content)
    if data.dataparser_transforms is not None:
        world, factor = _dataparser(data.dataparser_transforms)
        return world @ torch.linalg.inv(applied), factor / scale
    if data.applied_transform == "keep":
        return None
    undone = torch.linalg.inv(applied)
    undone[:3, 3] *= scale  # the scale came last: it is taken off before the translation is
    return undone, 1 / scale


def _applied(path: Path, content: dict[str, Any]) -> tuple[Tensor, float]:
    """``applied_transform`` as (4, 4) float64 and ``applied_scale``; neither: no change."""
    matrix = torch.eye(4, dtype=torch.float64)
    if content.get("applied_transform") is not None:
        matrix = _rigid(path, "applied_transform", content["applied_transform"])
    return matrix, _scale(path, "applied_scale", content.get("applied_scale", 1.0))


def _dataparser(path: Path) -> tuple[Tensor, float]:
    content = read_json(path, "nerfstudio's dataparser_transforms.json")
    if not isinstance(content, dict) or not {"transform", "scale"} <= content.keys():
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(path, "JSON", found[:80] or "nothing", "an object with 'transform' and 'scale'")
    return _rigid(path, "transform", content["transform"]), _scale(path, "scale", content["scale"])


def _rigid(path: Path, key: str, value: object) -> Tensor:
    try:
        matrix = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(path, key, repr(value)[:60], "3 x 4 numbers") from error
    if matrix.shape == (3, 4):
        matrix = torch.cat([matrix, matrix.new_tensor([[0, 0, 0, 1]])])
    if matrix.shape != (4, 4):
        raise InputError(path, key, f"shape {tuple(matrix.shape)}", "3 x 4 or 4 x 4 numbers")
    return rigid_poses(path, matrix[None], [key])[0]


def _scale(path: Path, key: str, value: Sequence[object] | object) -> float:
    if not is_number(value) or not math.isfinite(value) or not 0 < value < 1e9:
        raise InputError(path, key, repr(value)[:60], "a positive number")
    return float(value)
