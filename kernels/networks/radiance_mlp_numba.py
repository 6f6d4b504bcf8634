"""Numba twin of the radiance MLPs: blocks of samples that stay in the caches, a sample's channels side by side.

The backward pass recomputes a block's activations instead of reading them back from memory, and leaves out samples
whose outputs have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.networks.layers_numba import (
    BLOCK,
    MAX_RAW,
    Networks,
    any_nonzero,
    bend,
    copy_row,
    fill_row,
    new_block,
    pack,
    sigmoid,
    store_densities,
    unpack,
)
from kernels.products_numba import ITSELF, NEIGHBOURS, NOTHING, ROWS, product
from kernels.simd import LANES, load, load_part, splat, store_part
from kernels.threads import FAST, FIRST, INNER, SECOND, UNCALLED, parallel_for

_GRAIN = 4096
_ZERO, _ONE = np.float32(0), np.float32(1)


def density(features: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Density (N,)."""
    networks, result = _pack(weights), torch.empty(len(features))
    arguments = features.contiguous(), networks.parameters[0], networks.dims
    parallel_for(_density, len(result), *arguments, result, grain=_GRAIN)
    return result


class RadianceMLPNumba(torch.autograd.Function):
    """Density, rgb and the two taps; taps that are not wanted have no columns.

    Nor has rgb where there is no colour network, which is where all weights are the density network's; nor have
    harmonics (R, H) where the density network takes none behind the features.
    """

    @staticmethod
    def forward(ctx, wanted, features, harmonics, basis, ray_index, density_layers, *weights):
        features, count = features.detach().contiguous(), len(features)
        networks = _pack(weights)
        geometry = len(weights[density_layers - 1]) - 1
        widths = len(weights[0]), geometry
        inside = [torch.empty(count, width if asked else 0) for width, asked in zip(widths, wanted, strict=True)]
        outputs = torch.empty(count), torch.empty(count, 3 if density_layers < len(weights) else 0)
        where = features, *(part.detach().contiguous() for part in (harmonics, basis, ray_index))
        ctx.arguments = *where, networks.parameters[0], networks.dims, density_layers, geometry
        parallel_for(_forward, count, *ctx.arguments, *outputs, *inside, grain=_GRAIN)
        ctx.networks, ctx.shapes = networks, [tuple(reversed(weight.shape)) for weight in weights]
        ctx.transposed = _pack([weight.t() for weight in weights]).parameters[0]
        ctx.save_for_backward(*outputs)
        return *outputs, *inside

    @staticmethod
    def backward(ctx, grad_density, grad_rgb, *grad_inside):
        grads = [grad.contiguous() for grad in (grad_density, grad_rgb, *grad_inside)]
        grad_features = torch.empty(ctx.arguments[0].shape)
        # One partial sum per chunk, added in order: the same bits for any number of threads.
        chunks = max(1, -(-len(grad_features) // _GRAIN))
        partial = torch.zeros(chunks, ctx.networks.parameters.shape[1])
        parallel_for(
            _backward, len(grad_features), *ctx.arguments, ctx.transposed, *ctx.saved_tensors, *grads, grad_features,
            partial, _GRAIN, grain=_GRAIN,
        )  # fmt: skip
        grads = [part.t() for part in unpack(partial.sum(0), ctx.networks, ctx.shapes)]
        return None, grad_features, None, None, None, None, *grads


def _pack(weights: Sequence[Tensor]) -> Networks:
    return pack([weight.t()[None] for weight in weights], biased=False)


@njit(**FAST, **UNCALLED)
def _run_layers(n, parameters, dims, first, last, at, activations):
    """Layers ``first .. last``; layer k's input is ``activations[k]``, its output ``activations[k + 1]``."""
    even = (n + ROWS - 1) // ROWS * ROWS
    for layer in range(first, last):
        inputs, rows, outputs = dims[layer]
        target = activations[layer + 1]
        product(n, inputs, activations[layer], rows, NEIGHBOURS, parameters[at:], outputs, NOTHING, target)
        if layer + 1 < last:
            bend(even * outputs, _ZERO, target)
        at += rows * outputs
    return at


@njit(**FAST)
def _density(start, stop, features, parameters, dims, density):
    """``density[start:stop]`` from features (N, C)."""
    layers, activations, buffer = len(dims), new_block(dims), np.empty(BLOCK, np.float32)
    channels, features = features.shape[1], features.reshape(-1)
    for first in range(start, stop, BLOCK):
        n = min(stop - first, BLOCK)
        for s in range(n):
            fill_row(features, (first + s) * channels, channels, activations[0], s * dims[0, 1])
        _run_layers(n, parameters, dims, FIRST, layers, FIRST, activations)
        store_densities(n, activations[layers], dims[-1, 2], buffer, density, first)


@njit(**FAST, **UNCALLED)
def _forward_block(
    which, n, features, channels, harmonics, seen, basis, directions, ray_index, parameters, dims, density_layers,
    geometry, activations, raw,
):  # fmt: skip
    """Fills the activations of both networks for ``which[:n]``; ``raw`` keeps the density network's output.

    ``features``, ``harmonics`` and ``basis`` are flat, rows of so many ``channels``, ``seen`` and ``directions``.
    """
    for s in range(n):
        fill_row(features, which[s] * channels, channels, activations[0], s * dims[0, 1])
    if seen > 0:
        for s in range(n):
            ray = ray_index[which[s]]
            copy_row(harmonics, ray * seen, seen, activations[0], s * dims[0, 1] + channels)
    at = _run_layers(n, parameters, dims, FIRST, density_layers, FIRST, activations)
    width = dims[density_layers - 1, 2]
    copy_row(activations[density_layers], FIRST, n * width, raw, FIRST)
    if density_layers < len(dims):
        stride, inputs = dims[density_layers, 1], activations[density_layers]
        inputs[: n * stride] = _ZERO
        for s in range(n):
            copy_row(raw, s * width + 1, geometry, inputs, s * stride)
            ray = ray_index[which[s]]
            copy_row(basis, ray * directions, directions, inputs, s * stride + geometry)
        _run_layers(n, parameters, dims, density_layers, len(dims), at, activations)


@njit(**FAST)
def _forward(
    start, stop, features, harmonics, basis, ray_index, parameters, dims, density_layers, geometry, density, rgb,
    hidden, geo,
):  # fmt: skip
    """``density[start:stop]`` and ``rgb[start:stop]`` from features (N, C) and rows of harmonics and basis per ray.

    ``hidden`` (N, width) and ``geo`` (N, G) take the activations of these names, where they have any columns.
    """
    layers, activations, buffer = len(dims), new_block(dims), np.empty(BLOCK, np.float32)
    width, color_width, hidden_width = dims[density_layers - 1, 2], dims[-1, 2], dims[0, 2]
    raw, which = np.empty(BLOCK * width, np.float32), np.empty(BLOCK, np.int64)
    channels, directions, colors = features.shape[1], basis.shape[1], rgb.shape[1]
    hidden_channels, geo_channels, seen = hidden.shape[1], geo.shape[1], harmonics.shape[1]
    features, basis, rgb = features.reshape(-1), basis.reshape(-1), rgb.reshape(-1)
    harmonics = harmonics.reshape(-1)
    hidden, geo = hidden.reshape(-1), geo.reshape(-1)
    for first in range(start, stop, BLOCK):
        n = min(stop - first, BLOCK)
        for s in range(n):
            which[s] = first + s
        _forward_block(
            which, n, features, channels, harmonics, seen, basis, directions, ray_index, parameters, dims,
            density_layers, geometry, activations, raw,
        )  # fmt: skip
        store_densities(n, raw, width, buffer, density, first)
        for s in range(n):
            if colors > 0:
                color = sigmoid(load(activations[layers], s * color_width, LANES))
                store_part(rgb, (first + s) * colors, color, colors)
            copy_row(activations[1], s * hidden_width, hidden_channels, hidden, (first + s) * hidden_channels)
            copy_row(raw, s * width + 1, geo_channels, geo, (first + s) * geo_channels)


@njit(**FAST, **INNER)
def _off(count, activations, grads):
    """No gradient through neurons that are off."""
    for i in range(count):
        if activations[i] <= _ZERO:
            grads[i] = _ZERO


@njit(**FAST, **INNER)
def _backward_layers(n, transposed, dims, first, last, end, activations, grads, total):
    """Back through layers ``last .. first``: ``grads[k + 1]`` holds dL/d output of layer k.

    ``end``: where the parameters of ``last`` end; returns where those of ``first`` begin.
    """
    for layer in range(last - 1, first - 1, -1):
        _, rows, outputs = dims[layer]
        end -= rows * outputs
        product(rows, n, activations[layer], NEIGHBOURS, rows, grads[layer + 1], outputs, ITSELF, total[end:])
        product(n, outputs, grads[layer + 1], outputs, NEIGHBOURS, transposed[end:], rows, NOTHING, grads[layer])
        if layer > first:
            _off(n * rows, activations[layer], grads[layer])
    return end


@njit(**FAST)
def _backward(
    start, stop, features, harmonics, basis, ray_index, parameters, dims, density_layers, geometry, transposed, density,
    rgb, grad_density, grad_rgb, grad_hidden, grad_geo, grad_features, partial, grain,
):  # fmt: skip
    """Fills ``grad_features[start:stop]`` and adds the weights' gradient to ``partial[start // grain]``."""
    layers, activations, grads = len(dims), new_block(dims), new_block(dims)
    width, color_width, total = dims[density_layers - 1, 2], dims[-1, 2], partial[start // grain]
    raw, raw_grads = np.empty(BLOCK * width, np.float32), np.zeros(BLOCK * width, np.float32)
    least_density, which, following = np.exp(-MAX_RAW), np.empty(BLOCK, np.int64), start
    channels, directions, geo_channels = features.shape[1], basis.shape[1], grad_geo.shape[1]
    features, basis, geo_grads = features.reshape(-1), basis.reshape(-1), grad_geo.reshape(-1)
    seen, harmonics = harmonics.shape[1], harmonics.reshape(-1)
    grad_features, zero = grad_features.reshape(-1), splat(_ZERO, LANES)
    while following < stop:
        n = 0
        while n < BLOCK and following < stop:
            if (
                grad_density[following] != _ZERO or any_nonzero(grad_rgb, following)
                or any_nonzero(grad_hidden, following) or any_nonzero(grad_geo, following)
            ):  # fmt: skip
                which[n] = following
                n += 1
            else:
                for c in range(0, channels, LANES):
                    store_part(grad_features, following * channels + c, zero, channels - c)
            following += 1
        _forward_block(
            which, n, features, channels, harmonics, seen, basis, directions, ray_index, parameters, dims,
            density_layers, geometry, activations, raw,
        )  # fmt: skip
        end = len(parameters)
        raw_grads[:] = _ZERO
        if rgb.shape[1] > 0:
            grads[layers, : n * color_width] = _ZERO
            for s in range(n):
                for c in range(3):
                    value = rgb[which[s], c]
                    grads[layers, s * color_width + c] = grad_rgb[which[s], c] * value * (_ONE - value)
            end = _backward_layers(n, transposed, dims, density_layers, layers, end, activations, grads, total)
            for s in range(n):
                copy_row(grads[density_layers], s * dims[density_layers, 1], geometry, raw_grads, s * width + 1)
        for s in range(n):
            raw_grads[s * width] = grad_density[which[s]] * max(density[which[s]], least_density)
            at = s * width + 1
            for c in range(0, geo_channels, LANES):
                more = load_part(geo_grads, which[s] * geo_channels + c, geo_channels - c)
                so_far = load_part(raw_grads, at + c, geo_channels - c)
                store_part(raw_grads, at + c, so_far + more, geo_channels - c)
        copy_row(raw_grads, FIRST, n * width, grads[density_layers], FIRST)
        if grad_hidden.shape[1] > 0:
            end = _backward_layers(n, transposed, dims, SECOND, density_layers, end, activations, grads, total)
            stride = dims[0, 2]
            for s in range(n):
                for c in range(grad_hidden.shape[1]):
                    grads[1, s * stride + c] += grad_hidden[which[s], c]
            _off(n * stride, activations[1], grads[1])
            _backward_layers(n, transposed, dims, FIRST, SECOND, end, activations, grads, total)
        else:
            _backward_layers(n, transposed, dims, FIRST, density_layers, end, activations, grads, total)
        for s in range(n):
            copy_row(grads[0], s * dims[0, 1], channels, grad_features, which[s] * channels)
