"""The Blender/NeRF dataset format: ``transforms_*.json`` beside its images.

Mildenhall et al. 2020 (``camera_angle_x``), and nerfstudio's dialect (``fl_x``, ``w``, ..., per file or frame).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from machine.files import write_atomically
from scene.cameras import Cameras
from scene.formats.dataset_format import DatasetFormat
from scene.frames import Frames
from scene.images import image_size as read_image_size
from scene.world_offset import Offset, moved_positions
from settings.errors import InputError

_EXTENSIONS = (".png", ".jpg", ".jpeg", ".PNG", ".JPG")
_PINHOLE_MODELS = (None, "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")
_FLOAT32_MAX = torch.finfo(torch.float32).max
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


class TransformsJson(DatasetFormat):
    """``transforms_<split>.json`` files, one beside the other."""

    def recognises(self, path: Path) -> bool:
        return path.suffix.lower() == ".json"

    def load(self, path: Path, image_size: tuple[int, int] | None, offset: Offset | None) -> Frames:
        return load_transforms(path, image_size=image_size, offset=offset)

    def is_split(self, path: Path) -> bool:
        return re.fullmatch(r"transforms_\w+\.json", path.name) is not None

    def split(self, path: Path, name: str) -> Path:
        return path.with_name(f"transforms_{name}.json")


def load_transforms(
    path: str | Path, *, image_size: tuple[int, int] | None = None, offset: Offset | None = None
) -> Frames:
    """Reads cameras, frame names and image paths.

    Args:
        path: the transforms file; ``file_path`` entries are relative to its folder, extension or not.
        image_size: (width, height), used when neither the file nor an image says it.
        offset: ``data.offset``: see ``moved_positions``.

    Raises:
        InputError: the file is missing, truncated or lacks a field; a pose is not rigid; the lens is no pinhole;
            the cameras are where float32 is coarse;
            images on disk differ in size; the image size is nowhere to be found.
    """
    path = Path(path)
    content = _read_json(path)
    entries = content.get("frames")
    if not isinstance(entries, list) or not entries:
        found = "nothing" if entries is None else "an empty list" if entries == [] else type(entries).__name__
        raise InputError(path, "frames", found, "a list of at least one frame")
    if not all(isinstance(entry, dict) and isinstance(entry.get("file_path"), str) for entry in entries):
        raise InputError(path, "frames", "an entry without file_path", "each frame to name its file_path")

    exact = torch.stack([_pose(path, index, entry) for index, entry in enumerate(entries)])
    poses = exact.float()
    poses[:, :3, 3] = torch.from_numpy(moved_positions(path, "cameras", exact[:, :3, 3].numpy(), offset, 1.0))
    image_paths = tuple(_find_image(path.parent, entry["file_path"]) for entry in entries)
    # Frame fields override the file's, as in nerfstudio.
    fields = [{**content, **entry} for entry in entries]
    width, height = _image_size(path, fields, image_paths, image_size)
    intrinsics = [_intrinsics(path, index, field, width, height) for index, field in enumerate(fields)]
    fx, fy, cx, cy = torch.tensor(intrinsics, dtype=torch.float32).T.contiguous()
    names = _names([entry["file_path"] for entry in entries])
    if len(set(names)) < len(names):
        twin = next(name for name in names if names.count(name) > 1)
        raise InputError(path, "frames", f"file_path '{twin}' more than once", "each frame once")
    return Frames(Cameras(poses, fx, fy, cx, cy, width, height), names, image_paths, path)


def write_transforms(path: str | Path, cameras: Cameras, names: Sequence[str]) -> None:
    """Writes cameras atomically so that ``load_transforms`` reads the same numbers back.

    Args:
        names: N unique names, written as ``file_path``; images of these names (.png) belong in the same folder.
    """
    if len(names) != len(cameras):
        raise ValueError(f"{len(names)} names for {len(cameras)} cameras")
    frames = []
    for index, name in enumerate(names):
        frame: dict[str, Any] = {"file_path": f"./{name}", "transform_matrix": cameras.c2w[index].tolist()}
        for field, values in (("fl_x", cameras.fx), ("fl_y", cameras.fy), ("cx", cameras.cx), ("cy", cameras.cy)):
            frame[field] = values[index].item()
        frames.append(frame)
    # camera_angle_x is for readers of the original format; ours prefers fl_x.
    angle = 2 * math.atan(0.5 * cameras.width / cameras.fx[0].item())
    content = {"camera_angle_x": angle, "w": cameras.width, "h": cameras.height, "frames": frames}
    write_atomically(path, json.dumps(content, indent=1).encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, "file", error.strerror or error, "a transforms JSON file") from error
    except ValueError as error:
        hint = "The file may be cut short: copy it again."
        raise InputError(path, "JSON", f"invalid text ({error})", "a whole JSON document", hint) from error
    if not isinstance(content, dict):
        raise InputError(path, "JSON", type(content).__name__, "an object with 'frames'")
    return content


def _pose(path: Path, index: int, entry: dict[str, Any]) -> Tensor:
    field = f"frames[{index}] ({entry['file_path']}) transform_matrix"
    try:
        pose = torch.tensor(entry.get("transform_matrix"), dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(path, field, entry.get("transform_matrix"), "4 x 4 numbers") from error
    if pose.shape != (4, 4):
        raise InputError(path, field, f"shape {tuple(pose.shape)}", "4 x 4 numbers")
    if not pose.float().isfinite().all():
        raise InputError(path, field, "a non-finite number, or one beyond float32", "finite numbers")
    rotation = pose[:3, :3]
    skew = (rotation.T @ rotation - torch.eye(3, dtype=torch.float64)).abs().max().item()
    determinant = torch.linalg.det(rotation).item()
    last_row = (pose[3] - torch.tensor([0, 0, 0, 1.0], dtype=torch.float64)).abs().max().item()
    if max(skew, abs(determinant - 1), last_row) > 1e-3:
        figures = f"|R^T R - I| up to {skew:.3g}, determinant {determinant:.4g}, last row {pose[3].tolist()}"
        expected = "a rotation and a translation: R^T R = I and determinant 1 to 1e-3, last row 0 0 0 1"
        hint = "Scale the scene, not the camera matrix."
        raise InputError(path, field, f"a pose that is not rigid ({figures})", expected, hint)
    return pose


def _find_image(folder: Path, file_path: str) -> Path | None:
    named = folder / file_path
    candidates = [named, *(named.with_name(named.name + extension) for extension in _EXTENSIONS)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _image_size(
    path: Path, fields: list[dict[str, Any]], image_paths: Sequence[Path | None], fallback: tuple[int, int] | None
) -> tuple[int, int]:
    """The one size (width, height) that the file's fields and the images on disk agree on."""
    sizes: dict[tuple[int, int], str] = {}
    for index, field in enumerate(fields):
        if "w" in field and "h" in field:
            size = tuple(int(_number(path, f"frames[{index}] {key}", field[key], 1)) for key in ("w", "h"))
            sizes.setdefault(size, f"w, h of frames[{index}]")
    for image_path in image_paths:
        if image_path is not None:
            sizes.setdefault(read_image_size(image_path), str(image_path))
    if len(sizes) > 1:
        found = "; ".join(f"{width}x{height} ({where})" for (width, height), where in list(sizes.items())[:3])
        raise InputError(path, "image size", found, "one size for all frames and images")
    size = next(iter(sizes), fallback)
    if size is None:
        raise InputError(path, "image size", "neither w and h nor an image on disk", "one of them", "Add w and h.")
    return size


