"""The mistakes that make a good student look bad, each as what would have to be done to undo it.

A hypothesis changes the cameras that the student is rendered with, what is made of the rendering, or which picture
it is compared with. If the mistake was made, the student so rendered equals the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import permutations, product
from typing import NamedTuple

import torch
from torch import Tensor

from distill.model.view_renderers import Rendering
from scene.cameras import Cameras
from scene.images import srgb_to_linear
from settings.sections import Color

_BLENDER_HINT = (
    "Write the poses of data.transforms as camera-to-world with x right, y up, the camera looking down -z (Blender)"
)
# Smaller alphas do not bring a colour back.
_FAINT = 1e-3


class Cause(str, Enum):
    """What is wrong."""

    NONE = "none"
    BLANK = "blank student"
    DENSITY = "density never rose"
    AXES = "flipped axis"
    FOCAL = "wrong focal length"
    PRINCIPAL = "principal point"
    BACKGROUND = "wrong background"
    ALPHA = "premultiplied alpha"
    COLOUR = "colour encoding"
    DEPTH_KIND = "depth kind"
    DEPTH_FILES = "depth files"
    ORDER = "frame order"
    WORLD = "another world"
    STUDENT = "the student itself"
    UNKNOWN = "unknown"


class Finding(NamedTuple):
    """What is wrong, how that shows, and what to do."""

    cause: Cause
    evidence: str
    advice: str = ""


@dataclass(frozen=True)
class Hypothesis:
    """One possible mistake.

    Attributes:
        name: what is supposed to be wrong, in words.
        advice: what to change if it is.
        cameras: the cameras the views would have been made with, from the ones given; None: those.
        picture: from a rendering and the background to (H, W, 3) in [0, 1]; None: the rendering on the background.
        order: the view whose picture belongs to each of N cameras, -1: none; None: its own.
    """

    name: str
    cause: Cause
    advice: str = ""
    cameras: Callable[[Cameras], Cameras] | None = None
    picture: Callable[[Rendering, Color], Tensor] | None = None
    order: tuple[int, ...] | None = None


AS_IT_IS = Hypothesis("nothing is wrong", Cause.NONE)


# --- pictures ----------------------------------------------------------------------------------------------------


def picture_hypotheses(background: Color, is_square: bool) -> list[Hypothesis]:
    """Mistakes in how pictures were written or read: orientation, background, alpha, colour."""
    found = [_turned(name, turn) for name, turn in turns(is_square)]
    found += [on_background(color, name) for name, color in _BACKGROUNDS.items() if color != background]
    found += _alpha_hypotheses()
    found += [
        Hypothesis(
            "red and blue are swapped (BGR for RGB)",
            Cause.COLOUR,
            "Write the pictures as RGB.",
            picture=lambda view, background: view.over(background).flip(-1),
        ),
        Hypothesis(
            "the pictures are linear, not sRGB",
            Cause.COLOUR,
            "Write the pictures in sRGB, as the dataset's.",
            picture=lambda view, background: srgb_to_linear(view.over(background)),
        ),
    ]
    return found


_BACKGROUNDS: dict[str, Color] = {"white": (1.0, 1.0, 1.0), "black": (0.0, 0.0, 0.0)}
_TURNS: tuple[tuple[str, Callable[[Tensor], Tensor], bool], ...] = (
    ("mirrored left to right", lambda image: image.flip(1), False),
    ("upside down (mirrored)", lambda image: image.flip(0), False),
    ("turned by 180 degrees", lambda image: image.flip(0, 1), False),
    ("transposed (rows for columns)", lambda image: image.transpose(0, 1), True),
    ("turned by 90 degrees anticlockwise", lambda image: image.transpose(0, 1).flip(0), True),
    ("turned by 90 degrees clockwise", lambda image: image.transpose(0, 1).flip(1), True),
    ("transposed along the other diagonal", lambda image: image.transpose(0, 1).flip(0, 1), True),
)


def turns(is_square: bool) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Ways to turn an (H, W, ...) image that keep its size, in words."""
    return ((name, turn) for name, turn, needs_square in _TURNS if is_square or not needs_square)


def _turned(name: str, turn: Callable[[Tensor], Tensor]) -> Hypothesis:
    advice = "Write the teacher's pictures upright: row 0 is the top, column 0 the left."
    return Hypothesis(
        f"the pictures are {name}", Cause.AXES, advice, picture=lambda view, background: turn(view.over(background))
    )


