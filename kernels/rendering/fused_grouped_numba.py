"""The KiloUniform student on the CPU, from rays to a picture: the cells a tile looks into take turns."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.networks.cell_routing_numba import fill_cells
from kernels.networks.grouped_inputs_numba import encode
from kernels.networks.grouped_layout import LEAK
from kernels.networks.layers_numba import BLOCK, Networks, pack, run_network
from kernels.products_numba import NEIGHBOURS, padded
from kernels.rendering.fused_rays_numba import (
    GRAIN,
    TILE,
    add_densities,
    add_rows,
    drop_ended,
    fill_bases,
    load_color_inputs,
    load_densities,
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
            field.box[0], scale, cells, *density, *color, layout.frequencies, widest, layout.geo_features,
            layout.direction_width, padded(layout.geo_features + layout.direction_width), field.deferred,
            layout.harmonics,
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
    """Groups samples by cell in ``order``; returns the number of groups, whose ends are in ``ends``."""
    placed, groups = 0, 0
    for s in range(count):
        order[s] = s
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
    corner, scale, cells, density_networks, density_dims, color_networks, color_dims, frequencies, widest, geometry,
    basis, stride, deferred, harmonics, rgb, alpha, distance,
):  # fmt: skip
    rays, grid, picture = (
        (origins, directions, near, far),
        (lower, inverse_size, blocks, empty),
        (rgb, alpha, distance),
    )
    raw_width = density_dims[-1, 2]
    tile, samples = new_tile(raw_width), new_samples()
    sums, bases = tile[7], np.zeros((TILE * TILE, -(-basis // LANES) * LANES), np.float32)
    _, owner, density, weights, shown = samples
    places, world, unit = np.zeros((3, BLOCK), np.float32), np.zeros(3, np.float32), np.ones(3, np.float32)
    positions = places.T
    # Of a sample: where it is in which cell, and what the cell's density network says; samples by cell.
    local, cell = np.empty((BLOCK, 3), np.float32), np.empty(BLOCK, np.int64)
    inside, order = np.zeros(BLOCK * raw_width + LANES, np.float32), np.empty(BLOCK, np.int64)
    ends, share = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32)
    columns, activations = np.zeros(widest, np.float32), np.zeros((2, widest + LANES), np.float32)
    inputs, seen = np.zeros(BLOCK * stride + LANES, np.float32), np.empty(BLOCK, np.int64)
    position_width = 3 + 6 * frequencies
    for number in range(start, stop):
        opened, alive = open_tile(number, width, rays, grid, step, tile, picture)
        if not deferred or harmonics > 0:
            fill_bases(alive, tile[0], directions, basis, tile, bases)
        while alive > 0:
            n = take_samples(alive, BLOCK, grid, step, limit, tile, samples)
            if n == 0:
                break
            place_samples(n, rays, tile, samples, world, unit, places)
            fill_cells(0, n, positions, corner, scale, cells, local, cell)
            groups, first = _sort_by_cell(cell, n, order, ends), 0
            for group in range(groups):
                size = ends[group] - first
                encode(local, order, first, size, frequencies, columns)
                for i in range(size if harmonics > 0 else 0):
                    direction = bases[owner[order[first + i]]]
                    for c in range(harmonics):  # behind the encoding, without the constant
                        columns[(position_width + c) * size + i] = direction[1 + c]
                network = density_networks[cell[order[first]]]
                raw = run_network(size, columns, NEIGHBOURS, size, network, density_dims, True, _LEAK, activations)
                for i in range(size):
                    for c in range(0, raw_width, LANES):
                        store(inside, order[first + i] * raw_width + c, load(raw, i * raw_width + c, LANES))
                first = ends[group]
            load_densities(n, inside, raw_width, density)
            visible = add_densities(n, step, termination, tile, samples, picture)
            if deferred:
                for v in range(visible):
                    add_rows(weights[v], inside, shown[v] * raw_width, sums, owner[shown[v]] * raw_width, raw_width)
            elif visible > 0:
                _add_colors(
                    visible, n, groups, order, ends, cell, inside, raw_width, geometry, bases, color_networks,
                    color_dims, inputs, stride, seen, share, activations, tile, samples, rgb,
                )  # fmt: skip
            alive = drop_ended(alive, limit, termination, tile)
        if deferred:
            count = mean_features(opened, raw_width, tile, picture, seen)
            fill_bases(count, seen, directions, basis, tile, bases)
            load_color_inputs(count, seen, seen, sums, raw_width, geometry, bases, inputs, stride)
            logits = run_network(
                count, inputs, stride, NEIGHBOURS, color_networks[0], color_dims, True, _LEAK, activations
            )
            store_colors(seen[:count], logits, color_dims[-1, 2], tile, picture)


@njit(**FAST, **UNCALLED)
def _add_colors(
    visible, n, groups, order, ends, cell, inside, raw_width, geometry, bases, color_networks, color_dims, inputs,
    stride, rays, share, activations, tile, samples, rgb,
):  # fmt: skip
    """Adds the visible samples' colours to their pixels, cell by cell.

    ``rays`` and ``share`` are room: a cell's rays, and a sample's weight, 0 of the invisible.
    """
    ray_of, (_, owner, _, weights, shown), width = tile[1], samples, color_dims[-1, 2]
    share[:n] = _ZERO
    for v in range(visible):
        share[shown[v]] = weights[v]
    first = 0
    for group in range(groups):
        size = 0
        for i in range(first, ends[group]):
            if share[order[i]] > _ZERO:
                order[first + size] = order[i]
                rays[size] = owner[order[i]]
                size += 1
        if size > 0:
            part, network = order[first : first + size], color_networks[cell[order[first]]]
            load_color_inputs(size, part, rays, inside, raw_width, geometry, bases, inputs, stride)
            logits = run_network(size, inputs, stride, NEIGHBOURS, network, color_dims, True, _LEAK, activations)
            for i in range(size):
                for c in range(3):
                    rgb[ray_of[rays[i]], c] += share[part[i]] / (_ONE + np.exp(-logits[i * width + c]))
        first = ends[group]
