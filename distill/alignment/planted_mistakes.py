"""Mistakes made on purpose in a comparison that is right, to see what each costs and whether it is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.alignment.comparison import Comparison, StoredDepth
from distill.alignment.hypotheses import Cause, inverted, scaled_positions
from distill.alignment.intrinsics import INTRINSICS, moved_principal, scaled_intrinsics
from distill.model.view_renderers import Rendering
from scene.cameras import Cameras
from settings.sections import Color
from teacher.depth import DepthKind

_SEED = 0
_GREY, _HAZE = 0.5, 0.01


@dataclass(frozen=True)
class Fault:
    """A mistake to make.

    Attributes:
        name: short, for a command line.
        what: in words.
        cause: what should be found.
        plant: makes it; None where the comparison has not what it takes.
    """

    name: str
    what: str
    cause: Cause
    plant: Callable[[Comparison], Comparison | None]


def _cameras(change: Callable[[Cameras], Cameras]) -> Callable[[Comparison], Comparison]:
    """The poses or intrinsics that the student is rendered with are wrong."""
    return lambda given: replace(given, cameras=change(given.cameras))


def _poses(world: Tensor, camera: Tensor) -> Callable[[Comparison], Comparison]:
    return _cameras(lambda cameras: replace(cameras, c2w=world @ cameras.c2w @ camera))


def _flip(axis: int) -> Callable[[Comparison], Comparison]:
    """The file's world is mirrored, and so are its cameras: the poses are still rigid."""
    mirror, own = torch.eye(4), torch.diag(torch.tensor([-1.0, 1, 1, 1]))
    mirror[axis, axis] = -1
    return _poses(mirror, own)


def _scaled(scale: float, *names: str) -> Callable[[Comparison], Comparison]:
    return _cameras(lambda cameras: scaled_intrinsics(cameras, scale, *names))


def _pictures(change: Callable[[Tensor, Tensor, Color], Tensor]) -> Callable[[Comparison], Comparison]:
    """The pictures are wrong: ``change`` takes all of them, coverage (N, H, W, 1) and background."""

    def plant(given: Comparison) -> Comparison:
        changed = change(given.pictures, given.coverage[..., None], given.background)
        return replace(given, pictures=changed.clamp(0, 1))

    return plant


def _turned(turn: Callable[[Tensor], Tensor]) -> Callable[[Comparison], Comparison]:
    """The pictures are turned, and with them which of their pixels count."""
    return lambda given: _with_pictures(given, turn)


def _with_pictures(given: Comparison, change: Callable[[Tensor], Tensor]) -> Comparison:
    counted = None if given.counted is None else change(given.counted)
    return replace(given, pictures=change(given.pictures), counted=counted)


def _premultiplied(given: Comparison) -> Comparison | None:
    """Alpha multiplied to colours that have been multiplied by it; it takes pictures with alpha."""

    def multiplied(pictures: Tensor, alpha: Tensor, background: Color) -> Tensor:
        rest = (1 - alpha) * pictures.new_tensor(background)
        return (pictures - rest) * alpha + rest

    return _pictures(multiplied)(given) if given.has_alpha else None


def _transposed(given: Comparison) -> Comparison | None:
    """Rows for columns; it takes square pictures."""
    is_square = given.cameras.width == given.cameras.height
    return _turned(lambda planes: planes.transpose(1, 2))(given) if is_square else None


def _order(permutation: Callable[[Comparison], Tensor]) -> Callable[[Comparison], Comparison]:
    return lambda given: _with_pictures(given, lambda planes: planes[permutation(given)])


def _shuffled(given: Comparison) -> Tensor:
    return torch.randperm(len(given), generator=torch.Generator().manual_seed(_SEED))


def _text_sorted(given: Comparison) -> Tensor:
    return torch.tensor(sorted(range(len(given)), key=lambda index: str(index)))


def _blank(color: float, alpha: float) -> Callable[[Comparison], Comparison]:
    """A student of one grey and one alpha, from any camera."""

    def render(cameras: Cameras, index: int) -> Rendering:
        size = (cameras.height, cameras.width)
        return Rendering(torch.full((*size, 3), color * alpha), torch.full(size, alpha), torch.zeros(size))

    return lambda given: replace(given, render=render)


def _learnt(given: Comparison, change: Callable[[Rendering], Rendering]) -> Comparison:
    """The student shows what it learnt from the changed pictures."""
    return replace(given, render=lambda cameras, index: change(given.render(cameras, index)))


def _learnt_premultiplied(given: Comparison) -> Comparison | None:
    """Colours multiplied twice in the pictures, and by a student that learnt them."""
    planted = _premultiplied(given)
    if planted is None:
        return None
    return _learnt(planted, lambda view: view._replace(rgb=view.rgb * view.alpha[..., None]))


def _learnt_black(given: Comparison) -> Comparison:
    """Pictures without alpha on black, read as on the background, and a student that learnt an opaque black."""
    rest = (1 - given.coverage[..., None]) * given.pictures.new_tensor(given.background)
    on_black = replace(given, pictures=given.pictures - rest, has_alpha=False)
    return _learnt(on_black, lambda view: view._replace(alpha=torch.ones_like(view.alpha)))


