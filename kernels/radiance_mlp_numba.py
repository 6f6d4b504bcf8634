"""Numba twin of the radiance MLPs: blocks of samples that stay in the caches, matrix products through BLAS.

Samples run along the last axis everywhere (channel-major), so that element-wise loops are contiguous.
The backward pass recomputes a block's activations instead of reading them back from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import FAST, SINGLE_THREAD_GEMM, parallel_for

_GRAIN = 4096
MAX_RAW = np.float32(15)


def density(features: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Density (N,)."""
    features = features.t().contiguous()
    flat, dims = flatten(weights)
    result = torch.empty(features.shape[1])
    parallel_for(_density, len(result), features, flat, dims, block_of(dims), result, grain=_GRAIN)
    return result


class RadianceMLPNumba(torch.autograd.Function):
    """Density, rgb and the two taps, channel by channel in memory; taps that are not wanted have no channels.

    Nor has rgb where there is no colour network, which is where all weights are the density network's.
    """

    @staticmethod
    def forward(ctx, wanted, features, basis, ray_index, density_layers, *weights):
        features = features.detach().t().contiguous()
        flat, dims = flatten(weights)
        count = features.shape[1]
        widths = int(dims[0, 0]), int(dims[density_layers - 1, 0]) - 1
        inside = [torch.empty(width if asked else 0, count) for width, asked in zip(widths, wanted, strict=True)]
        outputs = torch.empty(count), torch.empty(count, 3 if density_layers < len(dims) else 0)
        basis, ray_index = basis.detach().contiguous(), ray_index.contiguous()
        ctx.arguments = features, basis, ray_index, flat, dims, density_layers, block_of(dims)
        parallel_for(_forward, count, *ctx.arguments, *outputs, *inside, grain=_GRAIN)
        ctx.shapes = [weight.shape for weight in weights]
        ctx.save_for_backward(*outputs)
        return *outputs, *(values.t() for values in inside)

    @staticmethod
    def backward(ctx, grad_density, grad_rgb, *grad_inside):
        features, flat = ctx.arguments[0], ctx.arguments[3]
        count = features.shape[1]
        grads = grad_density.contiguous(), grad_rgb.contiguous(), *(grad.t().contiguous() for grad in grad_inside)
        grad_features = torch.empty(features.shape)
        # One partial sum per chunk, added in order: the same bits for any number of threads.
        partial = torch.zeros(max(1, -(-count // _GRAIN)), len(flat))
        parallel_for(
            _backward, count, *ctx.arguments, *ctx.saved_tensors, *grads, grad_features, partial, _GRAIN, grain=_GRAIN
        )
        grads = partial.sum(0).split([shape.numel() for shape in ctx.shapes])
        grads = [grad.view(shape) for grad, shape in zip(grads, ctx.shapes, strict=True)]
        return None, grad_features.t(), None, None, None, *grads


def flatten(weights: Sequence[Tensor]) -> tuple[Tensor, np.ndarray]:
    flat = torch.cat([weight.detach().reshape(-1) for weight in weights])
    return flat, np.array([tuple(weight.shape) for weight in weights], dtype=np.int64)


def block_of(dims: np.ndarray) -> int:
    """Samples per block: small enough for the caches and for single-threaded matrix products."""
    return int(np.clip(SINGLE_THREAD_GEMM // int((dims[:, 0] * dims[:, 1]).max()) // 16 * 16, 16, 256))


@njit(**FAST)
def _relu(values):
    for i in range(len(values)):
        values[i] = max(values[i], np.float32(0))


@njit(**FAST)
def run_layers(flat, dims, first_layer, last_layer, weight_offset, block, activations):
    """Layers ``first .. last`` on ``activations[first]``; layer k leaves its output in ``activations[k + 1]``."""
    for layer in range(first_layer, last_layer):
        rows, columns = dims[layer, 0], dims[layer, 1]
        weight = flat[weight_offset : weight_offset + rows * columns].reshape((rows, columns))
        source = activations[layer, : columns * block].reshape((columns, block))
        target = activations[layer + 1, : rows * block].reshape((rows, block))
        np.dot(weight, source, target)
        if layer + 1 < last_layer:
            _relu(activations[layer + 1, : rows * block])
        weight_offset += rows * columns
    return weight_offset


@njit(**FAST)
def _load_features(features, start, n, block, target):
    for c in range(features.shape[0]):
        row = target[c * block : (c + 1) * block]
        for s in range(n):
            row[s] = features[c, start + s]
        for s in range(n, block):
            row[s] = np.float32(0)


@njit(**FAST)
def _load_color_input(raw, geometry_width, basis, ray_index, start, n, block, target):
    """[geometry, direction basis] of a block; ``raw`` holds the density network's output rows."""
    for i in range(geometry_width * block):
        target[i] = raw[block + i]
    for s in range(block):
        ray = ray_index[start + min(s, n - 1)]
        for c in range(basis.shape[1]):
            target[(geometry_width + c) * block + s] = basis[ray, c]


@njit(**FAST)
def _density(start, stop, features, flat, dims, block, density):
    """``density[start:stop]`` from features (C, N)."""
    layers = len(dims)
    activations = np.empty((layers + 1, dims.max() * block), np.float32)
    for first in range(start, stop, block):
        n = min(stop - first, block)
        _load_features(features, first, n, block, activations[0])
        run_layers(flat, dims, 0, layers, 0, block, activations)
        for s in range(n):
            density[first + s] = np.exp(min(activations[layers, s], MAX_RAW))


@njit(**FAST)
def _forward_block(features, basis, ray_index, flat, dims, density_layers, block, first, n, activations, raw):
    """Fills the activations of both networks; ``raw`` keeps the density network's output."""
    geometry_width = dims[density_layers - 1, 0] - 1
    _load_features(features, first, n, block, activations[0])
    offset = run_layers(flat, dims, 0, density_layers, 0, block, activations)
    raw[:] = activations[density_layers, : len(raw)]
    _load_color_input(raw, geometry_width, basis, ray_index, first, n, block, activations[density_layers])
    run_layers(flat, dims, density_layers, len(dims), offset, block, activations)


@njit(**FAST)
def _forward(start, stop, features, basis, ray_index, flat, dims, density_layers, block, density, rgb, hidden, geo):
    """``density[start:stop]`` and ``rgb[start:stop]`` from features (C, N) and a basis row per ray.

    ``hidden`` (width, N) and ``geo`` (G, N) take the activations of these names, where they have any rows.
    """
    layers = len(dims)
    activations = np.empty((layers + 1, dims.max() * block), np.float32)
    raw = np.empty(dims[density_layers - 1, 0] * block, np.float32)
    one = np.float32(1)
    for first in range(start, stop, block):
        n = min(stop - first, block)
        _forward_block(features, basis, ray_index, flat, dims, density_layers, block, first, n, activations, raw)
        for s in range(n):
            density[first + s] = np.exp(min(raw[s], MAX_RAW))
            for c in range(rgb.shape[1]):
                rgb[first + s, c] = one / (one + np.exp(-activations[layers, c * block + s]))
        for c in range(len(hidden)):
            hidden[c, first : first + n] = activations[1, c * block : c * block + n]
        for c in range(len(geo)):
            geo[c, first : first + n] = raw[(1 + c) * block : (1 + c) * block + n]


@njit(**FAST)
def _backward_layers(flat, dims, first_layer, last_layer, weight_end, block, activations, grads, flat_grad):
    """Back through layers ``last .. first``: ``grads[k + 1]`` holds dL/d output of layer k."""
    for layer in range(last_layer - 1, first_layer - 1, -1):
        rows, columns = dims[layer, 0], dims[layer, 1]
        begin = weight_end - rows * columns
        weight = flat[begin:weight_end].reshape((rows, columns))
        source = activations[layer, : columns * block].reshape((columns, block))
        grad = grads[layer + 1, : rows * block].reshape((rows, block))
        weight_grad = np.dot(grad, source.T)
        flat_grad[begin:weight_end] += weight_grad.reshape(rows * columns)
        grad_source = grads[layer, : columns * block].reshape((columns, block))
        np.dot(weight.T, grad, grad_source)
        if layer > first_layer:
            for i in range(columns * block):
                if activations[layer, i] <= np.float32(0):
                    grads[layer, i] = np.float32(0)
        weight_end = begin
    return weight_end


@njit(**FAST)
def _backward(
    start, stop, features, basis, ray_index, flat, dims, density_layers, block, density, rgb, grad_density, grad_rgb,
    grad_hidden, grad_geo, grad_features, partial, grain,
):  # fmt: skip
    """Fills ``grad_features[:, start:stop]`` and adds the weights' gradient to ``partial[start // grain]``."""
    layers = len(dims)
    widest = dims.max() * block
    activations, grads = np.empty((layers + 1, widest), np.float32), np.empty((layers + 1, widest), np.float32)
    raw = np.empty(dims[density_layers - 1, 0] * block, np.float32)
    raw_grad = np.empty(block, np.float32)
    geometry = (dims[density_layers - 1, 0] - 1) * block
    flat_grad = partial[start // grain]
    one, least_density = np.float32(1), np.exp(-MAX_RAW)
    for first in range(start, stop, block):
        n = min(stop - first, block)
        _forward_block(features, basis, ray_index, flat, dims, density_layers, block, first, n, activations, raw)
        grads[layers, : dims[layers - 1, 0] * block] = np.float32(0)
        raw_grad[:] = np.float32(0)
        for s in range(n):
            raw_grad[s] = grad_density[first + s] * max(density[first + s], least_density)
            for c in range(rgb.shape[1]):
                value = rgb[first + s, c]
                grads[layers, c * block + s] = grad_rgb[first + s, c] * value * (one - value)
        weight_end = _backward_layers(
            flat, dims, density_layers, layers, len(flat), block, activations, grads, flat_grad
        )
        # grads[density_layers] is now dL/d [geometry, basis]; the density network wants dL/d [raw, geometry].
        for i in range(geometry - 1, -1, -1):
            grads[density_layers, block + i] = grads[density_layers, i]
        grads[density_layers, :block] = raw_grad
        for c in range(len(grad_geo)):
            for s in range(n):
                grads[density_layers, (1 + c) * block + s] += grad_geo[c, first + s]
        if len(grad_hidden) > 0:
            weight_end = _backward_layers(
                flat, dims, 1, density_layers, weight_end, block, activations, grads, flat_grad
            )
            for c in range(len(grad_hidden)):
                for s in range(n):
                    grads[1, c * block + s] += grad_hidden[c, first + s]
            for i in range(len(grad_hidden) * block):
                if activations[1, i] <= np.float32(0):
                    grads[1, i] = np.float32(0)
            _backward_layers(flat, dims, 0, 1, weight_end, block, activations, grads, flat_grad)
        else:
            _backward_layers(flat, dims, 0, density_layers, weight_end, block, activations, grads, flat_grad)
        for c in range(features.shape[0]):
            for s in range(n):
                grad_features[c, first + s] = grads[0, c * block + s]
