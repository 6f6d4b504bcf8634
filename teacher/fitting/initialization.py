"""Where a fit starts: in the visual hull of silhouettes, coloured as the views show it, or at a capture's points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from kernels.gaussians.rasterize import rasterize
from machine.terminal import late_bar
from scene.cells import CellGrid
from scene.formats.colmap_model import SparsePoints
from scene.rays import SceneBox
from settings.teacher import NEAR
from teacher.fitting.picture_levels import Pictures
from teacher.gaussians import Gaussians, sh_of_colors
from teacher.rasterizer import camera_view
from teacher.sources.occupied_cells import cells_of_views
from teacher.views.teacher_views import TeacherViews

_RESOLUTION = 128  # cells along the box's longest side; at most two to a pixel of the pictures' longest
_SURFACE_SHARE = 0.7  # of the Gaussians; the rest lies inside, where concave parts may be
_OPACITY = 0.3
_LEAST_COVERED = 0.3  # mean alpha of the pixels a Gaussian shows in
_POINT_OPACITY = 0.1  # Kerbl et al. 2023, as the widths are
_NEIGHBOURS = 3
# Square of the least distance that widths are made of, world units as in graphdeco's program, or, of points that are
# less than a unit wide, in that width.
_CLOSEST = 1e-7


def hull_gaussians(
    views: TeacherViews,
    box: SceneBox,
    pictures: Pictures,
    count: int,
    generator: torch.Generator,
    near: float = NEAR,
) -> Gaussians:
    """About ``count`` isotropic Gaussians at random places in the hull, mostly at its surface.

    The hull is what no silhouette of the training views shows to be empty (``cells_of_views``); without silhouettes it
    is all of the box that they see.

    Args:
        views: with silhouettes in ``coverage``.
        box: the scene box, which bounds the hull.
        pictures: of the training views; colour a Gaussian by the mean of the pixels it contributes to.
        near: the fit's near plane, as of ``Drawing``.
    """
    resolution = min(_RESOLUTION, 2 * max(views.cameras.width, views.cameras.height))
    grid = CellGrid(box, resolution)
    mask = cells_of_views(views, grid).bool()
    cells, surface = mask.nonzero(), _is_surface(mask)
    inner, outer = cells[~surface], cells[surface]
    wanted = round(_SURFACE_SHARE * count) if len(inner) else count
    places = torch.cat([_random_places(outer, wanted, generator), _random_places(inner, count - wanted, generator)])
    means = places * grid.cell_size + torch.tensor(box.lower)
    # As far apart as if they shared the hull's volume.
    spacing = grid.cell_size * (len(cells) / count) ** (1 / 3)
    gaussians = Gaussians(
        means=means,
        log_scales=torch.full((count, 3), 0.5 * spacing).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacity_logits=torch.full((count,), _OPACITY).logit(),
        sh=torch.zeros(count, 1, 3),
    )
    color, covered = _seen_colors(gaussians, pictures, near)
    # Beyond what most views hold the hull is not carved: what those that do see it show is background.
    kept = covered > _LEAST_COVERED
    kept = kept if kept.any() else ~kept
    return replace(gaussians, sh=sh_of_colors(color))[kept]


def points_gaussians(points: SparsePoints | Gaussians, most: int, generator: torch.Generator) -> Gaussians:
    """An isotropic Gaussian at each point, in its colour; its width is the root mean square of the distances to its
    three nearest neighbours (Kerbl et al. 2023). Gaussians stay as they are.

    Args:
        points: more than three.
        most: of more points, as many are drawn.
    """
    count = len(points) if isinstance(points, Gaussians) else len(points.positions)
    chosen = torch.arange(count)
    if count > most:
        chosen = torch.randperm(count, generator=generator)[:most].sort().values
    if isinstance(points, Gaussians):
        return points[chosen]
    positions, rgb = points.positions[chosen], torch.from_numpy(points.colors[chosen] / np.float32(255))
    distances, _ = cKDTree(positions).query(positions, k=_NEIGHBOURS + 1)
    width = float(np.ptp(positions, axis=0).max()) or 1.0
    closest = _CLOSEST * min(1.0, width**2)
    squares = np.square(distances[:, 1:]).mean(axis=1).clip(min=closest).astype(np.float32)
    return Gaussians(
        means=torch.from_numpy(positions),
        log_scales=torch.from_numpy(np.log(squares) / 2)[:, None].repeat(1, 3),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(len(chosen), 1),
        opacity_logits=torch.full((len(chosen),), _POINT_OPACITY).logit(),
        sh=sh_of_colors(rgb),
    )


def _is_surface(mask: Tensor) -> Tensor:
    """(cells,) bool, of the set cells (X, Y, Z): whether one of the six neighbours is empty."""
    padded = torch.nn.functional.pad(mask[None, None].float(), (1,) * 6)[0, 0]
    inside = torch.ones_like(mask)
    for axis in range(3):
        for start in (0, 2):
            window = [slice(1, 1 + size) for size in mask.shape]
            window[axis] = slice(start, start + mask.shape[axis])
            inside &= padded[tuple(window)] > 0
    return ~inside[mask]


def _random_places(cells: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) uniform places in the given cells (M, 3), in units of cells."""
    if not len(cells):
        return torch.zeros(0, 3)
    chosen = cells[torch.randint(len(cells), (count,), generator=generator)]
    return chosen + torch.rand((count, 3), generator=generator)


def _seen_colors(gaussians: Gaussians, pictures: Pictures, near: float) -> tuple[Tensor, Tensor]:
    """Mean over the pixels that each Gaussian contributes to, by its weight there, of their colour (N, 3) and of their
    alpha (N,); grey and 0 where nothing is seen of it.

    The sum of weight * pixel over a picture is the gradient of the channel that is blended with those weights.
    """
    covariances, count = gaussians.covariances(), len(gaussians)
    total = torch.zeros(count, 5)
    for index in late_bar(range(len(pictures)), "first colours", unit=" picture"):
        picture = pictures.level(0)[index].float() / 255
        channels = torch.zeros(count, 5, requires_grad=True)
        view = camera_view(pictures.cameras(0), index)
        drawn = gaussians.means, covariances, gaussians.opacities, gaussians.sh
        output = rasterize(*drawn, view, channels=channels, near=near)
        rgb, alpha = picture[..., :3], picture[..., 3:]
        (output.channels * torch.cat([rgb * alpha, alpha, torch.ones_like(alpha)], dim=-1)).sum().backward()
        total += channels.grad
    color, alpha, weight = total.split([3, 1, 1], dim=1)
    color = torch.where(alpha > 1e-3, color / alpha.clamp(min=1e-3), 0.5)
    return color, torch.where(weight > 1e-3, alpha / weight.clamp(min=1e-3), 0.0)[:, 0]
