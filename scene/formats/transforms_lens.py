"""The lens of a transforms file: a pinhole's focal lengths and principal point, and whatever says it is none."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scene.formats.dataset_format import note_once
from scene.formats.json_text import is_number
from scene.formats.undistortion import COEFFICIENTS, NEGLIGIBLE, way_out
from scene.frames import Size
from settings.errors import InputError

# What COLMAP and nerfstudio call a pinhole, and models that are one where all coefficients are 0.
_PINHOLES = ("", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "OPENCV", "FULL_OPENCV", "SIMPLE_RADIAL", "RADIAL")
_BENDING_KEY = re.compile(
    r"[kps]_?\d|is_fish_?eye|fish_?eye|skew|dist|.*(distort|dist_?coef|dist_?param|radial|tangential|thin_prism).*"
)
_LENS_KEY = re.compile(
    r"f|[fc]_?[xy]|focal.*|([xy]_?)?fov.*|k|.*(lens|intrinsic|projection|principal|shutter).*|shift_[xy]|[xy]_shift"
    r"|cam(era)?_?(matrix|type|model|params)"
)
_READ = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy")
_OTHER_LENS = re.compile(r"fish|equi|omni|panoram|spheric|cylind|ortho|division|unified|kannala|\bmei\b", re.IGNORECASE)
_LARGEST = 1e3  # coefficient of a lens
_SAME_FOCAL = 0.01
_SQUARE = 0.05
_FLOAT32_MAX = torch.finfo(torch.float32).max

Fields = dict[str, Any]
"""What the file says of one frame: its own keys over those of all."""


def fields_of_frames(source: Path, content: Mapping[str, Any], entries: Sequence[Fields]) -> list[Fields]:
    """Each frame's own keys over those of its file, as in nerfstudio.

    Raises:
        InputError: see ``check_lens``.
    """
    common = {key: value for key, value in content.items() if key != "frames"}
    fields = [{**common, **entry} for entry in entries]
    check_lens(source, fields)
    return fields


def check_lens(source: Path, fields: Sequence[Fields]) -> None:
    """InputError where a frame's lens cannot be read; a warning for keys that sound of a lens and are not read."""
    bent = {index: list(_bends(field)) for index, field in enumerate(fields)}
    bent = {index: found for index, found in bent.items() if found}
    if bent:
        first, everywhere = next(iter(bent)), len(bent) == len(fields)
        where = "lens" if everywhere else f"frames[{first}] ({fields[first].get('file_path')}) lens"
        found = f"{', '.join(bent[first])} ({len(bent)} of {len(fields)} frames)"
        hint = (
            "Undistort the images first, and take the cameras that come with them: `colmap image_undistorter "
            "--image_path images --input_path sparse/0 --output_path undistorted`, of the model behind the file."
        )
        raise InputError(source, where, found, "a pinhole, or OpenCV's k1, k2, p1, p2, k3 alone", way_out(found, hint))
    unread = unread_lens_keys(fields)
    if unread:
        note_once(
            "warning",
            f"{source}: {unread} may be about a lens, and is not read: fl_x, fl_y, cx, cy, w, h (pixels) and "
            "camera_angle_x (radian) are.",
        )


def distortion(field: Fields) -> tuple[float, float, float, float, float]:
    """The ``COEFFICIENTS`` of a frame that ``check_lens`` has passed."""
    k1, k2, p1, p2, k3 = (float(field.get(key) or 0.0) for key in COEFFICIENTS)
    return k1, k2, p1, p2, k3


def unread_lens_keys(fields: Sequence[Fields]) -> str:
    """Keys that sound of a lens, are not read and not empty, each with its first value; empty text for none."""
    unread = {
        key: value
        for field in reversed(fields)
        for key, value in field.items()
        if key not in _READ and key != "camera_model" and _is(_LENS_KEY, key) and _says_something(value)
    }
    return ", ".join(f"'{key}' ({str(value)[:40]})" for key, value in unread.items())


