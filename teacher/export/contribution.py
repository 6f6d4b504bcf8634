"""Which Gaussians a scene can do without: by opacity, and by what they add to pictures of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scene.cameras import Cameras
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer


@dataclass(frozen=True)
class Contribution:
    """What N Gaussians add to some views: blending weights, summed over pixels, so that 1 is a whole pixel.

    Attributes:
        most: (N,) float64, the sum over the view in which it is largest, pixels.
        total: (N,) float64, the sum over all views, pixels.
    """

    most: Tensor
    total: Tensor


def contribution(
    rasterizer: Rasterizer, count: int, cameras: Cameras, progress: Callable[[int, int], None] | None = None
) -> Contribution:
    """Contribution of each Gaussian to views at the cameras' size.

    A view's weights of a Gaussian, summed over its pixels, are the derivative of the sum of the view's pixels with
    respect to a channel of that Gaussian.

    Args:
        count: number of Gaussians in the rasteriser.
        progress: called with (views done, views in all) after each view.
    """
    most, total = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
    for index in range(len(cameras)):
        channel = torch.ones(count, 1, device=rasterizer.device, requires_grad=True)
        with torch.enable_grad():
            image = rasterizer.render(cameras, index, channels=channel).channels
        (weight,) = torch.autograd.grad(image.sum(), channel)
        weight = weight[:, 0].double().cpu()
        most, total = torch.maximum(most, weight), total + weight
        if progress is not None:
            progress(index + 1, len(cameras))
    return Contribution(most, total)


def kept_gaussians(gaussians: Gaussians, measured: Contribution, opacity: float | None, pixels: float | None) -> Tensor:
    """(N,) bool: which to keep.

    Args:
        opacity: those of less opacity go, [0, 1]; None: none for that.
        pixels: those whose largest contribution to a view is less go, pixels; None: none for that.
    """
    kept = torch.ones(len(gaussians), dtype=torch.bool)
    if opacity is not None:
        kept &= gaussians.opacities >= opacity
    if pixels is not None:
        kept &= measured.most >= pixels
    return kept
