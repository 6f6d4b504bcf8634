"""Gaussians that the near plane of 3DGS leaves out, as of a scene much smaller than one unit."""

from __future__ import annotations

from scene.cameras import Cameras
from scene.frames import spread
from teacher.gaussians import Gaussians

_MOST_CAMERAS, _MOST_GAUSSIANS = 8, 4096  # looked at
_MANY = 0.5  # of those in front of the cameras


def near_plane_advice(gaussians: Gaussians, cameras: Cameras, near: float) -> str | None:
    """What to do where most Gaussians before the cameras are nearer than ``near``, world units; None: they are not.

    The 3DGS rasteriser leaves out what is nearer along the view axis (0.2 in graphdeco's program).
    """
    means = gaussians.means[:: max(1, len(gaussians) // _MOST_GAUSSIANS)].cpu()
    poses = cameras[spread(range(len(cameras)), _MOST_CAMERAS)].world_to_camera().cpu()
    z = -(means @ poses[:, 2, :3].mT + poses[:, 2, 3])  # cameras look down -z
    before = z[z > 0]
    share = (before < near).float().mean().item() if len(before) else 0.0
    if share < _MANY:
        return None
    return (
        f"teacher.near leaves out what is nearer than {near:g} along the view axis, which is {share:.0%} of the "
        f"Gaussians before the cameras: set teacher.near to {before.quantile(0.02) / 2:.1g} or less."
    )
