"""Cameras where a dataset has none: turned evenly to all sides, upright."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import torch

from scene.cameras import Cameras


def spiral_rotations(count: int, lowest: float, highest: float, up: np.ndarray, start: float = 0.0) -> np.ndarray:
    """Upright camera axes whose backward directions are evenly spread over the sphere between two elevations.

    They follow a Fibonacci spiral from the lowest to the highest, so every k-th of them is evenly spread too.

    Args:
        lowest, highest: degrees over the level; that of a camera seen from what it looks at.
        up: (3,) unit vector.
        start: radians by which the spiral is turned about ``up``.

    Returns:
        (count, 3, 3) float64: the columns are right, up and back.
    """
    low, high = np.sin(np.deg2rad([lowest, highest]))
    index = np.arange(count)
    sine = low + (high - low) * (index + 0.5) / count
    azimuth = start + index * pi * (3 - sqrt(5))
    cosine = np.sqrt(1 - sine**2)
    backward = np.stack([cosine * np.cos(azimuth), cosine * np.sin(azimuth), sine], axis=1)
    right = np.stack([-np.sin(azimuth), np.cos(azimuth), np.zeros(count)], axis=1)
    # The rows are the camera's axes, in level axes and then in the world's.
    rows = np.stack([right, np.cross(backward, right), backward], axis=1) @ level_axes(up)
    return rows.transpose(0, 2, 1)


def level_axes(up: np.ndarray) -> np.ndarray:
    """(3, 3) float64, right-handed: the rows are two level directions and ``up``; the identity where that is z."""
    ahead = np.eye(3)[np.abs(up).argmin()]
    ahead = ahead - (ahead @ up) * up
    ahead /= np.linalg.norm(ahead)
    return np.stack([ahead, np.cross(up, ahead), up])


def posed_cameras(rotations: np.ndarray, centers: np.ndarray, half_fov: float, width: int, height: int) -> Cameras:
    """Cameras of one lens.

    Args:
        rotations: (N, 3, 3) whose columns are right, up and back.
        centers: (N, 3) world units.
        half_fov: between the axis and the nearest border of the image, radians.
    """
    count = len(rotations)
    c2w = np.tile(np.eye(4), (count, 1, 1))
    c2w[:, :3, :3], c2w[:, :3, 3] = rotations, centers
    focal = torch.full((count,), 0.5 * min(width, height) / np.tan(half_fov))
    cx, cy = torch.full((count,), width / 2), torch.full((count,), height / 2)
    return Cameras(torch.from_numpy(c2w).float(), focal, focal, cx, cy, width, height)
