"""The KiloUniform student on the CPU, from rays to a picture: the cells a tile looks into take turns."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.cell_routing_numba import count_evaluations, fill_evaluations
from kernels.fused_rays_numba import (
    BLOCK,
    GRAIN,
    add_densities,
    drop_ended,
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
from kernels.grouped_mlp_numba import MAX_RAW, block_of, encode, run_layers
from kernels.threads import FAST, parallel_for


def render(rays, basis, width, grid, march, field, picture) -> None:
    """Fills ``picture``; see ``kernels.fused_render.render_fused``."""
    layout = field.layout
    dims = np.concatenate([layout.density_dims, layout.color_dims])
    cells = np.array(field.grid, dtype=np.int64)
    scale = torch.from_numpy(cells.astype(np.float32)) / (field.box[1] - field.box[0])
    parallel_for(
        _render, tile_count(len(basis), width), *rays, basis, width, *grid, *march, field.box[0], scale, cells,
        np.float32(field.blend), np.float32(field.least_density), field.density_parameters, field.color_parameters,
        dims, len(layout.density_dims), layout.frequencies, min(BLOCK, block_of(dims)), field.deferred, *picture,
        grain=GRAIN,
    )  # fmt: skip


@njit(**FAST)
def _sort_by_cell(cell, count, order, ends):
    """Groups evaluations by cell in ``order``; returns the number of groups, whose ends are in ``ends``."""
    placed, groups = 0, 0
    for i in range(count):
        order[i] = i
    while placed < count:
        wanted, last = cell[order[placed]], placed
        for i in range(placed, count):
            if cell[order[i]] == wanted:
                order[i], order[last] = order[last], order[i]
                last += 1
        placed = last
        ends[groups] = last
        groups += 1
    return groups


@njit(**FAST)
def _render(
    start, stop, origins, directions, near, far, basis, width, lower, inverse_size, occupied, coarse, step, limit,
    termination, corner, scale, cells, blend, least_density, density_parameters, color_parameters, dims, density_layers,
    frequencies, block, deferred, rgb, alpha, distance,
):  # fmt: skip
    rays, grid = (origins, directions, near, far), (lower, inverse_size, occupied, coarse)
    picture, under_way, samples = (rgb, alpha, distance), new_tile(), new_samples()
    places, _, owner, weights, shown = samples
    positions, ray_of = places.T, under_way[0]
    layers, geometry = len(dims), dims[density_layers - 1, 1] - 1
    most = BLOCK * (8 if blend > 0 else 1)
    # Of an evaluation of a sample by a cell: where, by which, for which and how much; what the density network says.
    local, cell, share = np.empty((most, 3), np.float32), np.empty(most, np.int64), np.empty(most, np.float32)
    point, order, ends = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    inside = np.empty((most, geometry), np.float32)
    last_of, density, color = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32), np.empty((BLOCK, 3), np.float32)
    activations = np.empty((layers + 1, dims.max() * BLOCK), np.float32)
    sums, seen = new_pixels(geometry)
    for tile in range(start, stop):
        sums[:] = np.float32(0)
        alive = open_tile(tile, width, rays, under_way, picture)
        while alive > 0:
            n = take_samples(alive, BLOCK, rays, grid, step, limit, under_way, samples)
            if n == 0:
                break
            count_evaluations(0, n, positions, corner, scale, cells, blend, last_of)
            for s in range(1, n):
                last_of[s] += last_of[s - 1]
            fill_evaluations(0, n, positions, corner, scale, cells, blend, last_of, local, cell, point, share)
            groups = _sort_by_cell(cell, last_of[n - 1], order, ends)
            density[:n] = np.float32(0)
            for group in range(groups):
                begin = ends[group - 1] if group > 0 else 0
                for first in range(begin, ends[group], block):
                    size = min(ends[group] - first, block)
                    encode(local, order, first, size, frequencies, activations[0])
                    run_layers(density_parameters[cell[order[first]]], dims, 0, density_layers, size, activations)
                    out = activations[density_layers]
                    for i in range(size):
                        e = order[first + i]
                        share[e] *= np.exp(min(out[geometry * size + i], MAX_RAW))
                        density[point[e]] += share[e]
                        for c in range(geometry):
                            inside[e, c] = out[c * size + i]
            visible = add_densities(n, density, step, termination, under_way, samples, picture)
            if deferred:
                _add_features(
                    visible, last_of, share, inside, density, least_density, ray_of, owner, weights, shown, width, sums
                )
            elif visible > 0:
                _add_colors(
                    visible, n, groups, order, ends, cell, point, share, inside, density, least_density, basis,
                    color_parameters, dims, density_layers, block, ray_of, owner, weights, shown, color, last_of,
                    activations, rgb,
                )  # fmt: skip
            alive = drop_ended(alive, limit, termination, under_way)
        count = seen_pixels(tile, width, picture, seen) if deferred else 0
        for first in range(0, count, block):
            part = seen[first : min(first + block, count)]
            few = len(part)
            load_mean_features(part, few, width, sums, alpha, basis, activations[density_layers])
            run_layers(color_parameters[0], dims, density_layers, layers, few, activations)
            store_colors(part, few, activations[layers], alpha, rgb)


@njit(**FAST)
def _add_features(
    visible, last_of, share, inside, density, least_density, ray_of, owner, weights, shown, width, sums
):  # fmt: skip
    """Adds the features of visible samples, mixtures by density of their evaluations', to the rays' sums."""
    for v in range(visible):
        s = shown[v]
        pixel, factor = sums[pixel_in_tile(ray_of[owner[s]], width)], weights[v] / max(density[s], least_density)
        for e in range(last_of[s - 1] if s > 0 else 0, last_of[s]):
            for c in range(len(pixel)):
                pixel[c] += factor * share[e] * inside[e, c]


@njit(**FAST)
def _add_colors(
    visible, n, groups, order, ends, cell, point, share, inside, density, least_density, basis, color_parameters, dims,
    density_layers, block, ray_of, owner, weights, shown, color, seen_as, activations, rgb,
):  # fmt: skip
    """Runs the colour networks for the evaluations of visible samples, mixes by density, adds to the rays."""
    layers, geometry, one = len(dims), inside.shape[1], np.float32(1)
    seen_as[:n] = -1
    for v in range(visible):
        seen_as[shown[v]] = v
        color[v] = np.float32(0)
    for group in range(groups):
        begin = ends[group - 1] if group > 0 else 0
        kept = begin
        for i in range(begin, ends[group]):
            if seen_as[point[order[i]]] >= 0:
                order[kept] = order[i]
                kept += 1
        for first in range(begin, kept, block):
            size = min(kept - first, block)
            inputs, out = activations[density_layers], activations[layers]
            for i in range(size):
                e = order[first + i]
                for c in range(geometry):
                    inputs[c * size + i] = inside[e, c]
                direction = basis[ray_of[owner[point[e]]]]
                for c in range(len(direction)):
                    inputs[(geometry + c) * size + i] = direction[c]
            run_layers(color_parameters[cell[order[first]]], dims, density_layers, layers, size, activations)
            for i in range(size):
                e = order[first + i]
                for c in range(3):
                    color[seen_as[point[e]], c] += share[e] / (one + np.exp(-out[c * size + i]))
    for v in range(visible):
        factor = weights[v] / max(density[shown[v]], least_density)
        for c in range(3):
            rgb[ray_of[owner[shown[v]]], c] += factor * color[v, c]
