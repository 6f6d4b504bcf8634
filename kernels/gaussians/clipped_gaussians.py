"""The part of Gaussians that lies in a box along each pixel's ray, for a scene that is drawn in blocks.

Along a ray a Gaussian's density is a 1D Gaussian. Of its optical thickness in a pixel, -log(1 - alpha), a box has the
share that lies between the ray's entry and exit. The shares of boxes that fill space add up to 1: composited, blocks
have the very transmittance of the whole, though Gaussians straddle their faces.
"""

from __future__ import annotations

from math import erf, exp, inf, log, sqrt

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.gaussians.rasterize_forward_numba import (
    ALPHA_MAX,
    ALPHA_MIN,
    FIXED_FEATURES,
    FIXED_PLANES,
    TILE,
    TRANSMITTANCE_MIN,
    centre_of,
)
from kernels.gaussians.rasterize_numba import TILE_GRAIN, project_and_bin
from kernels.threads import COMPILED, INNER, parallel_for

Corners = tuple[tuple[float, float, float], tuple[float, float, float]]
"""The smallest and the largest corner of a box, world units."""

_DEVIATIONS = 3.0  # where a Gaussian ends


def straddling(means: Tensor, covariances: Tensor, box: Corners) -> Tensor:
    """(N,) bool: Gaussians that reach out of the box, by three standard deviations on an axis."""
    reach = _DEVIATIONS * covariances.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    lower, upper = (means.new_tensor(corner) for corner in box)
    return ((means - reach < lower) | (means + reach > upper)).any(dim=1)


def along_rays(means: Tensor, covariances: Tensor, view) -> tuple[Tensor, Tensor]:
    """Where rays from the camera meet each Gaussian: (N, 3, 3) precisions, and (N, 3) these times the centres from the
    camera; float64, world units.

    They are widened as the rasteriser widens them on the screen, so that flat ones have a precision.
    """
    pose = view.opencv_pose()
    offsets = means.double() + pose[:, :3].T @ pose[:, 3]
    z = offsets @ pose[2, :3]
    width = view.dilation * (z / min(view.fx, view.fy)).square()
    precisions = torch.linalg.inv(covariances.double() + width[:, None, None] * torch.eye(3, dtype=torch.float64))
    # Of one matrix, or none, and of several, ``inv`` has other strides, for each of which a kernel is compiled anew.
    return precisions.contiguous(), (precisions @ offsets[..., None])[..., 0]


def shares_torch(
    directions: Tensor, precisions: Tensor, pulls: Tensor, straddles: Tensor, centre: Tensor, box: Corners
):
    """(R, N) share of each Gaussian that lies in the box along each ray; 0 along rays that miss it.

    Args:
        directions: (R, 3) float64 world.
        precisions, pulls: see ``along_rays``.
        straddles: (N,) bool, the Gaussians that are not all in the box.
        centre: (3,) of the camera.
    """
    lower, upper = (torch.tensor(corner, dtype=torch.float64) for corner in box)
    ends = torch.stack([(lower - centre) / directions, (upper - centre) / directions]).nan_to_num(nan=-inf)
    near, far = ends.amin(0).amax(-1), ends.amax(0).amin(-1)
    hits = (near < far) & (far > 0)
    near = torch.where(near <= 0, -inf, near)  # what is behind a camera in the box belongs to no other one
    square = torch.einsum("ri,nij,rj->rn", directions, precisions, directions)
    place, deviation = directions @ pulls.T / square, square.rsqrt()
    share = torch.special.ndtr((far[:, None] - place) / deviation) - torch.special.ndtr(
        (near[:, None] - place) / deviation
    )
    return torch.where(straddles, share, 1.0) * hits[:, None]


