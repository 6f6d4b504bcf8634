"""Numba twin of the rasteriser: what runs over Gaussians and over tiles, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.gaussians.rasterize_backward_numba import PAIR_FIELDS, blend_backward, first_pairs, project_backward, radii
from kernels.gaussians.rasterize_forward_numba import FIXED_FEATURES, TILE, bin_tiles, blend, project
from kernels.threads import parallel_for

TILE_GRAIN = 8
_GAUSSIAN_GRAIN = 4096


def project_and_bin(gaussians: Sequence[Tensor], view, near: float, threads: int | None):
    """Pose, intrinsics, splats, bounds, features, tiles: what ``blend`` takes.

    Args:
        gaussians: means, covariances, opacities, sh and channels, as for ``rasterize``, contiguous.
        view: a ``kernels.gaussians.rasterize.View``.
    """
    count = len(gaussians[0])
    pose = view.opencv_pose().numpy()
    size = view.width, view.height
    intrinsics = np.array([view.fx, view.fy, view.cx, view.cy, *size, near, view.dilation], dtype=np.float64)
    splats = np.empty((count, 7), dtype=np.float32)
    bounds = np.empty((count, 4), dtype=np.int32)
    features = np.empty((count, FIXED_FEATURES + gaussians[4].shape[1]), dtype=np.float32)
    parallel_for(
        project, count, *gaussians, pose, intrinsics, splats, bounds, features, grain=_GAUSSIAN_GRAIN, threads=threads
    )
    # Positive floats order like their bits; the index below them makes the order the same on every machine.
    seen = np.flatnonzero(features[:, 3] < np.inf)
    keys = (features[seen, 3].view(np.uint32).astype(np.uint64) << np.uint64(32)) | seen.astype(np.uint64)
    keys.sort()
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
    tiles_x, tiles_y = -(-view.width // TILE), -(-view.height // TILE)
    return pose, intrinsics, splats, bounds, features, bin_tiles(order, bounds, tiles_x, tiles_y)


class RasterizeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, covariances, opacities, sh, channels, view, near, threads, screen):
        gaussians = [value.detach().contiguous() for value in (means, covariances, opacities, sh, channels)]
        pose, intrinsics, splats, bounds, features, tiles = project_and_bin(gaussians, view, near, threads)
        image = torch.empty(view.height, view.width, features.shape[1] + 1)
        parallel_for(
            blend, len(tiles[0]) - 2, splats, bounds, features, *tiles, image, grain=TILE_GRAIN, threads=threads
        )
        if screen is not None:
            screen.radius = torch.from_numpy(radii(splats, bounds))
        ctx.kept = gaussians, pose, intrinsics, splats, bounds, features, tiles, threads, screen
        ctx.save_for_backward(image)
        return image

    @staticmethod
    def backward(ctx, grad_image):
        gaussians, pose, intrinsics, splats, bounds, features, (starts, members), threads, screen = ctx.kept
        (image,) = ctx.saved_tensors
        grad_image = grad_image.contiguous().numpy()
        # Depth and channels that no loss looks at are left out: colour and alpha have a faster way.
        used = np.array([plane for plane in (3, 4, *range(6, grad_image.shape[2])) if grad_image[..., plane].any()])
        used = used.astype(np.int64)
        firsts = first_pairs(bounds)
        pairs = np.empty((firsts[-1], PAIR_FIELDS + len(used)), dtype=np.float32)
        parallel_for(
            blend_backward, len(starts) - 2, splats, bounds, features, starts, members, firsts, used, image,
            grad_image, pairs, grain=TILE_GRAIN, threads=threads,
        )  # fmt: skip
        grads = [torch.empty(value.shape) for value in gaussians]
        means, covariances, _, sh, channels = gaussians
        centres = torch.empty(len(bounds), 2)
        parallel_for(
            project_backward, len(bounds), means, covariances, sh, channels, pose, intrinsics, features, firsts, used,
            pairs, *grads, centres, grain=_GAUSSIAN_GRAIN, threads=threads,
        )  # fmt: skip
        if screen is not None:
            screen.gradient = centres
        return *grads, None, None, None, None
