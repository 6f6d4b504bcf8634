"""What the teacher's views see: the cells that show in some picture, and where each pixel's ray may end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.marching.ray_samples import Cells
from kernels.threads import one_torch_thread
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.cells import CellGrid
from scene.rays import pixel_width
from teacher.rasterizer import Rasterizer
from teacher.views.output_folder import parallel_map
from teacher.views.teacher_views import TeacherViews

_BLOCKED = 0.01  # transmittance
_MARGIN_CELLS = 3.0  # behind the last thing that shows, for a student that is not as sharp as its teacher


@dataclass(frozen=True)
class Sight:
    """What N views (H, W) see.

    Attributes:
        cells: (X, Y, Z) uint8, the cells that show in one of the views, and those around them, as far as a pixel is
            wide; None: not known.
        reach: (N, H, W) float16 distance along the unit ray, world units, behind which nothing shows in the pixel; inf
            where the ray goes through the scene. None: not kept.
        image_reach: the same of the dataset's own images, where they are a second source of rays.
    """

    cells: Tensor | None
    reach: Tensor | None
    image_reach: Tensor | None = None


def view_reach(
    rasterizer: Rasterizer,
    cameras: Cameras,
    index: int,
    grid: CellGrid,
    seen: Tensor | None = None,
    least_weight: float = 0.0,
) -> Tensor:
    """The reach of one view of Gaussians, (H, W) float16 as in ``Sight``.

    Args:
        seen: (X, Y, Z) uint8, where the cells of the grid that show are set to 1.
        least_weight: in [0, 1): what weighs no more in a pixel does not show there.
    """
    camera, scale = cameras[index], rasterizer.drawing.multiple(cameras.width)
    fine = camera.resized(camera.width * scale, camera.height * scale)
    cells = None if seen is None else Cells(grid.box.lower, grid.cell_size, seen)
    reach = rasterizer.sight(fine, 0, blocked=_BLOCKED, seen=cells, least_weight=least_weight)
    farthest = reach.view(camera.height, scale, camera.width, scale).amax(dim=(1, 3))
    return _half_beyond(farthest + _MARGIN_CELLS * grid.cell_size)


@one_torch_thread()
def sight_of_gaussians(
    rasterizer: Rasterizer, cameras: Cameras, grid: CellGrid, least_weight: float, keep_reach: bool = True
) -> Sight:
    """The Gaussians seen from all cameras.

    Args:
        rasterizer: of one thread, since views are made side by side.
        least_weight: as of ``view_reach``.
    """
    seen = torch.zeros(grid.shape, dtype=torch.uint8)
    count, size = len(cameras), (cameras.height, cameras.width)
    kept = torch.empty((count, *size), dtype=torch.float16) if keep_reach else None
    most = rasterizer.views_at_a_time()
    reaches = parallel_map(lambda i: view_reach(rasterizer, cameras, i, grid, seen, least_weight), count, most)
    for i, reach in enumerate(late_bar(reaches, "what views see", count, " view")):
        if keep_reach:
            kept[i] = reach
    # Where cells are finer than what is drawn, the rays of neighbouring pixels miss cells between them.
    pixel = pixel_width(rasterizer.drawing.fine(cameras), grid.box)
    around = max(1, round(pixel / grid.cell_size))
    return Sight(_with_neighbours(seen, around), kept)


def sight_of_depth(views: TeacherViews, frames: Sequence[int], grid: CellGrid) -> Sight:
    """From distances alone, for teachers without Gaussians: cells are not known."""
    shown = late_bar(frames, "what views see", unit=" view")
    reaches = [depth_reach(views.distance[frame], views.coverage[frame], grid.cell_size) for frame in shown]
    return Sight(None, torch.stack(reaches))


def depth_reach(distance: Tensor, coverage: Tensor, cell_size: float) -> Tensor:
    """The reach of one view, (H, W) float16 as in ``Sight``, by the distances and coverage of ``TeacherViews``.

    Rays end where a pixel and its neighbours are covered and nearly as far away as each other. A mean distance does not
    tell a surface from the middle between two that are half transparent; the neighbours do so in part.
    """
    known = (coverage == 255) & (distance > 0)
    farthest = _pooled(torch.where(known, distance, torch.inf))
    nearest = -_pooled(-distance)
    even = farthest - nearest < _MARGIN_CELLS * cell_size
    return _half_beyond(torch.where(even, farthest + _MARGIN_CELLS * cell_size, torch.inf))


def _half_beyond(reach: Tensor) -> Tensor:
    """The least float16 that are no less than float32 reaches; float16 steps from afar are wider than the margin, and
    the nearest ones would end rays before what shows.
    """
    nearest = reach.half()
    next_ones = torch.from_numpy(np.nextafter(nearest.numpy(), np.float16(np.inf)))
    return torch.where(nearest.float() < reach, next_ones, nearest)


def _pooled(image: Tensor) -> Tensor:
    """(H, W) maximum over 3x3 pixels."""
    return F.max_pool2d(image[None, None], 3, stride=1, padding=1)[0, 0]


def _with_neighbours(cells: Tensor, around: int) -> Tensor:
    """(X, Y, Z) uint8: those of the cells (X, Y, Z) uint8 that are 1, and ``around`` cells on each side of them."""
    grown = cells.clone()
    for axis, count in enumerate(cells.shape):  # one after another: much quicker than a window over all three
        before = grown.clone()
        for shift in range(1, min(around, count - 1) + 1):
            kept = count - shift
            grown.narrow(axis, shift, kept).bitwise_or_(before.narrow(axis, 0, kept))
            grown.narrow(axis, 0, kept).bitwise_or_(before.narrow(axis, shift, kept))
    return grown
