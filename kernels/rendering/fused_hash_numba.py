"""The hash-grid student on the CPU, from rays to a picture."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from kernels.encoding.hash_corners_numba import new_points
from kernels.encoding.hash_encoding_numba import encode_block
from kernels.networks.layers_numba import BLOCK, copy_row, pack, run_network
from kernels.products_numba import NEIGHBOURS, padded
from kernels.rendering.fused_rays_numba import (
    GRAIN,
    TILE,
    add_colors,
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
from kernels.simd import LANES
from kernels.threads import FAST, FIRST, parallel_for

_RELU = np.float32(0)


class Prepared:
    """A field as the kernel wants it; see ``kernels.rendering.fused_render.FusedRenderer``."""

    def __init__(self, field, precision) -> None:
        density, color = (
            pack([weight.t()[None] for weight in weights], biased=False)
            for weights in (field.density_weights, field.color_weights)
        )
        lower, upper = field.box.numpy()
        scale = np.full(3, 1 / (upper - lower).max(), np.float32)
        table, layout = field.table.detach().to(precision).contiguous().view(-1), field.layout
        table = table.view(torch.int16) if precision == torch.float16 else table
        levels = layout.offsets, layout.resolutions, layout.scales, layout.kinds
        geometry, basis = len(field.density_weights[-1]) - 1, (field.direction_degree + 1) ** 2
        self._arguments = (
            lower, scale, table, (0,) * layout.features, *levels, density.parameters[0], density.dims,
            color.parameters[0], color.dims, BLOCK * max(density.width, color.width), geometry, basis,
            padded(geometry + basis), field.deferred, field.density_harmonics,
        )  # fmt: skip

    def render(self, rays, width, cells, march, picture) -> None:
        """Fills ``picture``."""
        tiles, way = tile_count(len(rays[0]), width), way_of(cells, march)
        parallel_for(_render, tiles, *rays, width, *way, *self._arguments, *picture, grain=GRAIN)


@njit(**FAST)
def _render(
    start, stop, origins, directions, near, far, width, lower, inverse_size, blocks, empty, step, limit, termination,
    corner, scale, table, entry, offsets, resolutions, scales, kinds, density_network, density_dims, color_network,
    color_dims, widest, geometry, basis, stride, deferred, harmonics, rgb, alpha, distance,
):  # fmt: skip
    rays, grid, picture = (
        (origins, directions, near, far),
        (lower, inverse_size, blocks, empty),
        (rgb, alpha, distance),
    )
    channels, raw_width = len(scales) * len(entry), density_dims[-1, 2]
    density_stride = channels + harmonics
    tile, samples, points = new_tile(raw_width), new_samples(), new_points()
    _, owner, density, weights, shown = samples
    sums, bases = tile[7], np.zeros((TILE * TILE, -(-basis // LANES) * LANES), np.float32)
    flat_bases = bases.reshape(-1)
    rows, activations = np.zeros(BLOCK * density_stride, np.float32), np.zeros((2, widest + LANES), np.float32)
    inputs, seen = np.zeros(BLOCK * stride + LANES, np.float32), np.empty(TILE * TILE, np.int64)
    for number in range(start, stop):
        opened, alive = open_tile(number, width, rays, grid, step, tile, picture)
        if not deferred or harmonics > 0:
            fill_bases(alive, tile[0], directions, basis, tile, bases)
        while alive > 0:
            n = take_samples(alive, BLOCK, grid, step, limit, tile, samples)
            if n == 0:
                break
            place_samples(n, rays, tile, samples, corner, scale, points[0])
            encode_block(n, points, table, entry, offsets, resolutions, scales, kinds, rows, FIRST, density_stride)
            for s in range(n if harmonics > 0 else 0):
                behind_constant = owner[s] * bases.shape[1] + 1
                copy_row(flat_bases, behind_constant, harmonics, rows, s * density_stride + channels)
            raw = run_network(
                n, rows, density_stride, NEIGHBOURS, density_network, density_dims, False, _RELU, activations
            )
            load_densities(n, raw, raw_width, density)
            visible = add_densities(n, step, termination, tile, samples, picture)
            if deferred:
                for v in range(visible):
                    add_rows(weights[v], raw, shown[v] * raw_width, sums, owner[shown[v]] * raw_width, raw_width)
            elif visible > 0:
                for v in range(visible):
                    seen[v] = owner[shown[v]]
                load_color_inputs(visible, shown, seen, raw, raw_width, geometry, bases, inputs, stride)
                logits = run_network(
                    visible, inputs, stride, NEIGHBOURS, color_network, color_dims, False, _RELU, activations
                )
                add_colors(visible, logits, color_dims[-1, 2], tile, samples, picture)
            alive = drop_ended(alive, limit, termination, tile)
        if deferred:
            count = mean_features(opened, raw_width, tile, picture, seen)
            fill_bases(count, seen, directions, basis, tile, bases)
            load_color_inputs(count, seen, seen, sums, raw_width, geometry, bases, inputs, stride)
            logits = run_network(
                count, inputs, stride, NEIGHBOURS, color_network, color_dims, False, _RELU, activations
            )
            store_colors(seen[:count], logits, color_dims[-1, 2], tile, picture)