def on_background(color: Color, name: str) -> Hypothesis:
    """The pictures are on another background than the one supposed."""
    value = "[" + ", ".join(f"{part:.3g}" for part in color) + "]"
    return Hypothesis(
        f"the pictures are on {name}",
        Cause.BACKGROUND,
        f"Set teacher.background and render.background to {name if name in _BACKGROUNDS else value}.",
        picture=lambda view, _: view.over(color),
    )


def fitted_background(renderings: Sequence[Rendering], pictures: Sequence[Tensor]) -> Color:
    """The background on which renderings come closest to the pictures: least squares, per channel, in [0, 1]."""
    clear = torch.cat([1 - view.alpha.flatten() for view in renderings])
    rest = torch.cat([(picture - view.rgb).flatten(0, 1) for view, picture in zip(renderings, pictures, strict=True)])
    color = (clear[:, None] * rest).sum(0) / clear.square().sum().clamp(min=1e-9)
    red, green, blue = color.clamp(0, 1).tolist()
    return red, green, blue


ALPHA_ADVICE = "Write RGBA pictures with straight (not premultiplied) alpha, or RGB on teacher.background."


def _alpha_hypotheses() -> list[Hypothesis]:
    def twice(view: Rendering, background: Color) -> Tensor:
        return view._replace(rgb=view.rgb * view.alpha[..., None]).over(background)

    def never(view: Rendering, background: Color) -> Tensor:
        return view._replace(rgb=_straight(view)).over(background)

    return [
        Hypothesis(
            "alpha is multiplied twice (premultiplied, read as straight)", Cause.ALPHA, ALPHA_ADVICE, picture=twice
        ),
        Hypothesis(
            "alpha is not multiplied (straight, read as premultiplied)", Cause.ALPHA, ALPHA_ADVICE, picture=never
        ),
        Hypothesis("alpha is dropped", Cause.ALPHA, ALPHA_ADVICE, picture=lambda view, _: _straight(view).clamp(0, 1)),
    ]


def _straight(view: Rendering) -> Tensor:
    alpha = view.alpha[..., None]
    return torch.where(alpha > _FAINT, view.rgb / alpha.clamp(min=_FAINT), 0.0)


# --- cameras -----------------------------------------------------------------------------------------------------


_XYZ, _OWN, _OPENCV, _MIRRORED = (0, 1, 2), (1, 1, 1), (1, -1, -1), (-1, 1, 1)
# Order and signs of the world's axes, signs of the camera's.
_NAMED_AXES = {
    (_XYZ, (-1, 1, 1), _MIRRORED): "the x axis is flipped",
    (_XYZ, (1, -1, 1), _MIRRORED): "the y axis is flipped",
    (_XYZ, (1, 1, -1), _MIRRORED): "the z axis is flipped",
    (_XYZ, (-1, 1, 1), _OWN): "the x axis is flipped, the pictures are not",
    (_XYZ, (1, -1, 1), _OWN): "the y axis is flipped, the pictures are not",
    (_XYZ, (1, 1, -1), _OWN): "the z axis is flipped, the pictures are not",
    ((0, 2, 1), (1, -1, 1), _OWN): "y is up in the poses, z in the student",
    ((0, 2, 1), (1, 1, -1), _OWN): "z is up in the poses, y in the student",
}


def pose_hypotheses() -> list[Hypothesis]:
    """The usual mistakes with poses; ``axes_hypotheses`` has the rest."""
    found = [
        Hypothesis(
            "camera axes are OpenCV's (y down, looking down +z)",
            Cause.AXES,
            f"{_BLENDER_HINT}: negate the 2nd and 3rd column of each transform_matrix.",
            cameras=_with_axes(_XYZ, _OWN, _OPENCV),
        ),
        Hypothesis(
            "poses are world-to-camera",
            Cause.AXES,
            f"{_BLENDER_HINT}: invert each transform_matrix.",
            cameras=inverted,
        ),
        Hypothesis(
            "poses are world-to-camera, in OpenCV's axes (COLMAP)",
            Cause.AXES,
            f"{_BLENDER_HINT}: invert each transform_matrix, then negate its 2nd and 3rd column.",
            cameras=lambda cameras: _with_axes(_XYZ, _OWN, _OPENCV)(inverted(cameras)),
        ),
    ]
    return found + [_axes(name, *axes) for axes, name in _NAMED_AXES.items()]


