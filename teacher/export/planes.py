"""A view as graphdeco's layout stores it: an 8-bit picture, and a depth map of a chosen kind."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from kernels.gaussians.rasterize import RasterOutput
from scene.cameras import Cameras, area_means
from scene.rays import distance_per_z
from settings.sections import Color
from teacher.depth import DepthKind
from teacher.rasterizer import Rasterizer


@dataclass(frozen=True)
class ExportFormat:
    """How views are rendered and stored.

    Attributes:
        depth_kind: what ``depth/`` holds; None: no depth.
        background: what RGB pictures are composited on; None writes straight RGBA.
        focal: of the views that the rasterizer's ``Drawing`` is of, see ``Drawing.of_lens``; None: all are like them.
    """

    depth_kind: DepthKind | None
    background: Color | None
    focal: float | None = None


def rendered_planes(rasterizer: Rasterizer, cameras: Cameras, format: ExportFormat) -> list[Tensor]:
    """``view_planes`` of those cameras, drawn as the rasterizer's ``Drawing`` says, those of one lens in one batch."""
    if format.focal is None:
        return _batch(rasterizer, cameras, format.depth_kind)
    planes: list[Tensor] = []
    drawings = [rasterizer.drawing.of_lens(cameras, index, format.focal) for index in range(len(cameras))]
    for drawing, group in groupby(range(len(cameras)), drawings.__getitem__):
        planes += _batch(rasterizer.redrawn(drawing), cameras[list(group)], format.depth_kind)
    return planes


def _batch(rasterizer: Rasterizer, cameras: Cameras, kind: DepthKind | None) -> list[Tensor]:
    factor = rasterizer.drawing.multiple(cameras.width)
    cameras = cameras.resized(cameras.width * factor, cameras.height * factor)
    views = zip(*rasterizer.render_batch(cameras), strict=True)
    return [view_planes(RasterOutput(*view), kind, cameras, i, factor) for i, view in enumerate(views)]


def view_planes(output: RasterOutput, kind: DepthKind | None, cameras: Cameras, index: int, factor: int = 1) -> Tensor:
    """What a view's files are made of, averaged over blocks of ``factor`` x ``factor`` pixels.

    Args:
        output: of camera ``index``, (H, W).
        kind: the depth wanted; None: no depth.

    Returns:
        (H / factor, W / factor, 4 or 5) premultiplied rgb, alpha, and the accumulated quantity of ``kind``.
    """
    planes = [output.rgb, output.alpha[..., None]]
    if kind is not None:
        depth = output.inverse_z if kind.quantity == "inverse_z" else output.z
        if kind.quantity == "distance":
            depth = depth * distance_per_z(cameras, index).to(depth)
        planes.append(depth[..., None])
    return area_means(torch.cat(planes, dim=-1), factor)


def picture(planes: Tensor, background: Color | None) -> np.ndarray:
    """(H, W, 3) uint8 on the background; with None, (H, W, 4) uint8 straight RGBA."""
    rgb, alpha = planes[..., :3], planes[..., 3:4]
    if background is not None:
        color = rgb + (1 - alpha) * rgb.new_tensor(background)
    else:
        color = torch.cat([rgb / alpha.clamp(min=1e-6), alpha], dim=-1)
    return (color.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def depth_map(planes: Tensor, kind: DepthKind) -> np.ndarray:
    """(H, W) float32 of that kind, 0 where nothing is drawn."""
    alpha, depth = planes[..., 3], planes[..., 4]
    if kind.normalized:
        depth = torch.where(alpha > 0, depth / alpha.clamp(min=1e-12), 0.0)
    return depth.contiguous().cpu().numpy()
