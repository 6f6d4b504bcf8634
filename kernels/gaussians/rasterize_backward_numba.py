"""The rasteriser on the CPU, backward: gradients of the tiles' blending, then of each Gaussian's projection.

A pair is one Gaussian in one tile. The tiles write one row of partial sums per pair, a Gaussian's pairs side by side,
and the projection adds them up in that order: no two threads share a sum, so the bits do not depend on their number.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numba import njit

from kernels.encoding.spherical_harmonics_numba import fill_sh_basis, sh_basis_gradient
from kernels.gaussians.rasterize_forward_numba import (
    ALPHA_MAX,
    ALPHA_MIN,
    FIXED_FEATURES,
    FRUSTUM_MARGIN,
    LOOK_EVERY,
    TILE,
    TRANSMITTANCE_MIN,
    any_open,
    centre_of,
    falloff,
    tile_range,
)
from kernels.threads import COMPILED, INNER

# dL/d centre x and y, slope, inverse conditional variance, inverse variance of y, opacity, r, g, b; then used planes.
PAIR_FIELDS = 9
LIGHT, BEHIND, RED, GREEN, BLUE, ALPHA, VALUE, WEIGHT = range(8)  # of a row of pixels


@njit(**COMPILED, **INNER)
def feature_of(plane):
    """The feature that a plane of the image sums: the same number, but for alpha, plane 5, which has none."""
    return plane if plane < 5 else plane - 1


@njit(**COMPILED)
def first_pairs(bounds):
    """(N + 1,) int64: the pairs of Gaussian i are firsts[i] : firsts[i + 1], row-major over its tiles."""
    firsts = np.zeros(len(bounds) + 1, dtype=np.int64)
    for i in range(len(bounds)):
        first_row, last_row, first_column, last_column = tile_range(bounds, i)
        firsts[i + 1] = firsts[i] + (last_row - first_row) * (last_column - first_column)
    return firsts


@njit(**COMPILED)
def radii(splats, bounds):
    """(N,) float32: half of the larger side of a footprint's bounding box in pixels; 0 for what is not seen."""
    radius = np.zeros(len(splats), dtype=np.float32)
    for i in range(len(splats)):
        if bounds[i, 1] > 0:
            slope, inverse_conditional, inverse_yy, cut = splats[i, 2], splats[i, 3], splats[i, 4], splats[i, 6]
            yy = 1 / inverse_yy
            radius[i] = sqrt(cut * max(1 / inverse_conditional + slope * slope * yy, yy))
    return radius