def _intrinsics(
    path: Path, index: int, field: dict[str, Any], width: int, height: int
) -> tuple[float, float, float, float]:
    where = f"frames[{index}]"
    model = field.get("camera_model")
    bent = [key for key in _DISTORTION if field.get(key)]
    if model not in _PINHOLE_MODELS or bent:
        found = ", ".join(f"{key} {field[key]}" for key in bent) or model
        raise InputError(path, f"{where} lens", found, "a pinhole without distortion", "Undistort the images first.")

    def focal(name: str, angle: str, pixels: int) -> float | None:
        if name in field:
            return _number(path, f"{where} {name}", field[name], 1e-6)
        if angle in field:
            return 0.5 * pixels / math.tan(0.5 * _number(path, f"{where} {angle}", field[angle], 1e-6, math.pi))
        return None

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    if fx is None:
        raise InputError(path, f"{where} focal length", "nothing", "camera_angle_x (radian) or fl_x (pixels)")
    cx = _number(path, f"{where} cx", field.get("cx", width / 2))
    cy = _number(path, f"{where} cy", field.get("cy", height / 2))
    return fx, fx if fy is None else fy, cx, cy


def _number(path: Path, field: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float in [low, high)."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= _FLOAT32_MAX or not low <= value < high:
        limits = "" if low == -math.inf else f" of at least {low:g}" + ("" if high == math.inf else f", under {high:g}")
        raise InputError(path, field, repr(value), f"a finite number{limits}")
    return float(value)


def _names(file_paths: list[str]) -> tuple[str, ...]:
    def without_extension(text: str) -> str:
        return next((text[: -len(end)] for end in _EXTENSIONS if text.endswith(end)), text)

    paths = [without_extension(text).removeprefix("./") for text in file_paths]
    stems = [text.rsplit("/", 1)[-1] for text in paths]
    return tuple(stems if len(set(stems)) == len(stems) else [text.strip("/").replace("/", "_") for text in paths])
