"""Numba twin of a view's sight: the rasteriser's blending, which asks where along the ray a Gaussian is met."""

from __future__ import annotations

from math import inf, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.gaussians.rasterize_forward_numba import (
    ALPHA_MAX,
    ALPHA_MIN,
    LOOK_EVERY,
    TILE,
    TRANSMITTANCE_MIN,
    any_open,
    centre_of,
    falloff,
)
from kernels.gaussians.rasterize_numba import TILE_GRAIN, project_and_bin
from kernels.threads import COMPILED, INNER, parallel_for


def look(gaussians, half_axes: Tensor, view, blocked, cells, least_weight, near: float, threads: int | None) -> Tensor:
    """See ``kernels.gaussians.sight.sight``; ``gaussians`` as for ``project_and_bin``."""
    pose, intrinsics, splats, bounds, features, tiles = project_and_bin(gaussians, view, near, threads)
    reach = torch.empty(view.height, view.width)
    parallel_for(
        _look, len(tiles[0]) - 2, splats, bounds, features, *tiles, gaussians[0], half_axes, pose, intrinsics,
        np.float32(blocked), np.float32(least_weight), np.array(cells.lower), 1 / cells.size, cells.occupied, reach,
        grain=TILE_GRAIN, threads=threads,
    )  # fmt: skip
    return reach


@njit(**COMPILED, **INNER)
def _whitened(axes, mean, eye, variance, whitening, offset):
    """Fills the map from world offsets to standard deviations along a Gaussian's axes, and its centre under it.

    Args:
        mean, eye: where the Gaussian and the camera are.
        variance: by which it is widened, squared world units.
    """
    for k in range(3):
        square = float(axes[0, k]) ** 2 + float(axes[1, k]) ** 2 + float(axes[2, k]) ** 2
        scale = 1 / max(sqrt(square * (square + variance)), 1e-300)
        offset[k] = 0
        for a in range(3):
            whitening[k, a] = axes[a, k] * scale
            offset[k] += whitening[k, a] * (mean[a] - eye[a])


@njit(**COMPILED, **INNER)
def _place(whitening, offset, ray):
    """Distance along the unit ray from the camera at which the Gaussian's density is largest; at least 0."""
    product, square = 0.0, 0.0
    for k in range(3):
        along = whitening[k, 0] * ray[0] + whitening[k, 1] * ray[1] + whitening[k, 2] * ray[2]
        product += along * offset[k]
        square += along * along
    return max(product / square, 0.0)


@njit(**COMPILED, **INNER)
def _mark(t, ray, eye, lower, inverse_size, occupied):
    """Sets the cell at distance t along the ray, if the grid has it."""
    nx, ny, nz = occupied.shape
    x = int(np.floor((eye[0] + t * ray[0] - lower[0]) * inverse_size))
    y = int(np.floor((eye[1] + t * ray[1] - lower[1]) * inverse_size))
    z = int(np.floor((eye[2] + t * ray[2] - lower[2]) * inverse_size))
    if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
        occupied[x, y, z] = 1


@njit(**COMPILED)
def _look(
    start, stop, splats, bounds, features, starts, members, means, half_axes, pose, intrinsics, blocked, least_weight,
    lower, inverse_size, occupied, reach,
):  # fmt: skip
    """As ``kernels.gaussians.rasterize_forward_numba.blend``, whose weights these are. Threads may mark a cell at the
    same time: what they write is the same.
    """
    fx, fy, cx, cy, dilation = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3], intrinsics[7]
    height, width = reach.shape
    tiles_x = (width + TILE - 1) // TILE
    eye = centre_of(pose)
    light = np.empty((TILE, TILE), dtype=np.float32)
    rays = np.empty((TILE, TILE, 3))
    whitening, offset = np.empty((3, 3)), np.empty(3)
    for tile in range(start, stop):
        x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        light[:] = 0
        light[: y1 - y0, : x1 - x0] = 1
        reach[y0:y1, x0:x1] = 0
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                a, b = (x + x0 + 0.5 - cx) / fx, (y + y0 + 0.5 - cy) / fy
                scale = 1 / sqrt(1 + a * a + b * b)
                for axis in range(3):
                    rays[y, x, axis] = (pose[0, axis] * a + pose[1, axis] * b + pose[2, axis]) * scale
        for slot in range(starts[tile], starts[tile + 1]):
            i = members[slot]
            u, v, slope, inverse_conditional, inverse_yy, opacity, cut = splats[i]
            fresh = True
            for y in range(max(bounds[i, 2] - y0, 0), min(bounds[i, 3] - y0, y1 - y0)):
                dy = np.float32(y + y0) - v
                power_y = inverse_yy * dy * dy
                if power_y > cut:
                    continue
                middle = u + slope * dy - np.float32(x0)
                for x in range(max(bounds[i, 0] - x0, 0), min(bounds[i, 1] - x0, x1 - x0)):
                    if light[y, x] < blocked:
                        continue
                    dx = np.float32(x) - middle
                    alpha = opacity * falloff(power_y + inverse_conditional * dx * dx)
                    alpha = min(np.float32(ALPHA_MAX), alpha)
                    if alpha < np.float32(ALPHA_MIN):
                        continue
                    weight = alpha * light[y, x]
                    light[y, x] -= weight
                    if light[y, x] < np.float32(TRANSMITTANCE_MIN):
                        # The rasteriser closes the pixel without the Gaussian.
                        light[y, x] = 0
                        continue
                    if fresh:
                        size = float(features[i, 3]) / min(fx, fy)
                        _whitened(half_axes[i], means[i], eye, dilation * size * size, whitening, offset)
                        fresh = False
                    t = _place(whitening, offset, rays[y, x])
                    reach[y + y0, x + x0] = max(reach[y + y0, x + x0], np.float32(t))
                    if weight > least_weight:
                        _mark(t, rays[y, x], eye, lower, inverse_size, occupied)
            if (slot - starts[tile]) % LOOK_EVERY == LOOK_EVERY - 1 and not any_open(light, blocked):
                break
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                if light[y, x] >= blocked:
                    reach[y + y0, x + x0] = inf