# A division that may raise would keep the loop over a row from vectorising: numpy's rules.
@njit(**COMPILED, fastmath={"contract"})
def blend_backward(start, stop, splats, bounds, features, starts, members, firsts, used, image, grad_image, pairs):
    """Fills the rows of ``pairs`` of the tiles [start, stop), front to back like the forward pass.

    With v = dL/d weight of a Gaussian at a pixel, dL/d alpha = T * v - (what the Gaussians behind add to sum(w * v))
    / (1 - alpha); the sum over all of them is known from the image, so one pass over them is enough.

    Planes of the image in ``used`` (z, 1/z, channels) are looked at beside colour and alpha.
    """
    zero, one, two, transmittance_min = np.float32(0), np.float32(1), np.float32(2), np.float32(TRANSMITTANCE_MIN)
    alpha_max, alpha_min, half = np.float32(ALPHA_MAX), np.float32(ALPHA_MIN), np.float32(-0.5)
    height, width, _ = image.shape
    count = len(used)
    tiles_x = (width + TILE - 1) // TILE
    # One array with constant strides: the compiler then sees that no row overlaps another and vectorises the loop.
    state = np.empty((TILE, 8, TILE), dtype=np.float32)
    further = np.empty((TILE, count, TILE), dtype=np.float32)
    sums = np.empty((PAIR_FIELDS + count, TILE), dtype=np.float32)
    for tile in range(start, stop):
        x0, y0 = tile % tiles_x * TILE, tile // tiles_x * TILE
        x1, y1 = min(x0 + TILE, width), min(y0 + TILE, height)
        state[:] = 0
        further[:] = 0
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                shown, gradient = image[y0 + y, x0 + x], grad_image[y0 + y, x0 + x]
                state[y, LIGHT, x] = one
                state[y, RED, x], state[y, GREEN, x], state[y, BLUE, x] = gradient[0], gradient[1], gradient[2]
                state[y, ALPHA, x], state[y, VALUE, x] = gradient[5], gradient[5]
                total = gradient[5] * shown[5]
                for c in range(3):
                    total += gradient[c] * shown[c]
                for c in range(count):
                    further[y, c, x] = gradient[used[c]]
                    total += gradient[used[c]] * shown[used[c]]
                state[y, BEHIND, x] = total
        closed = False
        for slot in range(starts[tile], starts[tile + 1]):
            i = members[slot]
            first_row, _, first_column, last_column = tile_range(bounds, i)
            pair = (tile // tiles_x - first_row) * (last_column - first_column) + tile % tiles_x - first_column
            row = pairs[firsts[i] + pair]
            if closed:
                row[:] = 0
                continue
            sums[:] = 0
            u, v, slope, inverse_conditional, inverse_yy, opacity, cut = splats[i]
            f0, f1, f2 = features[i, 0], features[i, 1], features[i, 2]
            for y in range(max(bounds[i, 2] - y0, 0), min(bounds[i, 3] - y0, TILE)):
                dy = np.float32(y + y0) - v
                power_y = inverse_yy * dy * dy
                if power_y > cut:
                    continue
                middle = u + slope * dy - np.float32(x0)
                for x in range(TILE if count else 0):
                    state[y, VALUE, x] = state[y, ALPHA, x]
                for c in range(count):
                    feature = features[i, feature_of(used[c])]
                    for x in range(TILE):
                        state[y, VALUE, x] += feature * further[y, c, x]
                for x in range(TILE):
                    dx = np.float32(x) - middle
                    fall = falloff(power_y + inverse_conditional * dx * dx)
                    free = opacity * fall
                    alpha = min(alpha_max, free)
                    before = state[y, LIGHT, x]
                    weight = alpha * before if alpha >= alpha_min else zero
                    left = before - weight
                    weight = weight if left >= transmittance_min else zero
                    state[y, LIGHT, x] = left if left >= transmittance_min else zero
                    red, green, blue = state[y, RED, x], state[y, GREEN, x], state[y, BLUE, x]
                    value = state[y, VALUE, x] + f0 * red + f1 * green + f2 * blue
                    rest = state[y, BEHIND, x] - weight * value
                    state[y, BEHIND, x] = rest
                    gradient = before * value - rest / (one - alpha)
                    # A clamped alpha does not follow the Gaussian any more.
                    gradient = gradient if weight > zero else zero
                    gradient = gradient if free < alpha_max else zero
                    power = half * free * gradient
                    sums[0, x] += dx * power
                    sums[1, x] += dy * power
                    sums[2, x] += dy * dx * power
                    sums[3, x] += dx * dx * power
                    sums[4, x] += dy * dy * power
                    sums[5, x] += fall * gradient
                    sums[6, x] += weight * red
                    sums[7, x] += weight * green
                    sums[8, x] += weight * blue
                    state[y, WEIGHT, x] = weight
                for c in range(count):
                    for x in range(TILE):
                        sums[PAIR_FIELDS + c, x] += state[y, WEIGHT, x] * further[y, c, x]
            for c in range(PAIR_FIELDS + count):
                total = zero
                for x in range(TILE):
                    total += sums[c, x]
                row[c] = total
            along, across = row[0], row[1]
            row[0] = -two * inverse_conditional * along
            row[1] = two * (inverse_conditional * slope * along - inverse_yy * across)
            row[2] = -two * inverse_conditional * row[2]
            if (slot - starts[tile]) % LOOK_EVERY == LOOK_EVERY - 1:
                closed = not any_open(state[:, LIGHT], transmittance_min)


@njit(**COMPILED)
def project_backward(
    start, stop, means, covariances, sh, channels, pose, intrinsics, features, firsts, used, pairs, grad_means,
    grad_covariances, grad_opacities, grad_sh, grad_channels, grad_centres,
):  # fmt: skip
    """Writes the gradients of the Gaussians [start, stop) from the sums of their pairs; see ``project``."""
    fx, fy, cx, cy, width, height, _, dilation = intrinsics
    center = centre_of(pose)
    basis, weights = np.empty(sh.shape[1]), np.empty(sh.shape[1])
    margin_x, margin_y = FRUSTUM_MARGIN * 0.5 * width / fx, FRUSTUM_MARGIN * 0.5 * height / fy
    shape, feature = np.empty(6), np.empty(features.shape[1])
    jacobian, grad_jacobian = np.empty((2, 3)), np.empty((2, 3))
    for i in range(start, stop):
        grad_means[i] = 0
        grad_covariances[i] = 0
        grad_opacities[i] = 0
        grad_sh[i] = 0
        grad_channels[i] = 0
        grad_centres[i] = 0
        if firsts[i + 1] == firsts[i]:
            continue
        shape[:] = 0
        feature[:] = 0
        for pair in range(firsts[i], firsts[i + 1]):
            for field in range(6):
                shape[field] += pairs[pair, field]
            for c in range(3):
                feature[c] += pairs[pair, 6 + c]
            for c in range(len(used)):
                feature[feature_of(used[c])] += pairs[pair, PAIR_FIELDS + c]
        grad_centres[i, 0], grad_centres[i, 1] = shape[0], shape[1]
        grad_opacities[i] = shape[5]
        for channel in range(channels.shape[1]):
            grad_channels[i, channel] = feature[FIXED_FEATURES + channel]

        px, py, pz = means[i]
        z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz + pose[2, 3]
        x = (pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz + pose[0, 3]) / z
        y = (pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz + pose[1, 3]) / z
        clamped_x = min(max(x, -cx / fx - margin_x), (width - cx) / fx + margin_x)
        clamped_y = min(max(y, -cy / fy - margin_y), (height - cy) / fy + margin_y)
        for a in range(3):
            jacobian[0, a] = (pose[0, a] - clamped_x * pose[2, a]) * fx / z
            jacobian[1, a] = (pose[1, a] - clamped_y * pose[2, a]) * fy / z
        xx, xy, yy = dilation, 0.0, dilation
        for a in range(3):
            for b in range(3):
                xx += jacobian[0, a] * covariances[i, a, b] * jacobian[0, b]
                xy += jacobian[0, a] * covariances[i, a, b] * jacobian[1, b]
                yy += jacobian[1, a] * covariances[i, a, b] * jacobian[1, b]
        conditional = xx - xy * xy / yy
        grad_xx = -shape[3] / (conditional * conditional)
        grad_xy = -2 * xy / yy * grad_xx + shape[2] / yy
        grad_yy = (xy * xy * grad_xx - shape[2] * xy - shape[4]) / (yy * yy)

        grad_x, grad_y, grad_z = fx * shape[0], fy * shape[1], feature[3] - feature[4] / (z * z)
        for a in range(3):
            along, across = 0.0, 0.0
            for b in range(3):
                symmetric = 0.5 * (covariances[i, a, b] + covariances[i, b, a])
                along += symmetric * jacobian[0, b]
                across += symmetric * jacobian[1, b]
                grad_covariances[i, a, b] = (
                    grad_xx * jacobian[0, a] * jacobian[0, b]
                    + grad_yy * jacobian[1, a] * jacobian[1, b]
                    + 0.5 * grad_xy * (jacobian[0, a] * jacobian[1, b] + jacobian[1, a] * jacobian[0, b])
                )
            grad_jacobian[0, a] = 2 * grad_xx * along + grad_xy * across
            grad_jacobian[1, a] = 2 * grad_yy * across + grad_xy * along
            grad_z -= (grad_jacobian[0, a] * jacobian[0, a] + grad_jacobian[1, a] * jacobian[1, a]) / z
            if clamped_x == x:
                grad_x -= grad_jacobian[0, a] * pose[2, a] * fx / z
            if clamped_y == y:
                grad_y -= grad_jacobian[1, a] * pose[2, a] * fy / z
        grad_z -= (grad_x * x + grad_y * y) / z
        grad_x, grad_y = grad_x / z, grad_y / z

        dx, dy, dz = px - center[0], py - center[1], pz - center[2]
        scale = 1 / sqrt(dx * dx + dy * dy + dz * dz)
        dx, dy, dz = dx * scale, dy * scale, dz * scale
        fill_sh_basis(dx, dy, dz, basis)
        weights[:] = 0
        for channel in range(3):
            if features[i, channel] > 0:
                for k in range(len(basis)):
                    grad_sh[i, k, channel] = basis[k] * feature[channel]
                    weights[k] += sh[i, k, channel] * feature[channel]
        tx, ty, tz = sh_basis_gradient(dx, dy, dz, weights)
        radial = tx * dx + ty * dy + tz * dz
        turn = ((tx - radial * dx) * scale, (ty - radial * dy) * scale, (tz - radial * dz) * scale)
        for a in range(3):
            grad_means[i, a] = pose[0, a] * grad_x + pose[1, a] * grad_y + pose[2, a] * grad_z + turn[a]
