"""How many Gaussians share a pixel: sums of powers of the blending weights, which no blended channel can give."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.gaussians.rasterize import View, rasterize
from kernels.gaussians.ray_weights_numba import sum_weights


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
    """Sums over the blending weights of ``kernels.gaussians.rasterize.rasterize``, whose arguments these are."""
    name = resolve("ray_weights", implementation, means.device, ("torch", "numba"))
    sh = means.new_zeros(len(means), 1, 3)
    if name == "torch":
        each = torch.eye(len(means))
        image = rasterize(means, covariances, opacities, sh, view, channels=each, near=near, implementation="torch")
        weights = image.channels
        return RayWeights(weights.sum(-1), weights.square().sum(-1), torch.special.xlogy(weights, weights).sum(-1))
    gaussians = [value.contiguous() for value in (means, covariances, opacities, sh, sh[:, 0, :0])]
    return RayWeights(*sum_weights(gaussians, view, near, threads))
