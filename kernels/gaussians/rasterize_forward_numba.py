"""The rasteriser on the CPU, forward: projection of each Gaussian, binning into tiles, blending of each tile."""

from __future__ import annotations

from math import ceil, floor, inf, log, sqrt

import numpy as np
from numba import njit

from kernels.encoding.spherical_harmonics_numba import fill_sh_basis
from kernels.threads import COMPILED, INNER

DILATION = 0.3
ALPHA_MAX = 0.99
ALPHA_MIN = 1 / 255
TRANSMITTANCE_MIN = 1e-4
# How far outside the image the projection's Jacobian is still taken at the Gaussian's centre: 0.3 * tan(fov / 2).
FRUSTUM_MARGIN = 0.3
TILE = 16
# Slots of a tile between two looks at whether all its pixels are closed.
LOOK_EVERY = 16
FIXED_FEATURES = 5  # r, g, b, z, 1/z; further channels follow
FIXED_PLANES = 6  # of an image: the same, then alpha, then the further channels


@njit(**COMPILED, **INNER)
def centre_of(pose):
    """World position x, y, z of a camera, by its pose (3 or 4, 4) from world to camera."""
    x = pose[0, 0] * pose[0, 3] + pose[1, 0] * pose[1, 3] + pose[2, 0] * pose[2, 3]
    y = pose[0, 1] * pose[0, 3] + pose[1, 1] * pose[1, 3] + pose[2, 1] * pose[2, 3]
    z = pose[0, 2] * pose[0, 3] + pose[1, 2] * pose[1, 3] + pose[2, 2] * pose[2, 3]
    return -x, -y, -z


@njit(**COMPILED)
def project(start, stop, means, covariances, opacities, sh, channels, pose, intrinsics, splats, bounds, features):
    """Writes splat, bounds and features of each Gaussian in [start, stop).

    splats (N, 7): pixel index of the centre (x, y); the 2D Gaussian as x given y (slope of the conditional mean,
    inverse of the conditional variance) and y alone (inverse variance), exact for long thin ones where the usual
    conic cancels; opacity; the squared Mahalanobis distance at which alpha is 1/255.
    bounds (N, 4): first and past-the-last column, then row, inside the image; all 0 when the Gaussian is not seen.
    features (N, 5 + C): r, g, b, z, 1/z, channels; z is inf when the Gaussian is not seen.
    """
    fx, fy, cx, cy, width, height, near, dilation = intrinsics
    center = centre_of(pose)
    basis = np.empty(sh.shape[1])
    margin_x, margin_y = FRUSTUM_MARGIN * 0.5 * width / fx, FRUSTUM_MARGIN * 0.5 * height / fy
    for i in range(start, stop):
        features[i, 3] = inf
        bounds[i] = 0
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
        xx, xy, yy = dilation, 0.0, dilation
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
        for channel in range(channels.shape[1]):
            features[i, FIXED_FEATURES + channel] = channels[i, channel]


@njit(**COMPILED, **INNER)
def tile_range(bounds, i):
    """First and past-the-last tile row, then column, of a Gaussian."""
    first_row, first_column = bounds[i, 2] // TILE, bounds[i, 0] // TILE
    return first_row, (bounds[i, 3] + TILE - 1) // TILE, first_column, (bounds[i, 1] + TILE - 1) // TILE


@njit(**COMPILED)
def bin_tiles(order, bounds, tiles_x, tiles_y):
    """Gaussians of each tile, front to back: tile t has members[starts[t]:starts[t + 1]]."""
    starts = np.zeros(tiles_x * tiles_y + 2, dtype=np.int64)
    for i in order:
        first_row, last_row, first_column, last_column = tile_range(bounds, i)
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                starts[row * tiles_x + column + 2] += 1
    for t in range(1, len(starts)):
        starts[t] += starts[t - 1]
    members = np.empty(starts[-1], dtype=np.int32)
    for i in order:
        first_row, last_row, first_column, last_column = tile_range(bounds, i)
        for row in range(first_row, last_row):
            for column in range(first_column, last_column):
                # starts[t + 1] runs from the tile's first slot to its last + 1, where the next tile begins.
                tile = row * tiles_x + column
                members[starts[tile + 1]] = i
                starts[tile + 1] += 1
    return starts, members


@njit(**COMPILED, fastmath={"contract"}, inline="always", **INNER)
def falloff(power):
    """exp(-power / 2) as a polynomial to the 16th: 2e-7 of absolute error wherever alpha >= 1/255."""
    one = np.float32(1)
    c2, c3, c4, c5 = np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24), np.float32(1 / 120)
    t = np.float32(-0.5 / 16) * min(power, np.float32(20))
    e = one + t * (one + t * (c2 + t * (c3 + t * (c4 + t * c5))))
    e = e * e
    e = e * e
    e = e * e
    return e * e


@njit(**COMPILED, **INNER)
def any_open(light, least):
    """Whether one of a tile's pixels (16, 16) still lets through so much."""
    for y in range(TILE):
        for x in range(TILE):
            if light[y, x] >= least:
                return True
    return False


@njit(**COMPILED, fastmath={"contract"})
def blend(start, stop, splats, bounds, features, starts, members, image):
    """Blends the tiles [start, stop), a row of 16 pixels at a time so that the compiler can use vector registers.

    ``light`` is a pixel's transmittance while it is open and 0 once it is closed. image (H, W, 6 + C): sums of weight *
    (r, g, b, z, 1/z, 1, channels).
    """
    zero, transmittance_min = np.float32(0), np.float32(TRANSMITTANCE_MIN)
    alpha_max, alpha_min = np.float32(ALPHA_MAX), np.float32(ALPHA_MIN)
    height, width, planes = image.shape
    extra = planes - FIXED_PLANES
    tiles_x = (width + TILE - 1) // TILE
    light = np.empty((TILE, TILE), dtype=np.float32)
    weights = np.empty(TILE, dtype=np.float32)
    sums = np.empty((planes, TILE, TILE), dtype=np.float32)
    for tile in range(start, stop):
        x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        sums[:] = 0
        light[:] = 0
        light[: y1 - y0, : x1 - x0] = 1
        for slot in range(starts[tile], starts[tile + 1]):
            i = members[slot]
            u, v, slope, inverse_conditional, inverse_yy, opacity, cut = splats[i]
            f0, f1, f2, f3, f4 = features[i, 0], features[i, 1], features[i, 2], features[i, 3], features[i, 4]
            for y in range(max(bounds[i, 2] - y0, 0), min(bounds[i, 3] - y0, TILE)):
                dy = np.float32(y + y0) - v
                power_y = inverse_yy * dy * dy
                if power_y > cut:
                    continue
                middle = u + slope * dy - np.float32(x0)
                for x in range(TILE):
                    dx = np.float32(x) - middle
                    alpha = min(alpha_max, opacity * falloff(power_y + inverse_conditional * dx * dx))
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
                    weights[x] = weight
                for c in range(extra):
                    feature = features[i, FIXED_FEATURES + c]
                    for x in range(TILE):
                        sums[FIXED_PLANES + c, y, x] += weights[x] * feature
            if (slot - starts[tile]) % LOOK_EVERY == LOOK_EVERY - 1 and not any_open(light, transmittance_min):
                break
        for y in range(y0, y1):
            for x in range(x0, x1):
                for c in range(planes):
                    image[y, x, c] = sums[c, y - y0, x - x0]
