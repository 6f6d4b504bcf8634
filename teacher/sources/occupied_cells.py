"""The cells a teacher can occupy: from its Gaussians, or carved by its views' silhouettes and depth."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.gaussians.gaussian_statistics import CellStatistics, gaussian_statistics, touched_cells
from kernels.threads import one_torch_thread
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.cells import CellGrid
from scene.rays import SceneBox, pixel_width, project
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources.box import weighted_quantile
from teacher.views.teacher_views import TeacherViews

_DEPTH_VOTES = 3  # views that must see through a cell before depth empties it
_DEPTH_MARGIN_CELLS = 2.0


def cells_of_gaussians(gaussians: Gaussians, grid: CellGrid, widening: float = 0.0) -> Tensor:
    """(X, Y, Z) uint8: cells in which some Gaussian can still be drawn (its alpha reaches 1/255).

    Args:
        widening: standard deviation, world units, by which drawing widens each Gaussian, see ``drawn_wider_by``.

    On LEGO they are 1.1 times the cells that matter to pictures. Dropping the faintest of them too saved a tenth of the
    samples and cost the student 0.4 dB.
    """
    cells = torch.zeros(grid.shape, dtype=torch.uint8, device=gaussians.means.device)
    drawn = gaussians.means, _widened(gaussians, widening).half_axes(), gaussians.opacities
    cells.view(-1)[touched_cells(*drawn, grid.box.lower, grid.cell_size, grid.shape)] = 1
    return cells


def drawn_wider_by(drawing: Drawing, cameras: Cameras, box: SceneBox) -> float:
    """Standard deviation, world units in the middle of the box, by which Gaussians are widened in views of cameras.

    It is much less than a cell where they were fitted to fine pictures, and more than one where to coarse ones.
    """
    fine = drawing.fine(cameras)
    return math.sqrt(drawing.dilation(fine.width)) * pixel_width(fine, box)


def _widened(gaussians: Gaussians, widening: float) -> Gaussians:
    if not widening:
        return gaussians
    return replace(gaussians, log_scales=(gaussians.scales.square() + widening**2).log() / 2)


def opacity_scale(gaussians: Gaussians | None) -> float:
    """What the settings that say how faint a thing may be, ``occupancy.threshold`` and ``least_weight``, are multiplied
    by; 1 but in a scene that is faint as a whole, as smoke is, which they would empty.

    It is twice the opacity at which Gaussians hold half of all opacity, counted from the faintest; in fits of objects
    and captures that opacity is 0.64 to 0.88.
    """
    if gaussians is None or not len(gaussians):
        return 1.0
    opacities = gaussians.opacities.double()
    return min(1.0, 2 * weighted_quantile(opacities[:, None], opacities, 0.5).item())


def statistics_of_gaussians(gaussians: Gaussians, grid: CellGrid) -> CellStatistics:
    """Extinction in every cell where some alpha reaches 1/255."""
    drawn = gaussians.means, gaussians.half_axes(), gaussians.opacities
    return gaussian_statistics(*drawn, grid.box.lower, grid.cell_size, grid.shape)


@one_torch_thread()
@torch.no_grad()
def cells_of_views(views: TeacherViews, grid: CellGrid) -> Tensor:
    """(X, Y, Z) uint8: cells that no training view shows to be empty.

    A cell goes when it projects beside the silhouette of a view that holds it, or when several views look through
    it at a surface well behind. Images are pooled over the cell's footprint first, so a cell is judged as a whole,
    and only by views that hold all of it.
    """
    if not views.silhouettes and views.distance is None:
        return torch.ones(grid.shape, dtype=torch.uint8)
    x, y, z = (torch.arange(extent) + 0.5 for extent in grid.shape)
    centers = torch.stack(torch.meshgrid(x, y, z, indexing="ij"), dim=-1).reshape(-1, 3)
    centers = centers * grid.cell_size + torch.tensor(grid.box.lower)
    alive = torch.arange(len(centers))
    votes = torch.zeros(len(centers), dtype=torch.uint8)
    reach = grid.cell_size * math.sqrt(3) / 2
    for frame in late_bar(views.training_frames.tolist(), "empty space", unit=" view"):
        row, col, depth, distance = project(views.cameras, frame, centers[alive])
        row, col = row.floor(), col.floor()
        radii = _footprints(views.cameras, frame, depth, distance, reach)
        keep = torch.ones(len(alive), dtype=torch.bool)
        for radius in radii.bincount().nonzero()[:, 0].tolist():
            judged = radii == radius
            judged &= (row >= radius) & (row < views.cameras.height - radius)
            judged &= (col >= radius) & (col < views.cameras.width - radius)
            judged = judged.nonzero()[:, 0]
            if not len(judged):
                continue
            r, c = row[judged].long(), col[judged].long()
            keep[judged] = _pool(views.coverage[frame].float(), radius)[r, c] > 0
            if views.distance is not None:
                # Where depth is unknown the pooled minimum is 0, which empties nothing.
                surface = -_pool(-views.distance[frame], radius)
                in_front = distance[judged] < surface[r, c] - _DEPTH_MARGIN_CELLS * grid.cell_size
                votes[alive[judged]] += in_front.to(torch.uint8)
                keep[judged] &= votes[alive[judged]] < _DEPTH_VOTES
        alive = alive[keep]
    mask = torch.zeros(len(centers), dtype=torch.uint8)
    mask[alive] = 1
    return mask.view(grid.shape)


def _footprints(cameras: Cameras, frame: int, depth: Tensor, distance: Tensor, reach: float) -> Tensor:
    """(N,) int64: pixels around its centre's that a ball of radius ``reach`` covers, rounded up to few values."""
    focal = torch.maximum(cameras.fx[frame], cameras.fy[frame])
    # A ball beside the camera's axis projects to an ellipse; one around the camera covers everything.
    pixels = focal * reach * distance / (depth * (depth - reach))
    pixels = torch.where(depth > reach, pixels, torch.inf).clamp(1.0, max(cameras.width, cameras.height))
    return (2 ** ((2 * pixels.log2()).ceil() / 2)).ceil().long() + 1


def _pool(image: Tensor, radius: int) -> Tensor:
    """Maximum over a square of 2 * radius + 1 pixels, one axis after the other."""
    rows = F.max_pool2d(image[None, None], (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), stride=1, padding=(0, radius))[0, 0]