def rasterize_clipped(gaussians: list[Tensor], view, near: float, threads: int | None, box: Corners) -> Tensor:
    """(H, W, 6 + C) image of the part of Gaussians in a box; ``gaussians`` as for ``project_and_bin``."""
    means, covariances = gaussians[:2]
    pose, intrinsics, splats, bounds, features, tiles = project_and_bin(gaussians, view, near, threads)
    shared = (straddling(means, covariances, box) & torch.from_numpy(features[:, 3] < inf)).nonzero()[:, 0]
    precisions, pulls = along_rays(means[shared], covariances[shared], view)
    place = torch.full((len(means),), -1, dtype=torch.int32)
    place[shared] = torch.arange(len(shared), dtype=torch.int32)
    image = torch.empty(view.height, view.width, features.shape[1] + 1)
    parallel_for(
        _blend, len(tiles[0]) - 2, splats, bounds, features, *tiles, place, precisions, pulls, pose, intrinsics,
        np.array(box), image, grain=TILE_GRAIN, threads=threads,
    )  # fmt: skip
    return image


@njit(**COMPILED, **INNER)
def _span(ray, centre, box):
    """Where a ray enters and leaves the box, -inf from within; entry after exit where it misses."""
    first, last = -inf, inf
    for axis in range(3):
        if ray[axis] == 0:
            if not box[0, axis] <= centre[axis] <= box[1, axis]:
                return inf, -inf
            continue
        a, b = (box[0, axis] - centre[axis]) / ray[axis], (box[1, axis] - centre[axis]) / ray[axis]
        first, last = max(first, min(a, b)), min(last, max(a, b))
    if last <= 0:
        return inf, -inf
    return (-inf if first <= 0 else first), last


@njit(**COMPILED, **INNER)
def _share(ray, precision, pull, first, last):
    """Of a Gaussian's density along the ray, that between two places."""
    square, product = 0.0, 0.0
    for a in range(3):
        product += ray[a] * pull[a]
        for b in range(3):
            square += ray[a] * precision[a, b] * ray[b]
    scale, place = sqrt(0.5 * square), product / square
    below = -1.0 if first == -inf else erf((first - place) * scale)
    return 0.5 * (erf((last - place) * scale) - below)


@njit(**COMPILED)
def _blend(
    start, stop, splats, bounds, features, starts, members, place, precisions, pulls, pose, intrinsics, box, image
):
    """Blends the tiles [start, stop), pixel by pixel."""
    height, width, planes = image.shape
    tiles_x = (width + TILE - 1) // TILE
    fx, fy, cx, cy = intrinsics[:4]
    centre, ray, sums = centre_of(pose), np.empty(3), np.empty(planes)
    for tile in range(start, stop):
        y0, x0 = tile // tiles_x * TILE, tile % tiles_x * TILE
        for y in range(y0, min(y0 + TILE, height)):
            for x in range(x0, min(x0 + TILE, width)):
                right, down = (x + 0.5 - cx) / fx, (y + 0.5 - cy) / fy
                for axis in range(3):
                    ray[axis] = right * pose[0, axis] + down * pose[1, axis] + pose[2, axis]
                first, last = _span(ray, centre, box)
                sums[:] = 0
                light = 1.0 if first < last else 0.0
                for slot in range(starts[tile], starts[tile + 1]):
                    if light == 0:
                        break
                    i = members[slot]
                    if not (bounds[i, 0] <= x < bounds[i, 1] and bounds[i, 2] <= y < bounds[i, 3]):
                        continue
                    dy = y - splats[i, 1]
                    dx = x - splats[i, 0] - splats[i, 2] * dy
                    alpha = min(ALPHA_MAX, splats[i, 5] * exp(-0.5 * (splats[i, 3] * dx * dx + splats[i, 4] * dy * dy)))
                    if alpha < ALPHA_MIN:
                        continue
                    if place[i] >= 0:
                        share = _share(ray, precisions[place[i]], pulls[place[i]], first, last)
                        alpha = 1 - exp(share * log(1 - alpha))
                    left = light * (1 - alpha)
                    if left < TRANSMITTANCE_MIN:
                        break
                    weight = light - left
                    for c in range(FIXED_FEATURES):
                        sums[c] += weight * features[i, c]
                    sums[FIXED_FEATURES] += weight
                    for c in range(FIXED_PLANES, planes):
                        sums[c] += weight * features[i, c - 1]
                    light = left
                for c in range(planes):
                    image[y, x, c] = sums[c]
