"""Pruning the Gaussians of an export: by opacity, by what they add to pictures, and what it costs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.threads import one_torch_thread
from machine.terminal import progress_bar
from scene.cameras import Cameras
from scene.images import psnr
from settings.errors import InputError
from teacher.export.planes import ExportFormat, picture, rendered_planes
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer

_WHITE = (1.0, 1.0, 1.0)


class PruneLimits(NamedTuple):
    """Gaussians under a limit go; None is no limit.

    Attributes:
        opacity: [0, 1].
        pixels: blending weight in the view where a Gaussian has most of it, summed over that view's pixels.
    """

    opacity: float | None
    pixels: float | None


class Contribution(NamedTuple):
    """What N Gaussians add to some views: blending weights, summed over pixels, so that 1 is a whole pixel.

    Attributes:
        most: (N,) float64, the sum over the view in which it is largest, pixels.
        total: (N,) float64, the sum over all views, pixels.
    """

    most: Tensor
    total: Tensor


def contribution(rasterizer: Rasterizer, count: int, cameras: Cameras) -> Contribution:
    """Contribution of each of ``count`` Gaussians in the rasteriser to views at the cameras' size.

    A view's weights of a Gaussian, summed over its pixels, are the derivative of the sum of the view's pixels with
    respect to a channel of that Gaussian.
    """
    most, total = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
    for index in progress_bar(range(len(cameras)), desc="contributions", unit=" view"):
        channel = torch.ones(count, 1, device=rasterizer.device, requires_grad=True)
        with torch.enable_grad():
            image = rasterizer.render(cameras, index, channels=channel).channels
        (weight,) = torch.autograd.grad(image.sum(), channel)
        weight = weight[:, 0].double().cpu()
        most, total = torch.maximum(most, weight), total + weight
    return Contribution(most, total)


def kept_gaussians(gaussians: Gaussians, measured: Contribution, limits: PruneLimits) -> Tensor:
    """(N,) bool: which are under neither limit."""
    kept = torch.ones(len(gaussians), dtype=torch.bool)
    if limits.opacity is not None:
        kept &= gaussians.opacities >= limits.opacity
    if limits.pixels is not None:
        kept &= measured.most >= limits.pixels
    return kept


@one_torch_thread()
def prune(
    gaussians: Gaussians, rasterizer: Rasterizer, cameras: Cameras, source: str, limits: PruneLimits
) -> tuple[Gaussians, dict[str, Any]]:
    """Drops the Gaussians under a limit.

    Args:
        rasterizer: of all the Gaussians.
        cameras, source: the views contributions are measured on, and where they are from.

    Returns:
        The Gaussians left, and ``render_stats.json``'s section ``pruning``, with the share of all weight in the
        cameras' views that went.

    Raises:
        InputError: a limit is out of range, or no Gaussian is left.
    """
    if limits.opacity is not None and not 0 <= limits.opacity <= 1:
        raise InputError("--prune-opacity", "limit", limits.opacity, "a number in [0, 1]")
    if limits.pixels is not None and not limits.pixels >= 0:
        raise InputError("--prune-contribution", "limit", limits.pixels, "at least 0")
    measured = contribution(rasterizer, len(gaussians), cameras)
    kept = kept_gaussians(gaussians, measured, limits)
    if not kept.any():
        found = f"none of {len(gaussians)} Gaussians left"
        raise InputError("--prune-opacity, --prune-contribution", "limits", found, "some left", "Lower the limits.")
    total = measured.total.sum().item()
    report = {
        "opacity": limits.opacity,
        "contribution_pixels": limits.pixels,
        "measured_on": source,
        "measured_views": len(cameras),
        "gaussians_before": len(gaussians),
        "gaussians_removed": int((~kept).sum()),
        "weight_removed_fraction": measured.total[~kept].sum().item() / total if total else None,
    }
    return gaussians[kept], report


@one_torch_thread()
@torch.no_grad()
def psnr_of_pruning(whole: Rasterizer, pruned: Rasterizer, cameras: Cameras, format: ExportFormat) -> float:
    """Mean over the views of the PSNR in dB between 8-bit pictures with and without the Gaussians that went.

    On the format's background, white for RGBA.
    """
    background, figures = format.background or _WHITE, []
    for index in progress_bar(range(len(cameras)), desc="pruning PSNR", unit=" frame"):
        before, after = (
            picture(rendered_planes(rasterizer, cameras[index], format)[0], background) / 255.0
            for rasterizer in (whole, pruned)
        )
        figures.append(psnr(after, before))
    return sum(figures) / len(figures)
