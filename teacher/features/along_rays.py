"""What the teacher's rays carry: features blended along them, and how their weight is spread in depth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.rays import distance_per_z
from teacher.rasterizer import Rasterizer


class RayFeatures(NamedTuple):
    """A view's rays, through the pixels' centres; w is the weight with which the rasteriser blends a Gaussian.

    Where alpha is 0 everything is 0. On the rasteriser's device but for entropy and effective, see
    ``Rasterizer.ray_weights``.

    Attributes:
        features: (H, W, C) float32 sum of w * feature: not divided by alpha.
        alpha: (H, W) sum of w.
        distance: (H, W) world units along the unit ray, mean over the Gaussians weighted by w; each is where its
            centre is along the camera's axis.
        distance_variance: (H, W) world units squared, of the same.
        entropy: (H, W) nats, of w / alpha; at least 0.
        effective: (H, W) effective number of Gaussians, alpha^2 / sum of w^2: at least 1.
    """

    features: Tensor
    alpha: Tensor
    distance: Tensor
    distance_variance: Tensor
    entropy: Tensor
    effective: Tensor


@torch.no_grad()
def ray_features(rasterizer: Rasterizer, means: Tensor, features: Tensor, cameras: Cameras, index: int) -> RayFeatures:
    """Features blended in the view of camera ``index``, at the cameras' size, and statistics of its rays.

    Args:
        means: (G, 3) world, of the rasteriser's Gaussians; features: (G, C), such as ``gaussian_features``.
    """
    world_to_camera = cameras[index].to("cpu").world_to_camera()[0]
    z = -(means.cpu() @ world_to_camera[2, :3] + world_to_camera[2, 3])
    # Depths about a middle one: the variance is a small difference of large squares otherwise.
    middle = z[z > 0].median() if (z > 0).any() else z.new_zeros(())
    offset = z - middle
    channels = torch.cat([features.cpu(), offset[:, None], offset.square()[:, None]], dim=1)
    output = rasterizer.render(cameras, index, channels.to(rasterizer.device))
    blended, first, second = output.channels.split([features.shape[1], 1, 1], dim=-1)
    some, alpha = output.alpha > 0, output.alpha.clamp(min=1e-12)
    first, second = first[..., 0] / alpha, second[..., 0] / alpha
    per_z = distance_per_z(cameras, index).to(output.alpha.device)
    weights = rasterizer.ray_weights(cameras, index)
    return RayFeatures(
        blended,
        output.alpha,
        torch.where(some, (first + middle.item()) * per_z, 0),
        torch.where(some, (second - first.square()).clamp(min=0) * per_z.square(), 0),
        weights.entropy,
        weights.effective,
    )
