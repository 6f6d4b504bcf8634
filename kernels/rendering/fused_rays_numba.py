"""What the CPU's fused renderers share: a tile's rays, which take their next samples together and composite their own.

One thread renders a tile of neighbouring pixels, whose samples lie close together and stay in its caches. In each turn
every ray takes a few samples, and the student sees those of the whole tile at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.encoding.spherical_harmonics_numba import fill_sh_basis
from kernels.marching.ray_marching_numba import LOOK, cell_direction, new_look, next_bins, time_of
from kernels.marching.ray_samples import COARSE, Cells
from kernels.networks.layers_numba import BLOCK, MAX_RAW
from kernels.simd import LANES, exponential, load, minimum, splat, store, trailing_zeros
from kernels.threads import FAST, FIRST, INNER, UNCALLED

TILE = 8  # pixels along a side
_MOST = 4  # of one ray: those beyond the sample that ends it are for nothing
GRAIN = 16  # tiles in one task
# What a sample of less weight adds is left black: a thousand of them are less than a third of a grey level.
_LEAST_WEIGHT = np.float32(1e-6)
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_NONE, _BIT = np.uint64(0), np.uint64(1)


def tile_count(rays: int, width: int) -> int:
    """Tiles of a picture."""
    return -(-width // TILE) * -(-(rays // width) // TILE)


def way_of(cells: Cells, march: tuple[float, int, float]) -> tuple:
    """A kernel's arguments for the occupied cells, and step, limit and termination."""
    lower, inverse_size, (step, limit, termination) = (
        np.array(cells.lower, np.float32),
        np.float32(1 / cells.size),
        march,
    )
    return lower, inverse_size, cells.blocks, cells.empty_blocks, np.float32(step), limit, np.float32(termination)


@njit(**FAST, **UNCALLED)
def new_tile(channels):
    """Room for a tile: its rays and their way, and sums of ``channels`` channels.

    going: rays under way; ray: numbers; way (9, rays): origin, direction and its inverse in cells; reach (2, rays):
    near, far; bins: first of those looked at, or the next to look at where none of these is left, a bit for each left,
    room for a look; taken, light: samples taken, transmittance; sums: flat.
    """
    count = TILE * TILE
    way, reach = np.empty((9, count), np.float32), np.empty((2, count), np.float32)
    bins = np.empty(count, np.int64), np.empty(count, np.uint64), new_look()
    taken, light = np.empty(count, np.int64), np.empty(count, np.float32)
    sums = np.zeros(count * channels + LANES, np.float32)
    return np.empty(count, np.int64), np.empty(count, np.int64), way, reach, bins, taken, light, sums


@njit(**FAST, **UNCALLED)
def new_samples():
    """Room for a turn's samples: t, the tile's ray, density; then weight and number of the visible."""
    t, owner, density = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32)
    return t, owner, density, np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int64)


@njit(**FAST, **INNER)
def open_tile(number, width, rays, grid, step, tile, picture):
    """Blackens a tile's pixels; how many rays cross the box, 0 if all miss the scene, and how many have a way to go.

    Each of the latter is at the first bin that is worth a look.
    """
    origins, directions, near, far = rays
    lower, inverse_size, _, empty = grid
    going, ray_of, way, reach, (bins, ahead, _), taken, light, sums = tile
    rgb, alpha, distance = picture
    tiles_x, height = (width + TILE - 1) // TILE, len(near) // width
    x0, y0 = number % tiles_x * TILE, number // tiles_x * TILE
    alive = FIRST
    for row in range(y0, min(y0 + TILE, height)):
        for ray in range(row * width + x0, row * width + min(x0 + TILE, width)):
            rgb[ray, 0] = rgb[ray, 1] = rgb[ray, 2] = alpha[ray] = distance[ray] = _ZERO
            if far[ray] > near[ray]:
                for axis in range(3):
                    way[axis, alive] = (origins[ray, axis] - lower[axis]) * inverse_size
                    way[3 + axis, alive], way[6 + axis, alive] = cell_direction(directions[ray, axis], inverse_size)
                reach[0, alive], reach[1, alive] = near[ray], far[ray]
                ray_of[alive] = ray
                alive += 1
    begin, going_on = _empty_until(alive, way, reach, empty, step), 0
    for r in range(alive):
        if begin < reach[1, r]:
            first = np.int64((begin - reach[0, r]) / step - _HALF)
            going[going_on], bins[r], ahead[r], taken[r], light[r] = r, max(first, 0), _NONE, 0, _ONE
            going_on += 1
    if going_on == 0:
        return 0, 0
    sums[:] = _ZERO
    return alive, going_on