def read_intrinsics(
    source: Path, fields: Sequence[Fields], stated: Sequence[Size | None], sizes: Sequence[Size]
) -> list[tuple[float, float, float, float]]:
    """(fx, fy, cx, cy) of each frame in pixels of its own size.

    Args:
        stated: (width, height) that the file says its numbers are for, None: they are for the frame's size.
        sizes: (width, height) of the frames.

    Raises:
        InputError: no focal length, or a number that is none; a principal point outside the image, where the file
            does not say which size it is for.
    """
    lenses = [
        _read_lens(source, index, field, own, size)
        for index, (field, own, size) in enumerate(zip(fields, stated, sizes, strict=True))
    ]
    intrinsics = []
    for lens, size in zip(lenses, sizes, strict=True):
        fx, fy, cx, cy = lens.intrinsics
        x, y = size[0] / lens.size[0], size[1] / lens.size[1]
        intrinsics.append((fx * x, fy * y, cx * x, cy * y))
    _warn_of_two_focal_lengths(source, fields, lenses)
    _warn_of_pixels(source, intrinsics)
    _warn_of_principal_points(source, lenses)
    return intrinsics


def stated_size(source: Path, index: int, field: Fields) -> Size | None:
    """(width, height) as w, h say; None where the file has neither.

    Raises:
        InputError: one of the two is missing, or no number of pixels.
    """
    if "w" not in field and "h" not in field:
        return None
    return tuple(round(_number(source, f"frames[{index}] {key}", field.get(key), 1)) for key in ("w", "h"))


class _Lens(NamedTuple):
    """What a file says of a frame's lens: fx, fy, cx, cy, and what angles make of fx and fy; in pixels of ``size``."""

    intrinsics: tuple[float, float, float, float]
    by_angles: tuple[float | None, float | None]
    size: Size


def _read_lens(source: Path, index: int, field: Fields, stated: Size | None, size: Size) -> _Lens:
    """A frame's lens, in pixels of the size that is stated, without one of the frame's."""
    width, height = stated or size
    fx, angle_fx = _focal(source, index, field, "x", width)
    fy, angle_fy = _focal(source, index, field, "y", height)
    if fx is None:
        unread = unread_lens_keys([field])
        hint = f"The file has {unread}, which is not read: write fl_x, fl_y, cx, cy." if unread else ""
        if fy is not None:
            hint = f"The file has that of y alone: add fl_x, which is {fy:.6g} where pixels are square."
        expected = "camera_angle_x (radian) or fl_x (pixels)"
        raise InputError(source, f"frames[{index}] focal length", "nothing", expected, hint)
    cx = _number(source, f"frames[{index}] cx", field.get("cx", width / 2))
    cy = _number(source, f"frames[{index}] cy", field.get("cy", height / 2))
    if stated is None and not (0 < cx < width and 0 < cy < height):
        found = f"({cx:g}, {cy:g}) at or outside the edge of {width}x{height} images"
        hint = "If fl_x, fl_y, cx, cy are for larger images, add their w and h to the file: all is scaled then."
        raise InputError(source, f"frames[{index}] principal point", found, "cx, cy inside the image", hint)
    return _Lens((fx, fx if fy is None else fy, cx, cy), (angle_fx, angle_fy), (width, height))


def _warn_of_two_focal_lengths(source: Path, fields: Sequence[Fields], lenses: Sequence[_Lens]) -> None:
    apart = [
        (index, axis, focal, other)
        for index, lens in enumerate(lenses)
        for axis, focal, other in zip("xy", lens.intrinsics, lens.by_angles, strict=False)
        if other is not None and abs(other / focal - 1) > _SAME_FOCAL
    ]
    if apart:
        index, axis, focal, other = apart[0]
        note_once(
            "warning",
            f"{source}: fl_{axis} is {focal:.6g} pixels in frames[{index}], where camera_angle_{axis} "
            f"{fields[index][f'camera_angle_{axis}']:.6g} makes it {other:.6g} "
            f"({len({entry[0] for entry in apart})} of {len(fields)} frames contradict themselves): fl_{axis} is used.",
        )


