"""Gaussians that the near plane of 3DGS leaves out, as of a scene much smaller than one unit."""

from __future__ import annotations

import torch

from scene.cameras import Cameras
from scene.frames import spread
from scene.rays import project
from teacher.gaussians import Gaussians

_MOST_CAMERAS, _MOST_GAUSSIANS = 8, 4096  # looked at
_MANY = 0.05  # of those in the pictures; a fit has next to none that near, but for floaters before its cameras


def near_plane_advice(gaussians: Gaussians, cameras: Cameras, near: float) -> str | None:
    """What to do where many Gaussians in the cameras' pictures are nearer than ``near``, world units; None: few are.

    The 3DGS rasteriser leaves out what is nearer along the view axis (0.2 in graphdeco's program).
    """
    means = gaussians.means[:: max(1, len(gaussians) // _MOST_GAUSSIANS)].cpu()
    cameras, depths = cameras.to("cpu"), []
    for frame in spread(range(len(cameras)), _MOST_CAMERAS):
        row, column, z, _ = project(cameras, frame, means)
        inside = (row >= 0) & (row <= cameras.height) & (column >= 0) & (column <= cameras.width)
        depths.append(z[inside & (z > 0)])
    before = torch.cat(depths)
    share = (before < near).float().mean().item() if len(before) else 0.0
    if share < _MANY:
        return None
    return (
        f"teacher.near leaves out what is nearer than {near:g} along the view axis, which is {share:.0%} of the "
        f"Gaussians before the cameras: set teacher.near to {before.quantile(0.02) / 2:.1g} or less."
    )
