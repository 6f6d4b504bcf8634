"""The hash-grid student on the CPU, from rays to a picture."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.fused_rays_numba import (
    BLOCK,
    GRAIN,
    add_densities,
    drop_ended,
    even,
    load_mean_features,
    new_pixels,
    new_samples,
    new_tile,
    open_tile,
    pixel_in_tile,
    seen_pixels,
    store_colors,
    take_samples,
    tile_count,
)
from kernels.hash_encoding_numba import encode
from kernels.radiance_mlp_numba import MAX_RAW, block_of, flatten, run_layers
from kernels.threads import FAST, parallel_for


def render(rays, basis, width, grid, march, field, picture) -> None:
    """Fills ``picture``; see ``kernels.fused_render.render_fused``."""
    flat, dims = flatten([*field.density_weights, *field.color_weights])
    lower, upper = field.box.numpy()
    to_unit = np.append(lower, 1 / (upper - lower).max()).astype(np.float32)
    layout = field.layout
    levels = layout.offsets, layout.resolutions, layout.scales, layout.hashed
    parallel_for(
        _render, tile_count(len(basis), width), *rays, basis, width, *grid, *march, to_unit, field.table, *levels,
        flat, dims, len(field.density_weights), min(BLOCK, block_of(dims)), field.deferred, *picture, grain=GRAIN,
    )  # fmt: skip


@njit(**FAST)
def _render(
    start, stop, origins, directions, near, far, basis, width, lower, inverse_size, occupied, coarse, step, limit,
    termination, to_unit, table, offsets, resolutions, scales, hashed, flat, dims, density_layers, room,
    deferred, rgb, alpha, distance,
):  # fmt: skip
    rays, grid = (origins, directions, near, far), (lower, inverse_size, occupied, coarse)
    picture, under_way, samples = (rgb, alpha, distance), new_tile(), new_samples()
    places, _, owner, weights, shown = samples
    ray_of = under_way[0]
    layers, geometry, one = len(dims), dims[density_layers - 1, 0] - 1, np.float32(1)
    color_weights = (dims[:density_layers, 0] * dims[:density_layers, 1]).sum()
    activations = np.zeros((layers + 1, dims.max() * BLOCK), np.float32)
    raw, density = activations[density_layers], np.empty(BLOCK, np.float32)
    x, channels = np.empty((3, BLOCK), np.float32), len(scales) * table.shape[1]
    sums, seen = new_pixels(geometry)
    for tile in range(start, stop):
        sums[:] = np.float32(0)
        alive = open_tile(tile, width, rays, under_way, picture)
        while alive > 0:
            n = take_samples(alive, room, rays, grid, step, limit, under_way, samples)
            if n == 0:
                break
            size = even(n)
            for axis in range(3):
                for s in range(n):
                    x[axis, s] = (places[axis, s] - to_unit[axis]) * to_unit[3]
            encoding = activations[0, : channels * size].reshape((channels, size))
            encode(0, n, x, table, offsets, resolutions, scales, hashed, encoding)
            run_layers(flat, dims, 0, density_layers, 0, size, activations)
            for s in range(n):
                density[s] = np.exp(min(raw[s], MAX_RAW))
            visible = add_densities(n, density, step, termination, under_way, samples, picture)
            if deferred:
                for v in range(visible):
                    pixel = sums[pixel_in_tile(ray_of[owner[shown[v]]], width)]
                    for c in range(geometry):
                        pixel[c] += weights[v] * raw[(1 + c) * size + shown[v]]
            elif visible > 0:
                # The visible samples' [geometry, direction] replaces the density network's output, from the front.
                few = even(visible)
                for c in range(geometry):
                    for v in range(visible):
                        raw[c * few + v] = raw[(1 + c) * size + shown[v]]
                for c in range(basis.shape[1]):
                    for v in range(visible):
                        raw[(geometry + c) * few + v] = basis[ray_of[owner[shown[v]]], c]
                run_layers(flat, dims, density_layers, layers, color_weights, few, activations)
                for c in range(3):
                    for v in range(visible):
                        value = one / (one + np.exp(-activations[layers, c * few + v]))
                        rgb[ray_of[owner[shown[v]]], c] += weights[v] * value
            alive = drop_ended(alive, limit, termination, under_way)
        count = seen_pixels(tile, width, picture, seen) if deferred else 0
        for first in range(0, count, room):
            part = seen[first : min(first + room, count)]
            few = even(len(part))
            load_mean_features(part, few, width, sums, alpha, basis, raw)
            run_layers(flat, dims, density_layers, layers, color_weights, few, activations)
            store_colors(part, few, activations[layers], alpha, rgb)
