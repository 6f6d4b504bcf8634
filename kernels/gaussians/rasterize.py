"""Rasterisation of 3D Gaussians on the CPU: the 3DGS image formation, and its gradient.

Kerbl et al. 2023 with the constants of graphdeco's rasteriser: EWA projection (Zwicker et al. 2001), 0.3 px^2
added to the 2D covariance (``View.dilation``), order by view z, alpha clamped to 0.99 and dropped under 1/255, a
pixel closed before its transmittance would fall under 1e-4. One difference: a footprint ends where alpha falls under
1/255, it is not cut off at three standard deviations before that.

Both implementations project, order by depth, (bin into tiles) and blend. Blending takes a few features of each
Gaussian and knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.encoding.spherical_harmonics import sh_basis
from kernels.gaussians.clipped_gaussians import Corners, along_rays, rasterize_clipped, shares_torch, straddling
from kernels.gaussians.rasterize_forward_numba import ALPHA_MAX, ALPHA_MIN, DILATION, FRUSTUM_MARGIN, TRANSMITTANCE_MIN
from kernels.gaussians.rasterize_numba import RasterizeNumba


@dataclass(frozen=True)
class View:
    """One pinhole view.

    Attributes:
        world_to_camera: (4, 4) rigid, to a camera that looks down -Z with +Y up.
        fx, fy, cx, cy: intrinsics in pixels, pixel centres at +0.5; any principal point.
        width, height: image size in pixels.
        dilation: added to the 2D covariance of every Gaussian, px^2.
    """

    world_to_camera: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    dilation: float = DILATION

    def opencv_pose(self) -> Tensor:
        """(3, 4) float64 world-to-camera with x right, y down, z forward."""
        return self.world_to_camera[:3].double() * torch.tensor([[1.0], [-1.0], [-1.0]])


class RasterOutput(NamedTuple):
    """float32 images: sums over the Gaussians of a pixel, w being the blending weight.

    Attributes:
        rgb: (H, W, 3) sum of w * colour: premultiplied, no background added, at least 0.
        alpha: (H, W) sum of w, in [0, 1].
        z: (H, W) sum of w * z, not divided by alpha; z is the depth of the Gaussian's centre along the view axis.
        inverse_z: (H, W) sum of w / z, not divided by alpha.
        channels: (H, W, C) sum of w * the extra channels, C = 0 when there are none.
    """

    rgb: Tensor
    alpha: Tensor
    z: Tensor
    inverse_z: Tensor
    channels: Tensor


@dataclass
class ScreenSpace:
    """What a rasterisation tells about each Gaussian on the screen, for those who grow and prune them.

    Attributes:
        radius: (N,) float32 pixels, the larger half of the footprint's bounding box before it is cut at the image's
            edges; 0 for a Gaussian that is not seen. Set by the forward pass.
        gradient: (N, 2) dL/d centre (x, y) in pixels, 0 for what is not seen. Set by the backward pass.
    """

    radius: Tensor | None = None
    gradient: Tensor | None = None


def rasterize(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: View,
    *,
    channels: Tensor | None = None,
    screen: ScreenSpace | None = None,
    near: float = 0.2,
    clip: Corners | None = None,
    implementation: str = "auto",
    threads: int | None = None,
) -> RasterOutput:
    """Image of N Gaussians seen from one camera; differentiable in means, covariances, opacities, sh and channels.

    Args:
        means: (N, 3) float32 world-space centres, like all tensors here on the CPU.
        covariances: (N, 3, 3) symmetric world-space covariances; Gaussians whose projection is not finite are left
            out. Their gradient is symmetric too.
        opacities: (N,) in [0, 1].
        sh: (N, K, 3) spherical-harmonics coefficients, K in {1, 4, 9, 16}; colour is max(0, basis @ sh + 0.5) for
            the direction from the camera's centre to the Gaussian's.
        channels: (N, C) any further values to blend.
        screen: filled with what the screen shows of each Gaussian.
        near: Gaussians with view z at or under this are left out, world units.
        clip: a box of which alone is drawn what lies in it, see ``kernels.gaussians.clipped_gaussians``; depth is still
            that of whole Gaussians. Not differentiable with numba. None: all of space.
        implementation: ``"auto"``, ``"torch"`` (the reference: slow, float64 inside) or ``"numba"``.
        threads: CPU threads of the numba implementation; None is all. The result does not depend on it.

    Raises:
        ValueError: ``implementation`` is unknown.
    """
    name = resolve("rasterize", implementation, means.device, ("torch", "numba"))
    extra = means.new_zeros(len(means), 0) if channels is None else channels
    arguments = (means, covariances, opacities, sh, extra)
    if name == "torch":
        image = _rasterize_torch(*arguments, view, near, screen, clip)
    elif clip is not None:
        image = rasterize_clipped([value.detach().contiguous() for value in arguments], view, near, threads, clip)
    else:
        image = RasterizeNumba.apply(*arguments, view, near, threads, screen)
    rgb, z, inverse_z, alpha, blended = image.split([3, 1, 1, 1, extra.shape[1]], dim=-1)
    planes = (plane[..., 0].contiguous() for plane in (alpha, z, inverse_z))
    return RasterOutput(rgb.contiguous(), *planes, blended.contiguous())


def _rasterize_torch(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    sh: Tensor,
    channels: Tensor,
    view: View,
    near: float,
    screen: ScreenSpace | None,
    clip: Corners | None,
) -> Tensor:
    """(H, W, 6 + C) float32: r, g, b, z, 1/z, alpha, channels. In float64 inside, a row of pixels at a time."""
    means, covariances, opacities, sh, channels = (
        value.double() for value in (means, covariances, opacities, sh, channels)
    )
    covariances = (covariances + covariances.transpose(1, 2)) / 2
    splats = _project_torch(means, covariances, opacities, sh, channels, view, near)
    kept, centre, opacity = splats.kept, splats.centre, splats.opacity
    if screen is not None:
        size = torch.tensor([view.width, view.height], dtype=torch.float64)
        _watch(screen, kept, centre, splats.reach.detach(), size, len(means))
    share_of = None if clip is None else _shares_of_rows(means[kept], covariances[kept], view, clip)
    columns = torch.arange(view.width, dtype=torch.float64) + 0.5
    rows = []
    for row in range(view.height):
        touched = torch.nonzero((row + 0.5 - centre[:, 1]).abs() <= splats.reach[:, 1])[:, 0]
        dx = columns[:, None] - centre[touched, 0]
        dy = row + 0.5 - centre[touched, 1]
        a, b, c = splats.conic[touched, 0, 0], splats.conic[touched, 0, 1], splats.conic[touched, 1, 1]
        power = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        alpha = (opacity[touched] * torch.exp(-0.5 * power)).clamp(max=ALPHA_MAX)
        alpha = torch.where(alpha < ALPHA_MIN, 0.0, alpha)
        if share_of is not None:
            alpha = -torch.expm1(share_of(row, touched) * torch.log1p(-alpha))
        after = torch.cumprod(1 - alpha, dim=1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1) if len(touched) else after
        rows.append((alpha * before * (after >= TRANSMITTANCE_MIN)) @ splats.features[touched])
    return torch.stack(rows).float()


class _Splats(NamedTuple):
    """The Gaussians that are drawn, front to back, all but ``kept`` float64.

    kept (K,): which they are; opacity (K,); centre, reach (K, 2): pixels; conic (K, 2, 2); features (K, 6 + C): r, g,
    b, z, 1/z, 1, channels.
    """

    kept: Tensor
    opacity: Tensor
    centre: Tensor
    reach: Tensor
    conic: Tensor
    features: Tensor


def _project_torch(
    means: Tensor, covariances: Tensor, opacities: Tensor, sh: Tensor, channels: Tensor, view: View, near: float
) -> _Splats:
    """What the screen shows of Gaussians, by the projection's Jacobian at their centres."""
    pose = view.opencv_pose()
    rotation, translation = pose[:, :3], pose[:, 3]
    camera = means @ rotation.T + translation
    kept = torch.nonzero((camera[:, 2] > near) & (opacities > ALPHA_MIN))[:, 0]
    # Depth as float32, ties in the order given: what the fast implementation sorts by.
    kept = kept[torch.argsort(camera[kept, 2].float(), stable=True)]
    camera, opacity = camera[kept], opacities[kept]
    z = camera[:, 2]

    focal = torch.tensor([view.fx, view.fy], dtype=torch.float64)
    principal = torch.tensor([view.cx, view.cy], dtype=torch.float64)
    size = torch.tensor([view.width, view.height], dtype=torch.float64)
    slope = camera[:, :2] / z[:, None]
    centre = slope * focal + principal
    margin = FRUSTUM_MARGIN * 0.5 * size / focal
    slope = slope.maximum(-principal / focal - margin).minimum((size - principal) / focal + margin)
    # Rows of the Jacobian of (u, v) in camera space, carried to world space.
    jacobian = (rotation[:2] - slope[:, :, None] * rotation[2]) * (focal / z[:, None])[:, :, None]
    covariance = jacobian @ covariances[kept] @ jacobian.transpose(1, 2) + view.dilation * torch.eye(2)
    reach = (2 * torch.log(opacity / ALPHA_MIN)[:, None] * covariance.diagonal(dim1=1, dim2=2)).sqrt()

    directions = torch.nn.functional.normalize(means[kept] + rotation.T @ translation, dim=-1)
    degree = int(sh.shape[1] ** 0.5) - 1
    color = (torch.einsum("nk,nkc->nc", sh_basis(directions, degree), sh[kept]) + 0.5).clamp(min=0)
    features = torch.cat([color, torch.stack([z, 1 / z, torch.ones_like(z)], dim=1), channels[kept]], dim=1)
    return _Splats(kept, opacity, centre, reach, torch.linalg.inv(covariance), features)


