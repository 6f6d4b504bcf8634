"""Rays of a whole picture on the CPU, clipped to a box; the torch reference is ``scene.rays.camera_rays``."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.threads import COMPILED, INNER, parallel_for

_GRAIN = 16  # rows


def camera_rays(c2w, focal, center, size, box, reach, rays) -> None:
    """Fills origins (N, 3), directions (N, 3), near (N,) and far (N,) of the pixels, row-major.

    Args:
        c2w: (4, 4) pose; focal, center: x and y, pixels; size: height and width.
        box: (2, 3) lower and upper corner; reach: the configured near and far.
    """
    height, width = size
    numbers = (np.float32(value) for value in (*focal, *center, *reach))
    parallel_for(_fill, height, width, c2w.contiguous(), *numbers, box, *rays, grain=_GRAIN)


@njit(**COMPILED, **INNER)
def meet_slab(origin, direction, lower, upper, enter, leave):
    """The part of a ray from ``enter`` to ``leave`` that is between two planes of one axis; nothing: leave <= enter."""
    if direction != 0:
        first, second = (lower - origin) / direction, (upper - origin) / direction
        return max(enter, min(first, second)), min(leave, max(first, second))
    if origin < lower or origin > upper:
        return enter, enter  # beside it for ever
    return enter, leave


@njit(**COMPILED)
def _fill(start, stop, width, c2w, fx, fy, cx, cy, least, most, box, origins, directions, near, far):
    half, one = np.float32(0.5), np.float32(1)
    for row in range(start, stop):
        y = (cy - np.float32(row) - half) / fy
        for column in range(width):
            x, ray = (np.float32(column) + half - cx) / fx, row * width + column
            length = np.sqrt(x * x + y * y + one)
            enter, leave = least, most
            for axis in range(3):
                direction = (c2w[axis, 0] * x + c2w[axis, 1] * y - c2w[axis, 2]) / length
                origin = c2w[axis, 3]
                origins[ray, axis], directions[ray, axis] = origin, direction
                enter, leave = meet_slab(origin, direction, box[0, axis], box[1, axis], enter, leave)
            missed = leave <= enter
            near[ray], far[ray] = (least, least) if missed else (enter, leave)