def axes_hypotheses() -> Iterator[Hypothesis]:
    """Every other way to name the axes of the world, with the camera's own or mirrored to match, or OpenCV's."""
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        world = ", ".join(f"{'-' if sign < 0 else ''}{'xyz'[axis]}" for axis, sign in zip(order, signs, strict=True))
        is_mirrored = torch.linalg.det(_signed_permutation(order, signs)) < 0
        cameras = {"": _OWN}
        cameras |= {", mirrored": _MIRRORED} if is_mirrored else {", cameras in OpenCV's axes": _OPENCV}
        for words, camera in cameras.items():
            is_usual = (order, signs) == (_XYZ, _OWN) or (order, signs, camera) in _NAMED_AXES
            if not is_usual:
                yield _axes(f"the poses' world axes are ({world}){words}", order, signs, camera)


def _axes(name: str, order: Sequence[int], signs: Sequence[int], camera: Sequence[int]) -> Hypothesis:
    advice = "Bring the poses of data.transforms and the teacher into one world: the same axes, the same handedness."
    return Hypothesis(name, Cause.AXES, advice, cameras=_with_axes(order, signs, camera))


def _with_axes(order: Sequence[int], signs: Sequence[int], camera: Sequence[int]) -> Callable[[Cameras], Cameras]:
    """World axis n becomes ``signs[n]`` times axis ``order[n]``; the camera's are multiplied by ``camera``.

    A mirrored pose makes left-handed rays, which every renderer here draws as they are.
    """

    def change(cameras: Cameras) -> Cameras:
        world, own = torch.eye(4), torch.diag(torch.tensor([*camera, 1.0]))
        world[:3, :3] = _signed_permutation(order, signs)
        return replace(cameras, c2w=world @ cameras.c2w @ own)

    return change


def _signed_permutation(order: Sequence[int], signs: Sequence[int]) -> Tensor:
    matrix = torch.zeros(3, 3)
    for row, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        matrix[row, axis] = sign
    return matrix


def inverted(cameras: Cameras) -> Cameras:
    """Poses taken for their inverse."""
    return replace(cameras, c2w=cameras.world_to_camera())


def scale_hypothesis(factor: float) -> Hypothesis:
    """Positions in other units than the student's world, or the teacher's Gaussians."""
    return Hypothesis(
        f"the poses' positions must be multiplied by {factor:.4g}",
        Cause.WORLD,
        "Scale the positions of data.transforms by that, or the Gaussians: multiply teacher.scale (1 unless set) by "
        f"{1 / factor:.4g}.",
        cameras=lambda cameras: scaled_positions(cameras, factor),
    )


def scaled_positions(cameras: Cameras, factor: float) -> Cameras:
    """Cameras ``factor`` times as far from the world's origin."""
    poses = cameras.c2w.clone()
    poses[:, :3, 3] *= factor
    return replace(cameras, c2w=poses)


# --- order -------------------------------------------------------------------------------------------------------


def order_hypotheses(names: Sequence[str]) -> list[Hypothesis]:
    """The usual mistakes with the order of frames."""
    count = len(names)
    orders = {
        f"the pictures are {abs(shift)} frame{'s' * (abs(shift) > 1)} {'late' if shift > 0 else 'early'}": tuple(
            index + shift if 0 <= index + shift < count else -1 for index in range(count)
        )
        for shift in (1, -1, 2, -2)
    }
    orders["the pictures are in reverse order"] = tuple(reversed(range(count)))
    for what, texts in (("names", list(names)), ("numbers", [str(index) for index in range(count)])):
        by_text = sorted(range(count), key=texts.__getitem__)
        place = sorted(range(count), key=by_text.__getitem__)
        orders[f"the pictures are sorted by {what} as text (1, 10, 100, 2, ...)"] = tuple(place)
        orders[f"the poses are sorted by {what} as text (1, 10, 100, 2, ...)"] = tuple(by_text)
    own = tuple(range(count))
    return [_ordered(name, order) for name, order in orders.items() if order != own and max(order) >= 0]


def another_order(order: tuple[int, ...], names: Sequence[str]) -> Hypothesis:
    """Each rendering belongs to the picture it is most like."""
    moved = [(names[index], names[picture]) for index, picture in enumerate(order) if picture not in (-1, index)]
    examples = ", ".join(f"{name} shows {other}" for name, other in moved[:3])
    return _ordered(f"the pictures are in another order ({examples} ...)", order)


def _ordered(name: str, order: tuple[int, ...]) -> Hypothesis:
    advice = "List the frames of data.transforms in the order of the pictures: frame k is 0000k.png."
    return Hypothesis(name, Cause.ORDER, advice, order=order)
