"""Rasterisation of 3D Gaussians on CUDA through gsplat (Ye et al. 2024, version 1.5 or later).

The image formation is ``kernels.gaussians.rasterize``'s with these differences, which are gsplat's: alpha is clamped to
0.999 instead of 0.99, a footprint is cut off at 3.33 standard deviations, and blending is in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.encoding.spherical_harmonics import sh_basis
from kernels.gaussians.rasterize import RasterOutput, View

# gsplat draws this many channels in one pass over the Gaussians of a tile; more take further passes.
_CHANNELS_PER_PASS = 32


def rasterize_gsplat(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    sh: Tensor,
    views: Sequence[View],
    *,
    channels: Tensor | None = None,
    near: float = 0.2,
    absgrad: bool = False,
) -> tuple[RasterOutput, dict[str, Any]]:
    """Images of N Gaussians seen from V cameras of one size, in one call of ``gsplat.rasterization``.

    Differentiable in all five tensors; gsplat compiles its CUDA code in the first call of a machine, which takes
    minutes (see ``teacher.gsplat_setup``).

    Args:
        means, covariances, opacities, sh, channels: as in ``kernels.gaussians.rasterize.rasterize``, on one CUDA
            device. Gaussians whose mean or covariance is not finite are left out.
        views: at least one; all of the same width, height and dilation.
        near: Gaussians with view z under this are left out, world units.
        absgrad: also accumulate |d loss / d means2d| in the backward pass, as ``meta["means2d"].absgrad``.

    Returns:
        Images on the same device, each field with a leading dimension V; and gsplat's ``meta`` of the call, which its
        training strategies take as it is: ``means2d`` (V, N, 2) in pixels, a non-leaf tensor to call
        ``retain_grad`` on, ``radii`` (V, N, 2) in pixels, 0 where a Gaussian is not drawn, ``width``, ``height``,
        ``n_cameras``; not packed.

    Raises:
        ValueError: no views, or views of differing sizes or dilations.
    """
    import gsplat  # optional, and slow to import

    width, height, dilation = _common_size(views)
    poses, intrinsics = _opencv_cameras(views, means)
    finite = means.isfinite().all(-1) & covariances.isfinite().all(-1).all(-1)
    means = torch.where(finite[:, None], means, 0.0)
    # gsplat reads the upper triangle alone; this way the gradient is symmetric, as the other implementations' is.
    symmetric = (covariances + covariances.transpose(1, 2)) / 2
    covariances = torch.where(finite[:, None, None], symmetric, torch.eye(3).to(covariances))
    colors, z = _colors(means, sh, poses)
    # Where a Gaussian is behind the near plane 1 / z may be infinite: it is not drawn, but 0 * inf would be NaN.
    inverse_z = 1 / torch.where(z > near, z, 1.0)
    features = [colors, z[..., None], inverse_z[..., None]]
    if channels is not None:
        features.append(channels.expand(len(views), -1, -1))
    image, alpha, meta = gsplat.rasterization(
        means=means,
        quats=None,
        scales=None,
        opacities=torch.where(finite, opacities, 0.0),
        colors=torch.cat(features, dim=-1),
        viewmats=poses,
        Ks=intrinsics,
        width=width,
        height=height,
        near_plane=near,
        eps2d=dilation,
        packed=False,
        absgrad=absgrad,
        rasterize_mode="classic",
        channel_chunk=_CHANNELS_PER_PASS,
        covars=covariances,
    )
    return RasterOutput(image[..., :3], alpha[..., 0], image[..., 3], image[..., 4], image[..., 5:]), meta


def gsplat_pictures(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    views: Sequence[View],
    *,
    near: float = 0.2,
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """What draws view ``i`` as gsplat by itself does, for clocks.

    ``rasterize_gsplat`` has torch make covariances, colours and depths, and copies cameras: work that is not gsplat's.

    Args:
        means, opacities, sh: as for ``rasterize_gsplat``, all finite.
        rotations: (N, 4) quaternions w, x, y, z of any non-zero length.
        scales: (N, 3) standard deviations, world units.
        views, near: as there.

    Returns:
        A function of the view's number, whose result is (H, W, 4) premultiplied rgb and z, and alpha (H, W).
    """
    import gsplat  # optional, and slow to import

    width, height, dilation = _common_size(views)
    poses, intrinsics = _opencv_cameras(views, means)

    def draw(index: int) -> tuple[Tensor, Tensor]:
        image, alpha, _ = gsplat.rasterization(
            means=means,
            quats=rotations,
            scales=scales,
            opacities=opacities,
            colors=sh,
            viewmats=poses[index : index + 1],
            Ks=intrinsics[index : index + 1],
            width=width,
            height=height,
            near_plane=near,
            eps2d=dilation,
            sh_degree=int(sh.shape[1] ** 0.5) - 1,
            packed=False,
            render_mode="RGB+D",
            rasterize_mode="classic",
        )
        return image[0], alpha[0, ..., 0]

    return draw


def _common_size(views: Sequence[View]) -> tuple[int, int, float]:
    """Width, height and dilation of all views."""
    sizes = {(view.width, view.height, view.dilation) for view in views}
    if len(sizes) != 1:
        raise ValueError(f"views: found {len(sizes)} sizes, expected at least one view and one size")
    return sizes.pop()


def _opencv_cameras(views: Sequence[View], like: Tensor) -> tuple[Tensor, Tensor]:
    """(V, 4, 4) world-to-camera with x right, y down, z forward, and (V, 3, 3) intrinsics in pixels."""
    flip = torch.tensor([1.0, -1.0, -1.0, 1.0])[:, None]
    poses = torch.stack([view.world_to_camera.detach().cpu().float() * flip for view in views])
    rows = [[[view.fx, 0, view.cx], [0, view.fy, view.cy], [0, 0, 1]] for view in views]
    return poses.to(like), torch.tensor(rows, dtype=torch.float32).to(like)


def _colors(means: Tensor, sh: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """RGB (V, N, 3), at least 0, and depth along the view axis (V, N) of each Gaussian's centre."""
    rotation, translation = poses[:, :3, :3], poses[:, :3, 3]
    centres = -(rotation.transpose(1, 2) @ translation[..., None])[..., 0]
    directions = F.normalize(means - centres[:, None], dim=-1)
    degree = int(sh.shape[1] ** 0.5) - 1
    colors = torch.einsum("vnk,nkc->vnc", sh_basis(directions, degree), sh) + 0.5
    z = means @ rotation[:, 2].T + translation[:, 2]
    return colors.clamp(min=0), z.T
