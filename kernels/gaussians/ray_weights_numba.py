"""Numba twin of the ray weights: the rasteriser's blending, which sums powers of the weights instead of features."""

from __future__ import annotations

from math import log

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.gaussians.rasterize_forward_numba import ALPHA_MAX, ALPHA_MIN, LOOK_EVERY, TILE, TRANSMITTANCE_MIN, falloff
from kernels.gaussians.rasterize_numba import TILE_GRAIN, project_and_bin
from kernels.threads import COMPILED, parallel_for


def sum_weights(gaussians: list[Tensor], view, near: float, threads: int | None) -> Tensor:
    """(3, H, W) sums of w, w^2 and w log w."""
    _, _, splats, bounds, _, tiles = project_and_bin(gaussians, view, near, threads)
    sums = torch.empty(3, view.height, view.width)
    parallel_for(_sum_weights, len(tiles[0]) - 2, splats, bounds, *tiles, sums, grain=TILE_GRAIN, threads=threads)
    return sums


@njit(**COMPILED, fastmath={"contract"})
def _sum_weights(start, stop, splats, bounds, starts, members, image):
    """As ``kernels.gaussians.rasterize_forward_numba.blend``, whose weights these are, for image (3, H, W)."""
    zero, transmittance_min = np.float32(0), np.float32(TRANSMITTANCE_MIN)
    alpha_max, alpha_min = np.float32(ALPHA_MAX), np.float32(ALPHA_MIN)
    _, height, width = image.shape
    tiles_x = (width + TILE - 1) // TILE
    light = np.empty((TILE, TILE), dtype=np.float32)
    sums = np.empty((3, TILE, TILE), dtype=np.float32)
    for tile in range(start, stop):
        x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        sums[:] = 0
        light[:] = 0
        light[: y1 - y0, : x1 - x0] = 1
        for slot in range(starts[tile], starts[tile + 1]):
            i = members[slot]
            u, v, slope, inverse_conditional, inverse_yy, opacity, cut = splats[i]
            for y in range(max(bounds[i, 2] - y0, 0), min(bounds[i, 3] - y0, TILE)):
                dy = np.float32(y + y0) - v
                power_y = inverse_yy * dy * dy
                if power_y > cut:
                    continue
                middle = u + slope * dy - np.float32(x0)
                for x in range(TILE):
                    dx = np.float32(x) - middle
                    alpha = min(alpha_max, opacity * falloff(power_y + inverse_conditional * dx * dx))
                    weight = alpha * light[y, x] if alpha >= alpha_min else zero
                    left = light[y, x] - weight
                    weight = weight if left >= transmittance_min else zero
                    light[y, x] = left if left >= transmittance_min else zero
                    if weight > zero:
                        sums[0, y, x] += weight
                        sums[1, y, x] += weight * weight
                        sums[2, y, x] += weight * log(weight)
            if (slot - starts[tile]) % LOOK_EVERY == LOOK_EVERY - 1 and not light.any():
                break
        image[:, y0:y1, x0:x1] = sums[:, : y1 - y0, : x1 - x0]
