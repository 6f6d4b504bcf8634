"""A small capture that the program makes itself: the bricks on the floor of a room, photographed from all around.

What is written is what structure from motion leaves of a real one: opaque pictures, a COLMAP text model and its sparse
points; beside them the Gaussians, as a teacher that was trained on it.
"""

from __future__ import annotations

from math import pi, radians
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kernels.threads import one_torch_thread
from machine.files import cache_dir
from machine.fingerprints import cache_key
from scene.cameras import Cameras
from scene.formats.colmap_text import write_model
from scene.images import write_image
from scene.orbits import posed_cameras, spiral_rotations
from teacher.bricks.scene import build_bricks
from teacher.gaussian_files.ply import write_ply
from teacher.gaussians import Gaussians, colors_of_sh, sh_of_colors
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.rasterized import blended_planes

ROOM_DRAWING = Drawing(supersample=2)
"""Of the pictures of the capture, and of its teacher."""

_LOWER, _UPPER = (-3.2, -2.8, -0.452), (3.2, 2.8, 2.2)  # the floor is just under the bricks' plate
_SPACING = 0.08
_OPACITY = 0.99
_TILE, _STRIPE = 0.8, 1.1
_CAMERAS, _HALF_FOV = 2.3, 27.0  # their distance from the bricks; degrees
_POINTS = 6000
_VERSION = 1  # of what is kept
_TURNS = {2: (0.0, 0.0, 1.0, 0.0), 1: (0.5**0.5, 0.5**0.5, 0.0, 0.0), 0: (0.5**0.5, 0.0, 0.5**0.5, 0.0)}


def room_capture(width: int, frames: int, seed: int) -> Path:
    """The folder of the capture in the cache, made where it is not there.

    It holds ``images/``, ``sparse/0/*.txt`` and ``point_cloud.ply``.

    Args:
        width: of the pictures, pixels; they are three quarters as high.
    """
    folder = cache_dir() / "captures" / f"room_{width}_{cache_key([], [width, frames, seed], _VERSION)[:12]}"
    if not (folder / "sparse/0/points3D.txt").is_file():  # which is written last
        _write(folder, width, frames, seed)
    return folder


def build_room(seed: int = 0) -> Gaussians:
    """The bricks, and the tiled floor, the striped walls and the ceiling about them: about 75,000 Gaussians."""
    return _joined(build_bricks(seed), *(_side(axis, end) for axis in range(3) for end in (0, 1)))


def room_cameras(frames: int, width: int, height: int, seed: int) -> Cameras:
    """Cameras in the room that look at the bricks, from 4 degrees over their middle up to 55."""
    start = np.random.default_rng(seed).uniform(0, 2 * pi)
    rotations = spiral_rotations(frames, 4.0, 55.0, np.array([0.0, 0.0, 1.0]), start)
    return posed_cameras(rotations, _CAMERAS * rotations[:, :, 2], radians(_HALF_FOV), width, height)


@one_torch_thread()
def _write(folder: Path, width: int, frames: int, seed: int) -> None:
    room, cameras = build_room(seed), room_cameras(frames, width, round(0.75 * width), seed)
    rasterizer = Rasterizer(room, drawing=ROOM_DRAWING)
    names = [f"view_{index:03d}.png" for index in range(frames)]
    for index, name in enumerate(names):
        write_image(folder / "images" / name, blended_planes(rasterizer, cameras, index)[..., :3].clamp(0, 1).numpy())
    write_ply(folder / "point_cloud.ply", room)
    seen = np.random.default_rng(seed).choice(len(room), _POINTS, replace=False)
    write_model(folder / "sparse/0", cameras, names, room.means[seen].numpy(), colors_of_sh(room.sh[seen]).numpy())


def _side(axis: int, end: int) -> Gaussians:
    """The side of the room at the lower or the upper end of an axis, flat Gaussians side by side."""
    lower, upper = np.array(_LOWER), np.array(_UPPER)
    across = [other for other in range(3) if other != axis]
    lines = [np.arange(lower[other] + _SPACING / 2, upper[other], _SPACING) for other in across]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    means = np.empty((len(places), 3))
    means[:, across], means[:, axis] = places, (lower, upper)[end][axis]
    means = torch.from_numpy(means).float()
    color = _floor(means) if (axis, end) == (2, 0) else _ceiling(means) if axis == 2 else _wall(means, axis, end)
    count = len(means)
    return Gaussians(
        means=means,
        log_scales=torch.tensor([0.65, 0.65, 0.1]).mul(_SPACING).log().repeat(count, 1),
        rotations=torch.tensor([_TURNS[axis]]).repeat(count, 1),
        opacity_logits=torch.full((count,), _OPACITY).logit(),
        sh=torch.cat([sh_of_colors(color), torch.zeros(count, 15, 3)], dim=1),
    )


def _floor(means: Tensor) -> Tensor:
    """(N, 3) sRGB: tiles in two tones, darker about the bricks."""
    odd = (means[:, :2] / _TILE).floor().sum(dim=1) % 2
    tones = torch.lerp(torch.tensor([0.72, 0.66, 0.56]), torch.tensor([0.45, 0.4, 0.36]), odd[:, None])
    return tones * (1 - 0.5 * torch.exp(-(means[:, :2] / torch.tensor([1.2, 0.9])).square().sum(dim=1)))[:, None]


def _wall(means: Tensor, axis: int, end: int) -> Tensor:
    """(N, 3) sRGB: stripes, of another colour on each wall, lighter towards the ceiling; a dark panel in the middle."""
    along, height = means[:, 1 - axis], (means[:, 2:] - _LOWER[2]) / (_UPPER[2] - _LOWER[2])
    hue = torch.tensor([[0.75, 0.5, 0.4], [0.45, 0.6, 0.72], [0.6, 0.68, 0.42], [0.7, 0.62, 0.75]])[2 * axis + end]
    stripe = 0.85 + 0.15 * torch.sin(2 * pi / _STRIPE * along)[:, None]
    color = hue * stripe * (0.75 + 0.3 * height)
    panel = (along.abs() < 0.9) & (height[:, 0] > 0.35) & (height[:, 0] < 0.8)
    return torch.where(panel[:, None], 1 - color, color)


def _ceiling(means: Tensor) -> Tensor:
    return torch.full_like(means, 0.85)


def _joined(*parts: Gaussians) -> Gaussians:
    return Gaussians(*(torch.cat(tables) for tables in zip(*(vars(part).values() for part in parts), strict=True)))
