"""Rasterisation of 3D Gaussians on the CPU: the 3DGS image formation.

Kerbl et al. 2023 with the constants of graphdeco's rasteriser: EWA projection (Zwicker et al. 2001), 0.3 px^2
added to the 2D covariance, order by view z, alpha clamped to 0.99 and dropped under 1/255, a pixel closed before its
transmittance would fall under 1e-4. One difference: a footprint ends where alpha falls under 1/255, it is not cut
off at three standard deviations before that.

Both implementations project, order by depth, (bin into tiles) and blend. Blending takes a few features of each
Gaussian and knows nothing of what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf, log, sqrt
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.spherical_harmonics import fill_sh_basis, sh_basis
from kernels.threads import parallel_for

DILATION = 0.3
ALPHA_MAX = 0.99
ALPHA_MIN = 1 / 255
TRANSMITTANCE_MIN = 1e-4
# How far outside the image the projection's Jacobian is still taken at the Gaussian's centre: 0.3 * tan(fov / 2).
FRUSTUM_MARGIN = 0.3
TILE = 16


@dataclass(frozen=True)
class View:
    """One pinhole view.

    Attributes:
        world_to_camera: (4, 4) rigid, to a camera that looks down -Z with +Y up.
        fx, fy, cx, cy: intrinsics in pixels, pixel centres at +0.5; any principal point.
        width, height: image size in pixels.
    """

    world_to_camera: Tensor
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


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


def rasterize(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: View,
    *,
    channels: Tensor | None = None,
    near: float = 0.2,
    implementation: str = "auto",
    threads: int | None = None,
) -> RasterOutput:
    """Image of N Gaussians seen from one camera.

    Args:
        means: (N, 3) float32 world-space centres, like all tensors here on the CPU.
        covariances: (N, 3, 3) world-space covariances; Gaussians whose projection is not finite are left out.
        opacities: (N,) in [0, 1].
        sh: (N, K, 3) spherical-harmonics coefficients, K in {1, 4, 9, 16}; colour is max(0, basis @ sh + 0.5) for
            the direction from the camera's centre to the Gaussian's.
        channels: (N, C) further values of each Gaussian to blend; of the torch implementation.
        near: Gaussians with view z at or under this are left out, world units.
        implementation: ``"auto"``, ``"torch"`` (the reference: slow, differentiable) or ``"numba"`` (no gradient).
        threads: CPU threads of the numba implementation; None is all. The result does not depend on it.

    Raises:
        ValueError: ``implementation`` is unknown.
    """
    available = ("torch", "numba") if channels is None else ("torch",)
    name = resolve("rasterize", implementation, means.device, available)
    if name == "torch":
        image = _rasterize_torch(means, covariances, opacities, sh, view, near, channels)
    else:
        arrays = (value.detach().contiguous().numpy() for value in (means, covariances, opacities, sh))
        image = torch.from_numpy(_rasterize_numba(*arrays, view, near, threads))
    rgb, z, inverse_z, alpha, extra = image.split([3, 1, 1, 1, image.shape[-1] - 6], dim=-1)
    planes = (plane[..., 0].contiguous() for plane in (alpha, z, inverse_z))
    return RasterOutput(rgb.contiguous(), *planes, extra.contiguous())


def _opencv_pose(view: View) -> Tensor:
    """(3, 4) float64 world-to-camera with x right, y down, z forward."""
    return view.world_to_camera[:3].double() * torch.tensor([[1.0], [-1.0], [-1.0]])


def _rasterize_torch(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    sh: Tensor,
    view: View,
    near: float,
    channels: Tensor | None,
) -> Tensor:
    """(H, W, 6 + C) float32: r, g, b, z, 1/z, alpha, channels. In float64 inside, a row of pixels at a time."""
    means, covariances, opacities, sh = (value.double() for value in (means, covariances, opacities, sh))
    pose = _opencv_pose(view)
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
    covariance = jacobian @ covariances[kept] @ jacobian.transpose(1, 2) + DILATION * torch.eye(2)
    conic = torch.linalg.inv(covariance)

    directions = torch.nn.functional.normalize(means[kept] + rotation.T @ translation, dim=-1)
    degree = int(sh.shape[1] ** 0.5) - 1
    color = (torch.einsum("nk,nkc->nc", sh_basis(directions, degree), sh[kept]) + 0.5).clamp(min=0)
    features = torch.cat([color, z[:, None], 1 / z[:, None], torch.ones_like(z)[:, None]], dim=1)
    if channels is not None:
        features = torch.cat([features, channels[kept].double()], dim=1)

    reach = (2 * torch.log(opacity / ALPHA_MIN) * covariance[:, 1, 1]).sqrt()
    columns = torch.arange(view.width, dtype=torch.float64) + 0.5
    rows = []
    for row in range(view.height):
        touched = torch.nonzero((row + 0.5 - centre[:, 1]).abs() <= reach)[:, 0]
        dx = columns[:, None] - centre[touched, 0]
        dy = row + 0.5 - centre[touched, 1]
        a, b, c = conic[touched, 0, 0], conic[touched, 0, 1], conic[touched, 1, 1]
        power = a * dx * dx + 2 * b * dx * dy + c * dy * dy
        alpha = (opacity[touched] * torch.exp(-0.5 * power)).clamp(max=ALPHA_MAX)
        alpha = torch.where(alpha < ALPHA_MIN, 0.0, alpha)
        after = torch.cumprod(1 - alpha, dim=1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1) if len(touched) else after
        rows.append((alpha * before * (after >= TRANSMITTANCE_MIN)) @ features[touched])
    return torch.stack(rows).float()


def _rasterize_numba(
    means: np.ndarray,
    covariances: np.ndarray,
    opacities: np.ndarray,
    sh: np.ndarray,
    view: View,
    near: float,
    threads: int | None,
) -> np.ndarray:
    """(H, W, 6) float32: r, g, b, z, 1/z, alpha."""
    count = len(means)
    pose = _opencv_pose(view).numpy()
    intrinsics = np.array([view.fx, view.fy, view.cx, view.cy, view.width, view.height, near], dtype=np.float64)
    splats = np.empty((count, 7), dtype=np.float32)
    bounds = np.empty((count, 4), dtype=np.int32)
    features = np.empty((count, 5), dtype=np.float32)
    arrays = (means, covariances, opacities, sh, pose, intrinsics, splats, bounds, features)
    parallel_for(_project, count, *arrays, grain=4096, threads=threads)

    # Positive floats order like their bits; the index below them makes the order the same on every machine.
    keys = (features[:, 3].view(np.uint32).astype(np.uint64) << np.uint64(32)) | np.arange(count, dtype=np.uint64)
    keys.sort()
    visible = np.count_nonzero(features[:, 3] < inf)
    order = (keys[:visible] & np.uint64(0xFFFFFFFF)).astype(np.int32)

    tiles_x, tiles_y = -(-view.width // TILE), -(-view.height // TILE)
    starts, members = _bin(order, bounds, tiles_x, tiles_y)
    image = np.empty((view.height, view.width, 6), dtype=np.float32)
    parallel_for(_blend, tiles_x * tiles_y, splats, bounds, features, starts, members, image, grain=8, threads=threads)
    return image


@njit(cache=True, nogil=True)
def _project(start, stop, means, covariances, opacities, sh, pose, intrinsics, splats, bounds, features):
    """Writes splat, bounds and features of each Gaussian in [start, stop).

    splats (N, 7): pixel index of the centre (x, y); the 2D Gaussian as x given y (slope of the conditional mean,
    inverse of the conditional variance) and y alone (inverse variance), exact for long thin ones where the usual
    conic cancels; opacity; the squared Mahalanobis distance at which alpha is 1/255.
    bounds (N, 4): first and past-the-last column, then row, inside the image.
    features (N, 5): r, g, b, z, 1/z; z is inf when the Gaussian is not seen.
    """
    fx, fy, cx, cy, width, height, near = intrinsics
    center = -(pose[:, :3].T.copy() @ pose[:, 3].copy())
    basis = np.empty(sh.shape[1])
    margin_x, margin_y = FRUSTUM_MARGIN * 0.5 * width / fx, FRUSTUM_MARGIN * 0.5 * height / fy
    for i in range(start, stop):
        features[i, 3] = inf
        px, py, pz = means[i]
        z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz + pose[2, 3]
        opacity = opacities[i]
        if not (z > near and opacity > ALPHA_MIN):
            continue
        x = (pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz + pose[0, 3]) / z
        y = (pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz + pose[1, 3]) / z
        u, v = fx * x + cx, fy * y + cy

        x = min(max(x, -cx / fx - margin_x), (width - cx) / fx + margin_x)
        y = min(max(y, -cy / fy - margin_y), (height - cy) / fy + margin_y)
        xx, xy, yy = DILATION, 0.0, DILATION
        for a in range(3):
            jx, jy = (pose[0, a] - x * pose[2, a]) * fx / z, (pose[1, a] - y * pose[2, a]) * fy / z
            for b in range(3):
                kx, ky = (pose[0, b] - x * pose[2, b]) * fx / z, (pose[1, b] - y * pose[2, b]) * fy / z
                xx += jx * covariances[i, a, b] * kx
                xy += jx * covariances[i, a, b] * ky
                yy += jy * covariances[i, a, b] * ky
        conditional = xx - xy * xy / yy
        if not (0.0 < conditional < inf and yy < inf):
            continue
        cut = 2 * log(opacity / ALPHA_MIN)
        reach_x, reach_y = sqrt(cut * xx), sqrt(cut * yy)
        left, right = max(0.0, ceil(u - reach_x - 0.5)), min(width, floor(u + reach_x - 0.5) + 1)
        top, bottom = max(0.0, ceil(v - reach_y - 0.5)), min(height, floor(v + reach_y - 0.5) + 1)
        if not (left < right and top < bottom):
            continue
        bounds[i, 0], bounds[i, 1], bounds[i, 2], bounds[i, 3] = left, right, top, bottom
        splats[i, 0], splats[i, 1], splats[i, 2] = u - 0.5, v - 0.5, xy / yy
        splats[i, 3], splats[i, 4], splats[i, 5], splats[i, 6] = 1 / conditional, 1 / yy, opacity, cut

        dx, dy, dz = px - center[0], py - center[1], pz - center[2]
        scale = 1 / sqrt(dx * dx + dy * dy + dz * dz)
        fill_sh_basis(dx * scale, dy * scale, dz * scale, basis)
        for channel in range(3):
            value = 0.5
            for k in range(len(basis)):
                value += basis[k] * sh[i, k, channel]
            features[i, channel] = max(0.0, value)
        features[i, 3], features[i, 4] = z, 1 / z


@njit(cache=True, nogil=True)
def _bin(order, bounds, tiles_x, tiles_y):
    """Gaussians of each tile, front to back: tile t has members[starts[t]:starts[t + 1]]."""
    starts = np.zeros(tiles_x * tiles_y + 2, dtype=np.int64)
    for i in order:
        for row in range(bounds[i, 2] // TILE, (bounds[i, 3] - 1) // TILE + 1):
            for column in range(bounds[i, 0] // TILE, (bounds[i, 1] - 1) // TILE + 1):
                starts[row * tiles_x + column + 2] += 1
    for t in range(1, len(starts)):
        starts[t] += starts[t - 1]
    members = np.empty(starts[-1], dtype=np.int32)
    for i in order:
        for row in range(bounds[i, 2] // TILE, (bounds[i, 3] - 1) // TILE + 1):
            for column in range(bounds[i, 0] // TILE, (bounds[i, 1] - 1) // TILE + 1):
                # starts[t + 1] runs from the tile's first slot to its last + 1, where the next tile begins.
                tile = row * tiles_x + column
                members[starts[tile + 1]] = i
                starts[tile + 1] += 1
    return starts, members


@njit(cache=True, nogil=True, fastmath={"contract"})
def _blend(start, stop, splats, bounds, features, starts, members, image):
    """Blends the tiles [start, stop), a row of 16 pixels at a time so that the compiler can use vector registers.

    ``light`` is a pixel's transmittance while it is open and 0 once it is closed.
    """
    one, zero, exponent_scale = np.float32(1), np.float32(0), np.float32(-0.5 / 16)
    alpha_max, alpha_min = np.float32(ALPHA_MAX), np.float32(ALPHA_MIN)
    transmittance_min, far = np.float32(TRANSMITTANCE_MIN), np.float32(20)
    c2, c3, c4, c5 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24), np.float32(1 / 120)
    height, width, _ = image.shape
    tiles_x = (width + TILE - 1) // TILE
    light = np.empty((TILE, TILE), dtype=np.float32)
    sums = np.empty((6, TILE, TILE), dtype=np.float32)
    for tile in range(start, stop):
        x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        sums[:] = 0
        light[:] = 0
        light[: y1 - y0, : x1 - x0] = 1
        for slot in range(starts[tile], starts[tile + 1]):
            i = members[slot]
            u, v, slope, inverse_conditional, inverse_yy, opacity, cut = splats[i]
            f0, f1, f2, f3, f4 = features[i]
            for y in range(max(bounds[i, 2] - y0, 0), min(bounds[i, 3] - y0, TILE)):
                dy = np.float32(y + y0) - v
                power_y = inverse_yy * dy * dy
                if power_y > cut:
                    continue
                middle = u + slope * dy - np.float32(x0)
                for x in range(TILE):
                    dx = np.float32(x) - middle
                    # exp(-power / 2) as a polynomial to the 16th: 2e-7 of absolute error wherever alpha >= 1/255.
                    t = exponent_scale * min(power_y + inverse_conditional * dx * dx, far)
                    e = one + t * (one + t * (c2 + t * (c3 + t * (c4 + t * c5))))
                    e = e * e
                    e = e * e
                    e = e * e
                    alpha = min(alpha_max, opacity * (e * e))
                    weight = alpha * light[y, x] if alpha >= alpha_min else zero
                    left = light[y, x] - weight
                    weight = weight if left >= transmittance_min else zero
                    light[y, x] = left if left >= transmittance_min else zero
                    sums[0, y, x] += weight * f0
                    sums[1, y, x] += weight * f1
                    sums[2, y, x] += weight * f2
                    sums[3, y, x] += weight * f3
                    sums[4, y, x] += weight * f4
                    sums[5, y, x] += weight
            if (slot - starts[tile]) % 16 == 15 and not light.any():
                break
        for y in range(y0, y1):
            for x in range(x0, x1):
                for c in range(6):
                    image[y, x, c] = sums[c, y - y0, x - x0]