def _shares_of_rows(means: Tensor, covariances: Tensor, view: View, clip: Corners) -> Callable[[int, Tensor], Tensor]:
    """Gives the shares (W, M) of M of the Gaussians that lie in a box along the rays of a row of pixels."""
    pose, columns = view.opencv_pose(), torch.arange(view.width, dtype=torch.float64) + 0.5
    precisions, pulls = along_rays(means, covariances, view)
    straddles = straddling(means, covariances, clip)

    def share_of(row: int, touched: Tensor) -> Tensor:
        x, y = (columns - view.cx) / view.fx, (row + 0.5 - view.cy) / view.fy
        rays = torch.stack([x, torch.full_like(x, y), torch.ones_like(x)], dim=-1) @ pose[:, :3]
        parts = precisions[touched], pulls[touched], straddles[touched]
        return shares_torch(rays, *parts, -pose[:, :3].T @ pose[:, 3], clip)

    return share_of


def _watch(screen: ScreenSpace, kept: Tensor, centre: Tensor, reach: Tensor, size: Tensor, count: int) -> None:
    """Fills the screen's radius now and its gradient when the backward pass comes by ``centre``."""
    first, last = (centre - reach - 0.5).ceil().clamp(min=0), ((centre + reach - 0.5).floor() + 1).minimum(size)
    seen = (first < last).all(dim=1)
    screen.radius = torch.zeros(count).index_add(0, kept, (reach.amax(dim=1) * seen).float())

    def keep(gradient: Tensor) -> None:
        screen.gradient = torch.zeros(count, 2).index_add(0, kept, gradient.float())

    if centre.requires_grad:
        centre.register_hook(keep)