def _other_background(given: Comparison) -> Comparison:
    return replace(given, background=tuple(1.0 - part for part in given.background))


def _depth_kind(kind: DepthKind) -> Callable[[Comparison], Comparison | None]:
    def plant(given: Comparison) -> Comparison | None:
        if given.depth is None or given.depth.kind.quantity == kind.quantity:
            return None
        return replace(given, depth=replace(given.depth, kind=kind))

    return plant


def _depth(change: Callable[[StoredDepth], StoredDepth]) -> Callable[[Comparison], Comparison | None]:
    """The depth files are wrong, where there are any."""
    return lambda given: None if given.depth is None else replace(given, depth=change(given.depth))


def _depth_late(depth: StoredDepth) -> StoredDepth:
    return replace(depth, frames=tuple((frame + 1) % len(depth.names) for frame in depth.frames))


_OPENCV = torch.diag(torch.tensor([1.0, -1, -1, 1]))
_Y_UP = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
_SAME = torch.eye(4)

FAULTS: tuple[Fault, ...] = (
    Fault("empty", "an empty student: the background alone", Cause.DENSITY, _blank(_GREY, 0.0)),
    Fault("dead", "a student whose density never rose (dead activation): a haze", Cause.DENSITY, _blank(_GREY, _HAZE)),
    Fault("opaque", "an opaque grey student", Cause.BLANK, _blank(_GREY, 1.0)),
    Fault("opencv", "poses in OpenCV's camera axes", Cause.AXES, _poses(_SAME, _OPENCV)),
    Fault("flip_x", "the x axis flipped", Cause.AXES, _flip(0)),
    Fault("flip_y", "the y axis flipped", Cause.AXES, _flip(1)),
    Fault("flip_z", "the z axis flipped", Cause.AXES, _flip(2)),
    Fault("y_up", "poses of a world with y up", Cause.AXES, _poses(_Y_UP, _SAME)),
    Fault("units", "positions in other units", Cause.WORLD, _cameras(lambda cameras: scaled_positions(cameras, 0.3))),
    Fault("inverted", "world-to-camera poses", Cause.AXES, _cameras(inverted)),
    Fault("mirrored", "pictures mirrored", Cause.AXES, _turned(lambda planes: planes.flip(2))),
    Fault("upside_down", "pictures upside down", Cause.AXES, _turned(lambda planes: planes.flip(1))),
    Fault("transposed", "pictures transposed", Cause.AXES, _transposed),
    Fault("focal_0.9", "the focal length 10% short", Cause.FOCAL, _scaled(0.9, "fx", "fy")),
    Fault("focal_half", "half of the focal length", Cause.FOCAL, _scaled(0.5, "fx", "fy")),
    Fault("focal_twice", "twice the focal length", Cause.FOCAL, _scaled(2.0, "fx", "fy")),
    Fault("full_size", "intrinsics of a picture twice as large", Cause.FOCAL, _scaled(2.0, *INTRINSICS)),
    Fault(
        "principal",
        "a principal point that the pictures ignore",
        Cause.PRINCIPAL,
        _cameras(lambda cameras: moved_principal(cameras, 0.08, -0.12)),
    ),
    Fault("background", "the student on black, the pictures on white", Cause.BACKGROUND, _other_background),
    Fault("premultiplied", "premultiplied pictures read as straight", Cause.ALPHA, _premultiplied),
    Fault("learnt_black", "pictures on black without alpha, learnt as they are", Cause.BACKGROUND, _learnt_black),
    Fault("learnt_premultiplied", "premultiplied pictures, learnt as they are", Cause.ALPHA, _learnt_premultiplied),
    Fault("depth_z", "depth read as z", Cause.DEPTH_KIND, _depth_kind(DepthKind.Z)),
    Fault("depth_distance", "depth read as distance", Cause.DEPTH_KIND, _depth_kind(DepthKind.DISTANCE)),
    Fault(
        "depth_mirrored",
        "depth files mirrored",
        Cause.DEPTH_FILES,
        _depth(lambda depth: replace(depth, values=depth.values.flip(2))),
    ),
    Fault("depth_late", "depth files one frame late", Cause.DEPTH_FILES, _depth(_depth_late)),
    Fault(
        "depth_units",
        "depth files in other units",
        Cause.DEPTH_FILES,
        _depth(lambda depth: replace(depth, values=depth.values * 1.1)),
    ),
    Fault("late", "pictures one frame late", Cause.ORDER, _order(lambda given: torch.arange(len(given)).roll(1))),
    Fault("reversed", "pictures in reverse order", Cause.ORDER, _order(lambda given: torch.arange(len(given)).flip(0))),
    Fault("shuffled", "pictures shuffled", Cause.ORDER, _order(_shuffled)),
    Fault("text_sorted", "pictures sorted as text (1, 10, 100, 2)", Cause.ORDER, _order(_text_sorted)),
    Fault("bgr", "red and blue swapped", Cause.COLOUR, _pictures(lambda pictures, *_: pictures.flip(-1))),
)
"""Every mistake that can be planted, two of each kind where there are two."""
