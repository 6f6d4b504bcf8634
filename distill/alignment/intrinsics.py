"""Mistakes in focal length and principal point, each as what would have to be done to undo it."""

from __future__ import annotations

from dataclasses import replace

import torch

from distill.alignment.hypotheses import Cause, Hypothesis
from scene.cameras import Cameras

# Principal points this near to each other, in pixels, are one.
_SAME_PIXEL = 0.25
# The logarithm of the ratio of focal lengths up to which pixels are square: sides of small pictures are rounded.
_SQUARE = 0.04

INTRINSICS = ("fx", "fy", "cx", "cy")


def scaled_intrinsics(cameras: Cameras, scale: float, *names: str) -> Cameras:
    """Some of ``INTRINSICS`` multiplied."""
    return replace(cameras, **{name: getattr(cameras, name) * scale for name in names})


def focal_hypothesis(scale: float, cameras: Cameras) -> Hypothesis:
    """The focal lengths are off by a factor: the right ones are ``scale`` times as long."""
    aspect = cameras.width / cameras.height
    usual = {0.5: "twice too long", 2.0: "half of the right one", 1 / aspect: "that of the other side of the picture"}
    usual |= {aspect: "that of the other side of the picture"}
    words = next((text for value, text in usual.items() if abs(scale / value - 1) < 0.001 and value != 1), None)
    focal = scale * cameras.fx[0]
    angle = 2 * torch.atan(0.5 * cameras.width / focal).item()
    return Hypothesis(
        f"the focal length is {words}" if words else f"the focal length must be multiplied by {scale:.3g}",
        Cause.FOCAL,
        f"In data.transforms: camera_angle_x {angle:.6g} radian, or {scale:.4g} times fl_x and fl_y.",
        cameras=lambda given: scaled_intrinsics(given, scale, "fx", "fy"),
    )


def square_pixel_hypotheses(cameras: Cameras) -> list[Hypothesis]:
    """Where the two focal lengths differ: one of them is wrong, for pixels are square."""
    if ((cameras.fy / cameras.fx).log().abs() < _SQUARE).all():
        return []
    return [_of_other_length("fl_y", "fl_x", "fy", "fx"), _of_other_length("fl_x", "fl_y", "fx", "fy")]


def _of_other_length(wrong: str, right: str, changed: str, kept: str) -> Hypothesis:
    return Hypothesis(
        f"pixels are square, and {wrong} must equal {right}",
        Cause.FOCAL,
        f"In data.transforms: set {wrong} to {right}, or leave {wrong} out.",
        cameras=lambda given: replace(given, **{changed: getattr(given, kept).clone()}),
    )


def intrinsics_hypotheses() -> list[Hypothesis]:
    """Focal length and principal point are those of a larger or smaller picture."""
    return [_intrinsics(ratio) for ratio in (0.125, 0.25, 0.5, 2.0, 4.0, 8.0)]


def _intrinsics(ratio: float) -> Hypothesis:
    size = f"{1 / ratio:g} times as large" if ratio < 1 else f"1/{ratio:g} of the size"
    return Hypothesis(
        f"focal length and principal point are of a picture {size}",
        Cause.FOCAL,
        f"In data.transforms: multiply fl_x, fl_y, cx and cy by {ratio:g}, or say the size they are for in w and h.",
        cameras=lambda given: scaled_intrinsics(given, ratio, *INTRINSICS),
    )


def principal_hypotheses(native: Cameras, shift: tuple[float, float] | None) -> list[Hypothesis]:
    """The principal point is not where the pictures have it: they have it at their centre, or elsewhere.

    Args:
        native: the cameras at the size of the pictures, in whose pixels it is said.
        shift: what puts it where it fits best, in fractions of width and height; None: it fits.
    """
    centred = _centred(native)
    off = (native.cx[0] - centred.cx[0]).item(), (native.cy[0] - centred.cy[0]).item()
    found = []
    if max(map(abs, off)) > _SAME_PIXEL:
        advice = (
            "In data.transforms: set cx to w / 2 and cy to h / 2, which is what a renderer supposes that ignores them "
            "(graphdeco's does), or render the pictures again with cx and cy."
        )
        name = f"the pictures have it at their centre, from which cx and cy are shifted by {_pixels(*off)}"
        found.append(Hypothesis(name, Cause.PRINCIPAL, advice, cameras=_centred))
    if shift is None:
        return found
    x, y = shift[0] * native.width, shift[1] * native.height
    if found and max(abs(off[0] + x), abs(off[1] + y)) < 1:
        return found
    advice = f"In data.transforms: add {x:.3g} to cx and {y:.3g} to cy (at {native.width}x{native.height})."
    name = f"cx and cy are shifted by {_pixels(-x, -y)} from where the pictures have the principal point"
    return [*found, Hypothesis(name, Cause.PRINCIPAL, advice, cameras=lambda given: moved_principal(given, *shift))]


def _centred(cameras: Cameras) -> Cameras:
    middle = torch.ones_like(cameras.cx)
    return replace(cameras, cx=middle * cameras.width / 2, cy=middle * cameras.height / 2)


def moved_principal(cameras: Cameras, x: float, y: float) -> Cameras:
    """The principal point moved by fractions of width and height."""
    return replace(cameras, cx=cameras.cx + x * cameras.width, cy=cameras.cy + y * cameras.height)


def _pixels(x: float, y: float) -> str:
    return f"({x:.3g}, {y:.3g}) pixels"
