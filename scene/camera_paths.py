"""Camera paths made from the cameras of a dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import SceneBox, Vector, focus

# Lengths of the mean of unit directions, from which on cameras have an up in common, or look the same way.
_COMMON, _SAME = 0.3, 0.9
# Mean squares of what is right in images along two directions: that of the one which is level nowhere may be so much
# of the other's, and that one has to be seen from sides that differ by some 10 degrees, or the two are not told apart.
_LEVEL, _SIDES = 0.2, 0.01
_ASIDE = 0.2  # of the distance of what cameras look at, by which the middle of a box may be beside it
_FLAT = 4.0  # how much wider a flight at one height is than high
# Right over the scene "up" in the image has no direction.
_MOST_ELEVATION = math.radians(85)
# Of an axis of the world: what is up by level cameras, and by the mean of what is up in images.
_NEAR_AN_AXIS, _ABOUT_AN_AXIS = math.cos(math.radians(3)), math.cos(math.radians(15))


def common_up(poses: Tensor) -> Tensor | None:
    """What is up for cameras: (3,) float64 unit vector on the CPU; None where they do not agree.

    It is what their images have neither to the right nor to the left, where they are taken from several sides: a camera
    is mostly held level, however steeply it looks down. Else it is what is up in the images on average, which leans to
    where most of them look. That cancels out in a survey that is flown to and fro by a camera that looks straight down:
    there it is the way back from what all look at, if they are spread flat across it.

    Args:
        poses: (N, 4, 4) camera to world, N >= 1.
    """
    return _up(poses)[0]


def world_up(cameras: Cameras) -> Vector | None:
    """As ``common_up``, but an axis of the world where one is near: datasets mostly have one that is up.

    Within 3 degrees where cameras are level, and 15 where it is an average, which unevenly spread ones put off.
    """
    up, is_level = _up(cameras.c2w)
    if up is not None and up.abs().max() >= (_NEAR_AN_AXIS if is_level else _ABOUT_AN_AXIS):
        up = torch.where(up.abs() == up.abs().max(), up.sign(), 0)
    return None if up is None else tuple(up.tolist())


def _up(poses: Tensor) -> tuple[Tensor | None, bool]:
    """As ``common_up``, and whether it is told by level cameras."""
    poses = poses.double().cpu()
    right, up, back = poses[:, :3, 0], poses[:, :3, 1].mean(0), poses[:, :3, 2].mean(0)
    squares, axes = torch.linalg.eigh(right.T @ right / len(right))
    upright = axes[:, 0] * torch.sign(axes[:, 0] @ up)
    if squares[0] <= _LEVEL * squares[1] and squares[1] >= _SIDES and upright @ up >= _COMMON:
        return upright, True
    if up.norm() >= _COMMON:
        return F.normalize(up, dim=0), False
    spread = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    height = (spread @ F.normalize(back, dim=0)).norm()
    is_survey = back.norm() >= _SAME and spread.norm() > _FLAT * height
    return (F.normalize(back, dim=0) if is_survey else None), False


def middle_of(cameras: Cameras, box: SceneBox) -> Vector:
    """What a round goes about: the middle of the scene box, or of what cameras look at where that is elsewhere in it.

    An object is in the middle of its box, and cameras look at it. The box of a capture is of the surroundings too: its
    middle may be beside what all look at. Cameras that look past each other look at no one place.
    """
    try:
        centre, depth = focus(cameras)
    except ValueError:
        return box.centre
    aside = (centre - centre.new_tensor(box.centre)).norm()
    if aside <= _ASIDE * depth.median() or not box.contains(centre):
        return box.centre
    x, y, z = centre.tolist()
    return x, y, z


def orbit_path(cameras: Cameras, centre: Vector, frames: int, up: Vector | None = None) -> Cameras:
    """One round about a scene at the cameras' median distance and elevation, starting near the first of them.

    Args:
        cameras: of the dataset.
        centre: what every frame looks at, world units.
        frames: number of frames, evenly spaced, the last one short of the first.
        up: unit vector, the axis of the round; None: as ``common_up``.

    Returns:
        ``frames`` cameras with the median focal lengths and principal point, at the same size.

    Raises:
        ValueError: the cameras' up directions cancel out, or a camera is at the centre.
    """
    surroundings = _Surroundings.of(cameras, centre, up)
    return surroundings.views(cameras, _turn(frames), surroundings.elevations.median().expand(frames))


def spiral_path(cameras: Cameras, centre: Vector, frames: int, up: Vector | None = None, rounds: int = 2) -> Cameras:
    """Rounds about a scene that rise from the cameras' lowest elevation to their highest and sink back again.

    The last frame is one short of the first, so that a film of it can be looped.

    Args:
        cameras, centre, frames, up: as ``orbit_path``.
        rounds: turns about the axis.

    Returns, Raises: as ``orbit_path``.
    """
    surroundings = _Surroundings.of(cameras, centre, up)
    low, high = surroundings.elevations.min(), surroundings.elevations.max()
    turn = _turn(frames)
    return surroundings.views(cameras, rounds * turn, low + (high - low) * (1 - turn.cos()) / 2)


def _turn(frames: int) -> Tensor:
    """(frames,) evenly spaced angles of one turn, radians."""
    return torch.arange(frames, dtype=torch.float64) * (2 * math.pi / frames)


@dataclass(frozen=True)
class _Surroundings:
    """How a dataset's cameras lie around a centre; float64 on the CPU.

    Attributes:
        target: (3,) the centre.
        up, ahead: (3,) orthogonal unit vectors: the axis, and the level direction of the first camera.
        radius: () median distance from the centre.
        elevations: (N,) of the cameras over the level, radians.
    """

    target: Tensor
    up: Tensor
    ahead: Tensor
    radius: Tensor
    elevations: Tensor

    @classmethod
    def of(cls, cameras: Cameras, centre: Vector, up: Vector | None) -> _Surroundings:
        poses = cameras.c2w.double().cpu()
        target = torch.tensor(centre, dtype=torch.float64)
        up = common_up(cameras.c2w) if up is None else torch.tensor(up, dtype=torch.float64)
        offsets = poses[:, :3, 3] - target
        if up is None:
            raise ValueError("cameras with no up direction in common")
        if (offsets.norm(dim=1) < 1e-9).any():
            raise ValueError("a camera at the centre of the scene")
        radius = offsets.norm(dim=1).median()
        elevations = torch.arcsin((F.normalize(offsets, dim=1) @ up).clamp(-1, 1))
        ahead = offsets[0] - (offsets[0] @ up) * up
        if ahead.norm() < 1e-6 * radius:
            ahead = torch.linalg.cross(up, torch.eye(3, dtype=torch.float64)[up.abs().argmin()])
        return cls(target, up, F.normalize(ahead, dim=0), radius, elevations)

    def views(self, cameras: Cameras, angle: Tensor, elevation: Tensor) -> Cameras:
        """Cameras that look at the centre from these (M,) angles about the axis and elevations, in radians."""
        elevation = elevation.clamp(-_MOST_ELEVATION, _MOST_ELEVATION)[:, None]
        angle = angle[:, None]
        aside = torch.linalg.cross(self.up, self.ahead)
        level = angle.cos() * self.ahead + angle.sin() * aside
        back = elevation.cos() * level + elevation.sin() * self.up
        right = F.normalize(torch.linalg.cross(self.up.expand_as(back), back), dim=1)
        c2w = torch.eye(4, dtype=torch.float64).repeat(len(angle), 1, 1)
        c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=2)
        c2w[:, :3, 3] = self.target + self.radius * back
        median = {
            name: getattr(cameras, name).cpu().median().expand(len(angle)).clone() for name in ("fx", "fy", "cx", "cy")
        }
        return Cameras(c2w.float(), **median, width=cameras.width, height=cameras.height)
