"""What the CPU's fused renderers share: a tile's rays, which take their next samples together and composite their own.

One thread renders a tile of neighbouring pixels, whose samples lie close together and stay in its caches. In each turn
every ray takes a few samples, and the student sees those of the whole tile at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.ray_marching_numba import next_sample
from kernels.threads import COMPILED

TILE = 8  # pixels along a side
BLOCK = 128  # samples of a turn at most
_MOST = 4  # of one ray: those beyond the sample that ends it are for nothing
GRAIN = 16  # tiles in one task
# What a sample of less weight adds to a picture is left black: a thousand of them are less than three grey levels.
_LEAST_WEIGHT = np.float32(1e-5)


def tile_count(rays: int, width: int) -> int:
    """Tiles of a picture."""
    return -(-width // TILE) * -(-(rays // width) // TILE)


@njit(**COMPILED)
def new_tile():
    """Room for a tile's rays under way: index, next bin, samples taken, transmittance."""
    count = TILE * TILE
    return np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.float32)


@njit(**COMPILED)
def new_samples():
    """Room for a turn's samples: place (3, BLOCK) world, t, the tile's ray; then weight and number of the visible."""
    places, shown = np.zeros((3, BLOCK), np.float32), np.empty(BLOCK, np.int64)
    return places, np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32), shown


@njit(**COMPILED)
def new_pixels(features):
    """Room for a tile's pixels: the sums of their samples' features, and the rays of those that show anything."""
    return np.zeros((TILE * TILE, features), np.float32), np.empty(TILE * TILE, np.int64)


@njit(**COMPILED)
def _tile_bounds(number, width, height):
    """First and past-the-last column, then row, of a tile inside the picture."""
    tiles_x = (width + TILE - 1) // TILE
    x0, y0 = number % tiles_x * TILE, number // tiles_x * TILE
    return x0, min(x0 + TILE, width), y0, min(y0 + TILE, height)


@njit(**COMPILED)
def open_tile(number, width, rays, under_way, picture):
    """Blackens a tile's pixels; returns how many of its rays have a way to go."""
    _, _, near, far = rays
    ray_of, bins, taken, light = under_way
    rgb, alpha, distance = picture
    x0, x1, y0, y1 = _tile_bounds(number, width, len(near) // width)
    alive = 0
    for row in range(y0, y1):
        for column in range(x0, x1):
            ray = row * width + column
            rgb[ray, 0] = rgb[ray, 1] = rgb[ray, 2] = alpha[ray] = distance[ray] = np.float32(0)
            if far[ray] > near[ray]:
                ray_of[alive], bins[alive], taken[alive], light[alive] = ray, 0, 0, np.float32(1)
                alive += 1
    return alive


@njit(**COMPILED)
def take_samples(alive, room, rays, grid, step, limit, under_way, samples):
    """The next samples of the rays under way, ``room`` at most; returns their number."""
    origins, directions, near, far = rays
    lower, inverse_size, occupied, coarse = grid
    ray_of, bins, taken, _ = under_way
    places, t, owner, _, _ = samples
    n = 0
    for a in range(alive):
        ray, k = ray_of[a], bins[a]
        for _ in range(min(_MOST, max(1, room // alive), room - n, limit - taken[a])):
            k, at = next_sample(
                ray, k, np.int64(-1), origins, directions, near, far, lower, inverse_size, occupied, coarse, step
            )
            if k < 0:
                break
            for axis in range(3):
                places[axis, n] = origins[ray, axis] + at * directions[ray, axis]
            t[n], owner[n] = at, a
            n += 1
            taken[a] += 1
        bins[a] = k
    return n


@njit(**COMPILED)
def add_densities(n, density, step, termination, under_way, samples, picture):
    """Composites alpha and distance; returns how many samples are visible, whose colours are still to be added."""
    ray_of, _, _, light = under_way
    _, t, owner, weights, shown = samples
    _, alpha, distance = picture
    visible = 0
    for s in range(n):
        a = owner[s]
        if light[a] > termination:
            left = light[a] * np.exp(-density[s] * step)
            weight = light[a] - left
            light[a] = left
            alpha[ray_of[a]] += weight
            distance[ray_of[a]] += weight * t[s]
            if weight > _LEAST_WEIGHT:
                weights[visible], shown[visible] = weight, s
                visible += 1
    return visible


@njit(**COMPILED)
def drop_ended(alive, limit, termination, under_way):
    """Closes ranks over the rays that have left their interval, are opaque or have all their samples."""
    ray_of, bins, taken, light = under_way
    going = 0
    for a in range(alive):
        if bins[a] >= 0 and taken[a] < limit and light[a] > termination:
            ray_of[going], bins[going], taken[going], light[going] = ray_of[a], bins[a], taken[a], light[a]
            going += 1
    return going


@njit(**COMPILED)
def pixel_in_tile(ray, width):
    """Number of a ray's pixel in its tile."""
    return ray // width % TILE * TILE + ray % width % TILE


@njit(**COMPILED)
def seen_pixels(number, width, picture, seen):
    """Puts the rays of a tile's pixels that show anything into ``seen``; returns how many there are."""
    _, alpha, _ = picture
    x0, x1, y0, y1 = _tile_bounds(number, width, len(alpha) // width)
    count = 0
    for row in range(y0, y1):
        for column in range(x0, x1):
            if alpha[row * width + column] > np.float32(0):
                seen[count] = row * width + column
                count += 1
    return count


@njit(**COMPILED)
def load_mean_features(seen, size, width, sums, alpha, basis, target):
    """[features / alpha, direction basis] of the rays ``seen``, in rows of ``size``, a channel each."""
    features = sums.shape[1]
    for i in range(len(seen)):
        ray = seen[i]
        for c in range(features):
            target[c * size + i] = sums[pixel_in_tile(ray, width), c] / alpha[ray]
        for c in range(basis.shape[1]):
            target[(features + c) * size + i] = basis[ray, c]


@njit(**COMPILED)
def store_colors(seen, size, logits, alpha, rgb):
    """Colours of the rays ``seen``, multiplied by alpha, from their logits."""
    for i in range(len(seen)):
        for c in range(3):
            rgb[seen[i], c] = alpha[seen[i]] / (np.float32(1) + np.exp(-logits[c * size + i]))


@njit(**COMPILED)
def even(count):
    """``count`` rounded up to a multiple of 16, a number of columns on which matrix products run best."""
    return (count + 15) // 16 * 16
