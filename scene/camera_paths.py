"""Camera paths made from the cameras of a dataset."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from scene.cameras import Cameras

# Right over the scene "up" in the image has no direction.
_MOST_ELEVATION = math.radians(85)


def orbit_path(cameras: Cameras, centre: tuple[float, float, float], frames: int) -> Cameras:
    """One round about a scene at the cameras' median distance and elevation, starting near the first of them.

    Args:
        cameras: of the dataset; what is up in their images, on average, is the axis of the round.
        centre: what every frame looks at, world units.
        frames: number of frames, evenly spaced, the last one short of the first.

    Returns:
        ``frames`` cameras with the median focal lengths and principal point, at the same size.

    Raises:
        ValueError: the cameras' up directions cancel out, or a camera is at the centre.
    """
    poses = cameras.c2w.double().cpu()
    target = torch.tensor(centre, dtype=torch.float64)
    up = poses[:, :3, 1].mean(0)
    offsets = poses[:, :3, 3] - target
    if up.norm() < 1e-3 or (offsets.norm(dim=1) < 1e-9).any():
        raise ValueError("the cameras have no common up direction, or one is at the centre of the scene")
    up = F.normalize(up, dim=0)
    radius = offsets.norm(dim=1).median()
    elevation = torch.arcsin((F.normalize(offsets, dim=1) @ up).clamp(-1, 1)).median()
    elevation = elevation.clamp(-_MOST_ELEVATION, _MOST_ELEVATION)

    ahead = offsets[0] - (offsets[0] @ up) * up
    if ahead.norm() < 1e-6 * radius:
        ahead = torch.linalg.cross(up, torch.eye(3, dtype=torch.float64)[up.abs().argmin()])
    ahead = F.normalize(ahead, dim=0)
    aside = torch.linalg.cross(up, ahead)
    angle = torch.arange(frames, dtype=torch.float64)[:, None] * (2 * math.pi / frames)
    level = angle.cos() * ahead + angle.sin() * aside
    back = elevation.cos() * level + elevation.sin() * up
    right = F.normalize(torch.linalg.cross(up.expand_as(back), back), dim=1)

    c2w = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    c2w[:, :3, :3] = torch.stack([right, torch.linalg.cross(back, right), back], dim=2)
    c2w[:, :3, 3] = target + radius * back
    median = {name: getattr(cameras, name).cpu().median().expand(frames).clone() for name in ("fx", "fy", "cx", "cy")}
    return Cameras(c2w.float(), **median, width=cameras.width, height=cameras.height)
