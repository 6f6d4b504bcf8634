"""What a script gives to the functions of ``distill.library.scenes``, held to what they take."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from scene.cameras import Cameras
from settings.errors import InputError

_OBLIQUE = 1e-2  # by which the products of a pose's axes may be off those of a rotation


def path_of(value: str | Path, name: str) -> Path:
    """The path that an argument is.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(name, "argument", _kind(value), "the path of a file or folder")
    return Path(value)


def overrides_given(value: Sequence[str]) -> list[str]:
    """A list of ``KEY=VALUE``.

    Raises:
        InputError: it is no list of texts.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(one, str) for one in value):
        shown = repr(value) if isinstance(value, str) else _kind(value)
        raise InputError("overrides", "argument", shown, 'a list of texts, as ["render.termination=0.01"]')
    return [*value]


def kind_of(value: object, name: str, kinds: type | tuple[type, ...], expected: str) -> None:
    """Checks what an argument is; None will do, a bool is no number.

    Raises:
        InputError: it is of none of the kinds.
    """
    if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
        raise InputError(name, "argument", _kind(value), expected)


def view_of(cameras: Cameras, index: int) -> int:
    """The number of a camera that can be drawn.

    Raises:
        InputError: there is none of that number, or its pose, focal lengths or size are none of a camera's.
    """
    if not isinstance(cameras, Cameras):
        raise InputError("render", "cameras", _kind(cameras), "Cameras, as load_cameras gives them")
    if not len(cameras):
        raise InputError("render", "cameras", "none", "at least one camera")
    try:
        number = operator.index(index)
    except TypeError:
        number = -1
    if isinstance(index, bool) or not 0 <= number < len(cameras):
        shown = number if number >= 0 and not isinstance(index, bool) else repr(index)
        raise InputError("render", "index", shown, f"0 to {len(cameras) - 1}, the cameras' numbers")
    size = cameras.width, cameras.height
    if any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise InputError("render", "width, height", f"{size[0]}, {size[1]}", "whole numbers from 1 on, pixels")
    pose, intrinsics = cameras.c2w[number], [getattr(cameras, name)[number] for name in ("fx", "fy", "cx", "cy")]
    if not pose.is_floating_point():
        raise InputError("render", "c2w", pose.dtype, "float32")
    values = torch.stack([value.float() for value in intrinsics])
    if not (pose.isfinite().all() and values.isfinite().all()):
        raise InputError("render", f"camera {number}", "numbers that are not finite", "a pose and focal lengths")
    if not (values[:2] > 0).all():
        fx, fy = values[:2].tolist()
        raise InputError("render", f"fx, fy of camera {number}", f"{fx:g}, {fy:g}", "above 0, in pixels")
    axes = pose[:3, :3].double()
    if (axes.T @ axes - torch.eye(3, dtype=axes.dtype, device=axes.device)).abs().max() > _OBLIQUE:
        lengths = ", ".join(f"{length:.3g}" for length in axes.norm(dim=0).tolist())
        hint = "Divide them by their length."
        raise InputError("render", f"c2w of camera {number}", f"axes {lengths} long", "a rotation: axes of 1", hint)
    return number


def _kind(value: object) -> str:
    return "None" if value is None else f"{value!r:.60}, of type {type(value).__name__}"
