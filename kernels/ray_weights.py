"""How many Gaussians share a pixel: sums of powers of the blending weights, which no blended channel can give."""

from __future__ import annotations

from math import log
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.rasterize import TILE_GRAIN, View, project_and_bin, rasterize
from kernels.rasterize_numba import ALPHA_MAX, ALPHA_MIN, LOOK_EVERY, TILE, TRANSMITTANCE_MIN, falloff
from kernels.threads import parallel_for


class RayWeights(NamedTuple):
    """Sums over the Gaussians of each pixel, w being the rasteriser's blending weight; (H, W) float32, no gradient.

    Attributes:
        total: sum of w, the alpha.
        square: sum of w^2.
        w_log_w: sum of w log w, natural logarithm, at most 0.
    """

    total: Tensor
    square: Tensor
    w_log_w: Tensor

    @property
    def entropy(self) -> Tensor:
        """(H, W) of the normalised weights p = w / total: -sum of p log p, in nats; 0 where nothing is drawn."""
        total = self.total.clamp(min=1e-12)
        return torch.where(self.total > 0, total.log() - self.w_log_w / total, 0).clamp(min=0)

    @property
    def effective(self) -> Tensor:
        """(H, W) effective number of Gaussians, 1 / sum of p^2, at least 1; 0 where nothing is drawn."""
        return torch.where(self.square > 0, (self.total.square() / self.square.clamp(min=1e-30)).clamp(min=1), 0)


@torch.no_grad()
def ray_weights(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    view: View,
    *,
    near: float = 0.2,
    implementation: str = "auto",
    threads: int | None = None,
) -> RayWeights:
    """Sums over the blending weights of ``kernels.rasterize.rasterize``, whose arguments these are."""
    name = resolve("ray_weights", implementation, means.device, ("torch", "numba"))
    sh = means.new_zeros(len(means), 1, 3)
    if name == "torch":
        each = torch.eye(len(means))
        image = rasterize(means, covariances, opacities, sh, view, channels=each, near=near, implementation="torch")
        weights = image.channels
        return RayWeights(weights.sum(-1), weights.square().sum(-1), torch.special.xlogy(weights, weights).sum(-1))
    gaussians = [value.contiguous().numpy() for value in (means, covariances, opacities, sh, sh[:, 0, :0])]
    _, _, splats, bounds, _, tiles = project_and_bin(gaussians, view, near, threads)
    sums = torch.empty(3, view.height, view.width)
    parallel_for(
        _sum_weights, len(tiles[0]) - 2, splats, bounds, *tiles, sums.numpy(), grain=TILE_GRAIN, threads=threads
    )
    return RayWeights(*sums)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _sum_weights(start, stop, splats, bounds, starts, members, image):
    """As ``kernels.rasterize_numba.blend``, whose weights these are, for image (3, H, W)."""
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