@njit(**FAST, **INNER)
def _empty_until(count, way, reach, empty, step):
    """Distance along a tile's rays up to which all of them are in empty space: they leap together.

    Their middle one goes from block to block; the others keep within a growing distance of it.
    """
    if count == 0:
        return _ZERO
    middle, begin, end = count // 2, reach[0, 0], reach[1, 0]
    off = spread = _ZERO
    for r in range(count):
        begin, end = min(begin, reach[0, r]), max(end, reach[1, r])
        for axis in range(3):
            off = max(off, abs(way[axis, r] - way[axis, middle]))
            spread = max(spread, abs(way[3 + axis, r] - way[3 + axis, middle]))
    fastest = max(abs(way[3, middle]), abs(way[4, middle]), abs(way[5, middle]))
    t = begin
    while t < end:
        # Cells between the middle ray and the faces of the empty blocks around it, less what the others are off it.
        x, block = way[0, middle] + t * way[3, middle], _block(way[0, middle] + t * way[3, middle], empty.shape[0])
        y, row = way[1, middle] + t * way[4, middle], _block(way[1, middle] + t * way[4, middle], empty.shape[1])
        z, layer = way[2, middle] + t * way[5, middle], _block(way[2, middle] + t * way[5, middle], empty.shape[2])
        around = np.int64(empty[block, row, layer])
        if around == 0:
            break
        spare = min(_to_face(x, block, around), min(_to_face(y, row, around), _to_face(z, layer, around)))
        leap = (spare - off - t * spread) / (fastest + spread)
        if leap < step:
            break
        t += leap
    return t


