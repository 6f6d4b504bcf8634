"""Rays for training through chosen pixels, and what is seen there, in one pass: the numba twin of
``distill.training.ray_sampler``'s drawing, and what it has in common with Triton's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.marching.ray_marching_numba import first_beyond
from kernels.rays.camera_rays_numba import meet_slab
from kernels.simd import prefetch
from kernels.threads import COMPILED, parallel_for

_GRAIN = 256
_HALF, _ONE, _WHITE = np.float32(0.5), np.float32(1), np.float32(255)


class Pixels(NamedTuple):
    """The pixels P of F views, on one device.

    c2w (F, 4, 4), fx, fy, cx, cy (F,) float32; width, height; rgb (P, 3), alpha (P,), coverage (P,) uint8; distance
    (P,) float32; reach (P,) float16. Alpha, distance and reach may be None. pool: (table (F, H * W) int32, ends (F,)
    int64), of which pixels are drawn, see ``PixelPool``; None: of all. frames: (F,) int64, which pictures of rgb,
    alpha, coverage and distance are the views', where these hold others too; None: they are theirs in order, which
    Triton's twin takes for granted.
    """

    c2w: Tensor
    intrinsics: tuple[Tensor, Tensor, Tensor, Tensor]
    size: tuple[int, int]
    rgb: Tensor
    alpha: Tensor | None
    coverage: Tensor
    distance: Tensor | None
    reach: Tensor | None
    pool: tuple[Tensor, Tensor] | None
    frames: Tensor | None = None


class Drawn(NamedTuple):
    """Rays R and what is seen along them, all float32; distance and reach None where the pixels have none."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    rgb: Tensor
    coverage: Tensor
    distance: Tensor | None
    reach: Tensor | None


def draw(
    chosen: Tensor,
    background: Tensor,
    pixels: Pixels,
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    near: float,
    far: float,
) -> Drawn:
    """Rays through the pixels ``chosen`` (R,) int64 of all, or of the pool's.

    Args:
        background: (R, 3), behind what has alpha; rows may be one and the same.
        lower, upper, near, far: the scene box and the range that rays are clipped to.
    """
    rays = len(chosen)
    drawn = Drawn(*(torch.empty((rays, *shape)) for shape in ((3,), (3,), (), (), (3,), (), ())), None)
    numbers, width, height = torch.empty(rays, dtype=torch.int64), *pixels.size
    table, ends = pixels.pool or (torch.empty(0, 0, dtype=torch.int32), chosen)
    alpha = pixels.coverage[:0] if pixels.alpha is None else pixels.alpha
    distance = drawn.near[:0] if pixels.distance is None else pixels.distance
    behind = background[:1] if background.stride(0) == 0 else background
    frames = ends[:0] if pixels.frames is None else pixels.frames
    parallel_for(
        _draw, rays, chosen, table, ends, pixels.c2w.contiguous(), *(each.contiguous() for each in pixels.intrinsics),
        width, height, np.array((lower, upper), np.float32), np.float32(near), np.float32(far), behind.contiguous(),
        pixels.rgb, alpha, pixels.coverage, distance, frames, numbers, *drawn[:7], grain=_GRAIN,
    )  # fmt: skip
    return drawn._replace(
        distance=None if pixels.distance is None else drawn.distance,
        reach=None if pixels.reach is None else pixels.reach.index_select(0, numbers).float(),
    )


@njit(**COMPILED)
def _draw(
    start, stop, chosen, table, ends, c2w, fx, fy, cx, cy, width, height, box, least, most, background, rgb, alpha,
    coverage, distance, frames, numbers, origins, directions, near, far, out_rgb, out_coverage, out_distance,
):  # fmt: skip
    size = width * height
    # Pixels are all over memory: what is read of them is asked for beforehand, all of the rays' at once.
    places, values = table.reshape(-1), rgb.reshape(-1)
    for ray in range(start, stop):
        place = chosen[ray]
        if len(places) > 0:
            # The first view whose pixels end behind the chosen one.
            view = first_beyond(ends, place)
            place += view * size - (ends[view - 1] if view > 0 else 0)
            prefetch(places, place)
        numbers[ray] = place
    for ray in range(start, stop):
        pixel = numbers[ray]
        if len(places) > 0:
            pixel = pixel // size * size + places[pixel]
        numbers[ray] = pixel
        stored = pixel if len(frames) == 0 else frames[pixel // size] * size + pixel % size
        prefetch(values, 3 * stored)
        prefetch(coverage, stored)
        prefetch(alpha, stored)
        prefetch(distance, stored)
    for ray in range(start, stop):
        pixel = numbers[ray]
        frame, rest = pixel // size, pixel % size
        stored = pixel if len(frames) == 0 else frames[frame] * size + rest
        x = (np.float32(rest % width) + _HALF - cx[frame]) / fx[frame]
        y = (cy[frame] - np.float32(rest // width) - _HALF) / fy[frame]
        length = np.float32(0)
        for axis in range(3):
            direction = c2w[frame, axis, 0] * x + c2w[frame, axis, 1] * y - c2w[frame, axis, 2]
            directions[ray, axis] = direction
            length += direction * direction
        length = max(np.sqrt(length), np.float32(1e-12))
        enter, leave = least, most
        for axis in range(3):
            origin, direction = c2w[frame, axis, 3], directions[ray, axis] / length
            origins[ray, axis], directions[ray, axis] = origin, direction
            enter, leave = meet_slab(origin, direction, box[0, axis], box[1, axis], enter, leave)
        missed = leave <= enter
        near[ray], far[ray] = (least, least) if missed else (enter, leave)
        opaque, row = _ONE, min(ray, len(background) - 1)
        if len(alpha) > 0:
            opaque = np.float32(alpha[stored]) / _WHITE
        for channel in range(3):
            value = np.float32(rgb[stored, channel]) / _WHITE
            if len(alpha) > 0:
                value = value * opaque + (_ONE - opaque) * background[row, channel]
            out_rgb[ray, channel] = value
        out_coverage[ray] = np.float32(coverage[stored]) / _WHITE
        if len(distance) > 0:
            out_distance[ray] = distance[stored]