def _warn_of_pixels(source: Path, intrinsics: Sequence[tuple[float, float, float, float]]) -> None:
    index, (fx, fy, _, _) = max(enumerate(intrinsics), key=lambda entry: abs(math.log(entry[1][1] / entry[1][0])))
    if abs(math.log(fy / fx)) > _SQUARE:
        note_once(
            "warning",
            f"{source}: pixels are far from square: the focal lengths of frames[{index}] are {fx:.6g} and {fy:.6g} "
            "pixels. Some exporters write a wrong camera_angle_y: leave it out if pixels are square.",
        )


def _warn_of_principal_points(source: Path, lenses: Sequence[_Lens]) -> None:
    aside = []
    for index, ((_, _, cx, cy), _, (width, height)) in enumerate(lenses):
        if not (0.25 < cx / width < 0.75 and 0.25 < cy / height < 0.75):
            aside.append((index, cx, cy, width, height))
    if aside:
        index, cx, cy, width, height = aside[0]
        note_once(
            "warning",
            f"{source}: the principal point ({cx:g}, {cy:g}) of frames[{index}] is far from the centre of "
            f"{width}x{height} images ({len(aside)} of {len(lenses)} frames): is it for images of another size?",
        )


def _focal(source: Path, index: int, field: Fields, axis: str, pixels: int) -> tuple[float | None, float | None]:
    """The focal length on an axis in pixels, and what the field of view alone would make it; None where unsaid."""
    by_angle, name, angle = None, f"fl_{axis}", f"camera_angle_{axis}"
    if field.get(angle) is not None:
        value = field[angle]
        hint = f"If it is in degrees, write {math.radians(value):.6g}." if is_number(value) and 1 < value < 180 else ""
        radian = _number(source, f"frames[{index}] {angle}", value, 1e-6, math.pi, hint)
        by_angle = 0.5 * pixels / math.tan(0.5 * radian)
    if name in field:
        return _number(source, f"frames[{index}] {name}", field[name], 1e-6), by_angle
    return by_angle, by_angle


def _number(
    source: Path, field: str, value: object, low: float = -math.inf, high: float = math.inf, hint: str = ""
) -> float:
    """``value`` as a float in [low, high)."""
    if not is_number(value) or not abs(value) <= _FLOAT32_MAX or not low <= value < high:
        limits = "" if low == -math.inf else f" of at least {low:g}" + ("" if high == math.inf else f", under {high:g}")
        raise InputError(source, field, repr(value)[:60], f"a finite number{limits}", hint)
    return float(value)


def _bends(field: Fields) -> Iterator[str]:
    """What makes a frame's lens another than a pinhole, in words."""
    for key, value in field.items():
        if key == "camera_model":
            bends = str(value or "").upper() not in _PINHOLES
        elif key in COEFFICIENTS and _is_coefficient(value):
            bends = False
        elif _is(_BENDING_KEY, key):
            bends = _says_something(value)
        else:
            bends = isinstance(value, str) and _is(_LENS_KEY, key) and _OTHER_LENS.search(value) is not None
        if bends:
            yield f"{key} {str(value)[:60]}"


@cache
def _is(pattern: re.Pattern[str], key: str) -> bool:
    return pattern.fullmatch(key.lower()) is not None


def _is_coefficient(value: object) -> bool:
    return is_number(value) and abs(value) <= _LARGEST


def _says_something(value: object) -> bool:
    """Whether a value is neither empty, nor as good as 0, nor the name of a pinhole."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(_says_something(entry) for entry in value)
    if isinstance(value, str):
        return value.upper() not in (*_PINHOLES, "NONE", "NULL", "FALSE", "NO")
    return value is not None and not abs(value) <= NEGLIGIBLE
