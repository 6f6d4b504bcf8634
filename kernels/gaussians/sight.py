"""How far a view of Gaussians sees: where each pixel's ray is blocked, and which cells of a grid show in the picture.

A Gaussian is met where its density along the pixel's ray is largest, widened as the rasteriser widens it on the
screen. The depth of its centre, by which the rasteriser orders, would put the rim of a large one beside its surface.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.gaussians.rasterize import View, rasterize
from kernels.gaussians.sight_numba import look
from kernels.marching.ray_samples import Cells


@torch.no_grad()
def sight(
    means: Tensor,
    half_axes: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    view: View,
    *,
    blocked: float,
    seen: Cells | None = None,
    least_weight: float = 0.0,
    near: float = 0.2,
    implementation: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Distance at which the ray of each pixel has met all that shows in it.

    Args:
        means, covariances, opacities, view, near, threads: as for ``kernels.gaussians.rasterize.rasterize``.
        half_axes: (N, 3, 3) the columns are the principal axes times their standard deviations, world units.
        blocked: transmittance in [0.01, 1) under which a ray counts as blocked.
        seen: cells that are set to 1 where a Gaussian of more than ``least_weight`` is met by an unblocked ray; others
            are left as they are.
        least_weight: blending weight in [0, 1).
        implementation: "auto", "torch" (the reference) or "numba".

    Returns:
        (H, W) float32 distance along the unit ray, world units; inf where the ray is not blocked.
    """
    name = resolve("sight", implementation, means.device, ("torch", "numba"))
    cells = Cells((0.0, 0.0, 0.0), 1.0, torch.empty(0, 0, 0, dtype=torch.uint8)) if seen is None else seen
    if name == "torch":
        return _look_torch(means, half_axes, covariances, opacities, view, blocked, cells, least_weight, near)
    sh = means.new_zeros(len(means), 1, 3)
    gaussians = [value.contiguous() for value in (means, covariances, opacities, sh, sh[:, 0, :0])]
    return look(gaussians, half_axes.contiguous(), view, blocked, cells, least_weight, near, threads)


def _look_torch(means, half_axes, covariances, opacities, view, blocked, cells, least_weight, near) -> Tensor:
    each, sh = torch.eye(len(means)), means.new_zeros(len(means), 1, 3)
    image = rasterize(means, covariances, opacities, sh, view, channels=each, near=near, implementation="torch")
    pose = view.opencv_pose()
    centre = -pose[:, :3].T @ pose[:, 3]
    z = means.double() @ pose[2, :3] + pose[2, 3]
    order = torch.argsort(z.float(), stable=True)
    weights, z = image.channels[..., order].double(), z[order]
    light = 1 - weights.cumsum(-1) + weights  # before each Gaussian

    x = (torch.arange(view.width, dtype=torch.float64) + 0.5 - view.cx) / view.fx
    y = (torch.arange(view.height, dtype=torch.float64) + 0.5 - view.cy) / view.fy
    y, x = torch.meshgrid(y, x, indexing="ij")
    rays = torch.nn.functional.normalize(torch.stack([x, y, torch.ones_like(x)], dim=-1) @ pose[:, :3], dim=-1)
    axes = half_axes[order].double()
    scales = axes.norm(dim=1)
    widened = (scales.square() + view.dilation * (z / min(view.fx, view.fy)).square()[:, None]).sqrt()
    whitening = (axes / (scales * widened)[:, None, :]).transpose(1, 2)
    offset = (whitening @ (means[order].double() - centre)[..., None])[..., 0]
    along = torch.einsum("nij,hwj->hwni", whitening, rays)
    t = ((along * offset).sum(-1) / along.square().sum(-1)).clamp(min=0)

    met = (weights > 0) & (light >= blocked)
    points = centre + t[..., None] * rays[:, :, None]
    cell = ((points - torch.tensor(cells.lower, dtype=torch.float64)) / cells.size).floor().long()
    inside = ((cell >= 0) & (cell < torch.tensor(cells.occupied.shape))).all(-1)
    cells.occupied[tuple(cell[met & inside & (weights > least_weight)].T)] = 1
    reach = torch.where(met, t, 0).amax(-1) if len(means) else torch.zeros(view.height, view.width)
    return torch.where(1 - weights.sum(-1) < blocked, reach, torch.inf).float()
