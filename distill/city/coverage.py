"""Which cameras see which block of a city, and how many see each point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from scene.cameras import Cameras
from scene.rays import SceneBox

_CAMERAS = 512  # looked at together
_MOST_CAMERAS, _LEAST_DEPTH = 512, 1e-6


def cameras_of_blocks(
    cameras: Cameras, boxes: Sequence[SceneBox], least_share: float, near: float, far: float
) -> np.ndarray:
    """(N, B) bool: whether each camera sees each box, whatever is before it.

    It does where the box may lie in its frustum, not beyond ``far``, and the rectangle around the box in its picture
    covers at least ``least_share`` of that; a box that the camera is in is seen.

    Args:
        near, far: range from the camera, world units.
    """
    lower, upper = (np.array([getattr(box, side) for box in boxes]) for side in ("lower", "upper"))
    corners = np.stack([np.where(choice, upper, lower) for choice in product((False, True), repeat=3)], axis=1)
    seen = np.empty((len(cameras), len(boxes)), dtype=bool)
    for part, centres, (u, v, z) in _projected(cameras, corners.reshape(-1, 3)):
        u, v, z = (values.reshape(len(centres), len(boxes), 8) for values in (u, v, z))
        width, height = cameras.width, cameras.height
        outside = [z <= near, u < 0, u > width * z, v < 0, v > height * z]
        missed = np.logical_or.reduce([side.all(axis=-1) for side in outside])
        # What is behind the camera lies beyond its picture's edge, in the limit.
        depth = np.maximum(z, _LEAST_DEPTH)
        columns, rows = np.clip(u / depth, 0, width), np.clip(v / depth, 0, height)
        share = np.ptp(columns, axis=-1) * np.ptp(rows, axis=-1) / (width * height)
        nearest = np.clip(centres[:, None], lower, upper)
        distance = np.linalg.norm(nearest - centres[:, None], axis=-1)
        seen[part] = (distance == 0) | (~missed & (share >= least_share) & (distance <= far))
    return seen


def views_of_points(cameras: Cameras, points: np.ndarray) -> np.ndarray:
    """(M,) how many cameras, of at most 512 of them evenly spread, have each of (M, 3) points in their picture."""
    few = cameras[:: -(-len(cameras) // _MOST_CAMERAS)]
    counts = np.zeros(len(points), dtype=np.int64)
    for _, _, (u, v, z) in _projected(few, points):
        counts += ((z > 0) & (u >= 0) & (u <= few.width * z) & (v >= 0) & (v <= few.height * z)).sum(axis=0)
    return counts


def _projected(
    cameras: Cameras, points: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Some cameras at a time: which, their centres (n, 3), and column * z, row * z and z of each point, (n, M) float32.

    z is the depth along the view axis, world units.
    """
    together = max(1, min(_CAMERAS, 4_000_000 // max(1, len(points))))
    poses = cameras.c2w.cpu().numpy().astype(np.float64)
    fx, fy, cx, cy = (getattr(cameras, name).cpu().numpy()[:, None] for name in ("fx", "fy", "cx", "cy"))
    for start in range(0, len(cameras), together):
        part = slice(start, start + together)
        centres, rotations = poses[part, :3, 3], poses[part, :3, :3]
        origin = (rotations.transpose(0, 2, 1) @ centres[..., None])[..., 0]
        axes = rotations.transpose(2, 0, 1).astype(np.float32)  # right, up and back of each camera
        places = [points.astype(np.float32) @ axis.T - origin[:, k].astype(np.float32) for k, axis in enumerate(axes)]
        right, up, back = (place.T for place in places)
        z = -back
        yield part, centres, (fx[part] * right + cx[part] * z, cy[part] * z - fy[part] * up, z)