@njit(**FAST, **INNER)
def _block(x, count):
    """The coarse cell, of ``count`` along an axis, nearest to a place in cells."""
    return min(max(np.int64(np.floor(x)) // COARSE, 0), count - 1)


@njit(**FAST, **INNER)
def _to_face(x, block, around):
    """Cells from ``x`` to the nearer face, on one axis, of a cube of coarse cells; less than nothing outside it."""
    lower = np.float32((block + 1 - around) * COARSE)
    return min(x - lower, lower + np.float32((2 * around - 1) * COARSE) - x)


@njit(**FAST, **INNER)
def take_samples(alive, room, grid, step, limit, tile, samples):
    """The next samples of the rays under way, ``room`` at most; returns their number."""
    _, _, blocks, empty = grid
    going, _, way, reach, (bins, ahead, look), taken, _, _ = tile
    t, owner = samples[0], samples[1]
    n, most, steps = 0, min(_MOST, max(1, room // alive)), _ONE / step
    for a in range(alive):
        r = going[a]
        k, bits = bins[r], ahead[r]
        for _ in range(min(most, room - n, limit - taken[r])):
            if bits == _NONE:
                k, bits = next_bins(
                    k, _HALF, reach[0, r], reach[1, r], way[0, r], way[1, r], way[2, r], way[3, r], way[4, r],
                    way[5, r], way[6, r], way[7, r], way[8, r], blocks, empty, step, steps, look,
                )  # fmt: skip
                if bits == _NONE:
                    k = -1
                    break
            t[n], owner[n] = time_of(k + trailing_zeros(bits), _HALF, reach[0, r], step), r
            bits &= bits - _BIT
            k += LOOK if bits == _NONE else 0
            n += 1
            taken[r] += 1
        bins[r], ahead[r] = k, bits
    return n


@njit(**FAST, **INNER)
def place_samples(n, rays, tile, samples, corner, scale, places):
    """Writes the samples' places, measured from a corner in units of 1 / scale, to ``places`` (3, n and more)."""
    origins, directions, _, _ = rays
    t, owner, ray_of = samples[0], samples[1], tile[1]
    for s in range(n):
        ray = ray_of[owner[s]]
        for axis in range(3):
            places[axis, s] = (origins[ray, axis] + t[s] * directions[ray, axis] - corner[axis]) * scale[axis]


@njit(**FAST, **INNER)
def load_densities(n, raw, width, density):
    """Densities of samples from the first of each row of a density network's output."""
    for s in range(n):
        density[s] = raw[s * width]
    most = splat(MAX_RAW, LANES)
    for s in range(0, n, LANES):
        store(density, s, exponential(minimum(most, load(density, s, LANES))))


@njit(**FAST, **INNER)
def add_densities(n, step, termination, tile, samples, picture):
    """Composites alpha and distance; returns how many samples are visible, whose colours are still to be added."""
    _, ray_of, _, _, _, _, light, _ = tile
    t, owner, density, weights, shown = samples
    _, alpha, distance = picture
    visible = 0
    for s in range(0, n, LANES):  # what a sample lets through, where the weights of those before it will be
        store(weights, s, exponential(load(density, s, LANES) * splat(-step, LANES)))
    for s in range(n):
        r = owner[s]
        if light[r] > termination:
            left = light[r] * weights[s]
            weight = light[r] - left
            light[r] = left
            alpha[ray_of[r]] += weight
            distance[ray_of[r]] += weight * t[s]
            if weight > _LEAST_WEIGHT:
                weights[visible], shown[visible] = weight, s
                visible += 1
    return visible


@njit(**FAST, **INNER)
def drop_ended(alive, limit, termination, tile):
    """Closes ranks over the rays that have left their interval, are opaque or have all their samples."""
    going, _, _, _, (bins, _, _), taken, light, _ = tile
    left = 0
    for a in range(alive):
        r = going[a]
        if bins[r] >= 0 and taken[r] < limit and light[r] > termination:
            going[left] = r
            left += 1
    return left


@njit(**FAST, **INNER)
def add_rows(factor, rows, source, sums, target, width):
    """Adds ``factor`` times ``width`` (a multiple of ``LANES``) values of ``rows`` to those of ``sums``."""
    for c in range(0, width, LANES):
        value = load(sums, target + c, LANES) + splat(factor, LANES) * load(rows, source + c, LANES)
        store(sums, target + c, value)


@njit(**FAST, **INNER)
def fill_bases(count, chosen, directions, width, tile, bases):
    """Direction bases of a tile's first ``count`` rays ``chosen``, ``width`` values and zeros in the row of each."""
    ray_of = tile[1]
    for i in range(count):
        r = chosen[i]
        ray = ray_of[r]
        fill_sh_basis(directions[ray, 0], directions[ray, 1], directions[ray, 2], bases[r, :width])


@njit(**FAST, **INNER)
def load_color_inputs(count, shown, row_of, source, width, geometry, bases, inputs, stride):
    """[geometry features, direction basis] in rows ``stride`` apart.

    Features follow the first channel of row ``shown[i]`` of ``source``, ``width`` wide; the basis is ``row_of``'s.
    Whole vectors are copied, the next row over their ends: ``source`` and ``inputs`` have room for ``LANES`` more.
    """
    _, basis_width = bases.shape
    flat = bases.reshape(-1)
    for i in range(count):
        feature, target, basis = shown[i] * width + 1, i * stride, row_of[i] * basis_width
        for c in range(0, geometry, LANES):
            store(inputs, target + c, load(source, feature + c, LANES))
        for c in range(0, basis_width, LANES):
            store(inputs, target + geometry + c, load(flat, basis + c, LANES))


@njit(**FAST, **INNER)
def add_colors(visible, logits, width, tile, samples, picture):
    """Adds the visible samples' colours, from rows of logits, to their pixels."""
    ray_of, owner, weights, shown, rgb = tile[1], samples[1], samples[3], samples[4], picture[0]
    for v in range(visible):
        ray = ray_of[owner[shown[v]]]
        for c in range(3):
            rgb[ray, c] += weights[v] / (_ONE + np.exp(-logits[v * width + c]))


@njit(**FAST, **INNER)
def mean_features(count, width, tile, picture, seen):
    """Turns sums of features into means; puts those of the first ``count`` rays that show anything into ``seen``."""
    ray_of, sums, alpha = tile[1], tile[7], picture[1]
    found = 0
    for r in range(count):
        opacity = alpha[ray_of[r]]
        if opacity > _ZERO:
            for c in range(r * width, (r + 1) * width):
                sums[c] /= opacity
            seen[found] = r
            found += 1
    return found


@njit(**FAST, **INNER)
def store_colors(seen, logits, width, tile, picture):
    """Colours of the rays ``seen``, multiplied by alpha, from rows of logits, which are overwritten."""
    rgb, alpha, _ = picture
    zero, one = splat(_ZERO, LANES), splat(_ONE, LANES)
    for i in range(0, len(seen) * width, LANES):
        store(logits, i, one / (one + exponential(zero - load(logits, i, LANES))))
    for i in range(len(seen)):
        ray = tile[1][seen[i]]
        for c in range(3):
            rgb[ray, c] = alpha[ray] * logits[i * width + c]
