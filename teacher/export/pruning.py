"""Pruning the Gaussians of an export, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from kernels.threads import one_torch_thread
from scene.cameras import Cameras
from scene.images import psnr
from settings.errors import InputError
from teacher.export.cameras import ExportViews
from teacher.export.contribution import contribution, kept_gaussians
from teacher.export.planes import picture
from teacher.export.renders import ExportFormat, rendered_planes
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer

_WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class PruneLimits:
    """Gaussians under a limit go; None is no limit.

    Attributes:
        opacity: [0, 1].
        pixels: blending weight in the view where a Gaussian has most of it, summed over that view's pixels.
    """

    opacity: float | None
    pixels: float | None


@dataclass(frozen=True)
class Pruned:
    """The Gaussians left, and the report: ``render_stats.json``'s section ``pruning``."""

    gaussians: Gaussians
    report: dict[str, Any]


@one_torch_thread()
def prune(
    gaussians: Gaussians, rasterizer: Rasterizer, cameras: Cameras, source: str, limits: PruneLimits, progress: bool
) -> Pruned:
    """Drops the Gaussians under a limit; their share of all weight in the cameras' views is reported.

    Args:
        rasterizer: of all the Gaussians.
        cameras, source: the views contributions are measured on, and where they are from.

    Raises:
        InputError: a limit is out of range, or no Gaussian is left.
    """
    for option, value, most in (
        ("--prune-opacity", limits.opacity, 1.0),
        ("--prune-contribution", limits.pixels, None),
    ):
        if value is not None and not (value >= 0 and (most is None or value <= most)):
            raise InputError(option, "limit", value, "at least 0" if most is None else f"a number in [0, {most:g}]")
    with tqdm(desc="contributions", total=len(cameras), unit="view", disable=not progress) as bar:
        measured = contribution(rasterizer, len(gaussians), cameras, lambda done, _: bar.update(done - bar.n))
    kept = kept_gaussians(gaussians, measured, limits.opacity, limits.pixels)
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
    return Pruned(gaussians[kept], report)


@one_torch_thread()
@torch.no_grad()
def psnr_of_pruning(
    whole: Rasterizer, pruned: Rasterizer, views: ExportViews, format: ExportFormat, progress: bool
) -> float:
    """Mean over the views of the PSNR in dB between 8-bit pictures with and without the Gaussians that went.

    On the format's background, white for RGBA.
    """
    background = format.background or _WHITE
    figures = []
    for index in tqdm(range(len(views.names)), desc="pruning PSNR", unit="frame", disable=not progress):
        both = [
            picture(rendered_planes(rasterizer, views, [index], format)[0], background) / 255.0
            for rasterizer in (whole, pruned)
        ]
        figures.append(psnr(both[1], both[0]))
    return sum(figures) / len(figures)
