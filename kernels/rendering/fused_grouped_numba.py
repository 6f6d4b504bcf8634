"""The KiloUniform student on the CPU, from rays to a picture: the cells a tile looks into take turns."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.networks.cell_routing_numba import count_evaluations, fill_evaluations
from kernels.networks.grouped_inputs_numba import encode
from kernels.networks.grouped_layout import LEAK
from kernels.networks.layers_numba import BLOCK, Networks, density_of, pack, run_network
from kernels.products_numba import padded
from kernels.rendering.fused_rays_numba import (
    GRAIN,
    TILE,
    add_densities,
    add_rows,
    drop_ended,
    fill_bases,
    load_color_inputs,
    mean_features,
    new_samples,
    new_tile,
    open_tile,
    place_samples,
    store_colors,
    take_samples,
    tile_count,
    way_of,
)
from kernels.simd import LANES, load, store
from kernels.threads import FAST, INNER, UNCALLED, parallel_for

_LEAK, _ZERO, _ONE = np.float32(LEAK), np.float32(0), np.float32(1)


class Prepared:
    """A field as the kernel wants it; see ``kernels.rendering.fused_render.FusedRenderer``. Networks are float32."""

    def __init__(self, field, precision) -> None:
        layout = field.layout
        density = _pack(field.density_parameters, layout.density_dims, 1)
        color = _pack(field.color_parameters, layout.color_dims, 0)
        cells = np.array(field.grid, dtype=np.int64)
        scale = torch.from_numpy(cells.astype(np.float32)) / (field.box[1] - field.box[0])
        widest = BLOCK * max(density.width, color.width, padded(layout.position_width + layout.harmonics))
        self._arguments = (
            field.box[0], scale, cells, np.float32(field.blend), np.float32(field.least_density), *density, *color,
            layout.frequencies, widest, layout.geo_features, layout.direction_width,
            padded(layout.geo_features + layout.direction_width), field.deferred, layout.harmonics,
        )  # fmt: skip

    def render(self, rays, width, cells, march, picture) -> None:
        """Fills ``picture``."""
        tiles, way = tile_count(len(rays[0]), width), way_of(cells, march)
        parallel_for(_render, tiles, *rays, width, *way, *self._arguments, *picture, grain=GRAIN)


def _pack(parameters: Tensor, dims: np.ndarray, rolled: int) -> Networks:
    """The networks of all cells; the last layer's outputs are moved up, so that the density comes before features."""
    layers = parameters.split(dims.prod(axis=1).tolist(), dim=1)
    layers = [layer.unflatten(1, shape) for layer, shape in zip(layers, dims.tolist(), strict=True)]
    return pack([*layers[:-1], layers[-1].roll(rolled, 2)], biased=True)


@njit(**FAST, **INNER)
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
    start, stop, origins, directions, near, far, width, lower, inverse_size, blocks, empty, step, limit, termination,
    corner, scale, cells, blend, least_density, density_networks, density_dims, color_networks, color_dims, frequencies,
    widest, geometry, basis, stride, deferred, harmonics, rgb, alpha, distance,
):  # fmt: skip
    rays, grid, picture = (
        (origins, directions, near, far),
        (lower, inverse_size, blocks, empty),
        (rgb, alpha, distance),
    )
    raw_width, most = density_dims[-1, 2], BLOCK * (8 if blend > 0 else 1)
    tile, samples = new_tile(raw_width), new_samples()
    ray_of, sums, bases = tile[1], tile[7], np.zeros((TILE * TILE, -(-basis // LANES) * LANES), np.float32)
    _, owner, density, weights, shown = samples
    places, world, unit = np.zeros((3, BLOCK), np.float32), np.zeros(3, np.float32), np.ones(3, np.float32)
    positions = places.T
    # Of an evaluation of a sample by a cell: where, by which, for which and how much; what the density network says.
    local, cell, share = np.empty((most, 3), np.float32), np.empty(most, np.int64), np.empty(most, np.float32)
    point, order, ends = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    inside, last_of = np.zeros(most * raw_width + LANES, np.float32), np.empty(BLOCK, np.int64)
    columns, activations = np.zeros(widest, np.float32), np.zeros((2, widest + LANES), np.float32)
    inputs, seen = np.zeros(BLOCK * stride + LANES, np.float32), np.empty(TILE * TILE, np.int64)
    color, position_width = np.empty((BLOCK, 3), np.float32), 3 + 6 * frequencies
    for number in range(start, stop):
        opened, alive = open_tile(number, width, rays, grid, step, tile, picture)
        if not deferred or harmonics > 0:
            fill_bases(alive, tile[0], directions, basis, tile, bases)
        while alive > 0:
            n = take_samples(alive, BLOCK, grid, step, limit, tile, samples)
            if n == 0:
                break
            place_samples(n, rays, tile, samples, world, unit, places)
            count_evaluations(0, n, positions, corner, scale, cells, blend, last_of)
            for s in range(1, n):
                last_of[s] += last_of[s - 1]
            fill_evaluations(0, n, positions, corner, scale, cells, blend, last_of, local, cell, point, share)
            groups = _sort_by_cell(cell, last_of[n - 1], order, ends)
            density[:n] = _ZERO
            for group in range(groups):
                for first in range(ends[group - 1] if group > 0 else 0, ends[group], BLOCK):
                    size = min(ends[group] - first, BLOCK)
                    encode(local, order, first, size, frequencies, columns)
                    for i in range(size if harmonics > 0 else 0):
                        direction = bases[owner[point[order[first + i]]]]
                        for c in range(harmonics):  # behind the encoding, without the constant
                            columns[(position_width + c) * size + i] = direction[1 + c]
                    network = density_networks[cell[order[first]]]
                    raw = run_network(size, columns, 1, size, network, density_dims, True, _LEAK, activations)
                    for i in range(size):
                        e = order[first + i]
                        share[e] *= density_of(raw[i * raw_width])
                        density[point[e]] += share[e]
                        for c in range(0, raw_width, LANES):
                            store(inside, e * raw_width + c, load(raw, i * raw_width + c, LANES))
            visible = add_densities(n, step, termination, tile, samples, picture)
            if deferred:
                for v in range(visible):
                    s = shown[v]
                    factor = weights[v] / max(density[s], least_density)
                    for e in range(last_of[s - 1] if s > 0 else 0, last_of[s]):
                        add_rows(factor * share[e], inside, e * raw_width, sums, owner[s] * raw_width, raw_width)
            elif visible > 0:
                for v in range(visible):
                    color[v] = _ZERO
                _mix_colors(
                    visible, n, groups, order, ends, cell, point, share, inside, raw_width, geometry, owner, shown,
                    bases, color_networks, color_dims, inputs, stride, seen, last_of, activations, color,
                )  # fmt: skip
                for v in range(visible):
                    s = shown[v]
                    factor = weights[v] / max(density[s], least_density)
                    for c in range(3):
                        rgb[ray_of[owner[s]], c] += factor * color[v, c]
            alive = drop_ended(alive, limit, termination, tile)
        if deferred:
            count = mean_features(opened, raw_width, tile, picture, seen)
            fill_bases(count, seen, directions, basis, tile, bases)
            load_color_inputs(count, seen, seen, sums, raw_width, geometry, bases, inputs, stride)
            logits = run_network(count, inputs, stride, 1, color_networks[0], color_dims, True, _LEAK, activations)
            store_colors(seen[:count], logits, color_dims[-1, 2], tile, picture)


@njit(**FAST, **UNCALLED)
def _mix_colors(
    visible, n, groups, order, ends, cell, point, share, inside, raw_width, geometry, owner, shown, bases,
    color_networks, color_dims, inputs, stride, rays, seen_as, activations, color,
):  # fmt: skip
    """Adds the colours that cells give visible samples to ``color``, by their share in the density.

    ``rays`` and ``seen_as`` are room: the group's rays, and which visible sample a sample is.
    """
    width = color_dims[-1, 2]
    seen_as[:n] = -1
    for v in range(visible):
        seen_as[shown[v]] = v
    for group in range(groups):
        begin = ends[group - 1] if group > 0 else 0
        kept = begin
        for i in range(begin, ends[group]):
            if seen_as[point[order[i]]] >= 0:
                order[kept] = order[i]
                kept += 1
        for first in range(begin, kept, BLOCK):
            size = min(kept - first, BLOCK)
            for i in range(size):
                rays[i] = owner[point[order[first + i]]]
            part = order[first : first + size]
            load_color_inputs(size, part, rays, inside, raw_width, geometry, bases, inputs, stride)
            network = color_networks[cell[order[first]]]
            logits = run_network(size, inputs, stride, 1, network, color_dims, True, _LEAK, activations)
            for i in range(size):
                e = order[first + i]
                for c in range(3):
                    color[seen_as[point[e]], c] += share[e] / (_ONE + np.exp(-logits[i * width + c]))
