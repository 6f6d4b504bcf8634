"""Numba twin of deferred shading: colours of whole rays by one colour network, blocks of rays in the caches."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch.nn import functional as F

from kernels.networks.layers_numba import BLOCK, bend, copy_row, new_block, pack, unpack
from kernels.products_numba import ITSELF, NEIGHBOURS, NOTHING, ROWS, padded, product
from kernels.threads import FAST, UNCALLED, parallel_for

_GRAIN = 512
LEAST_ALPHA = 1e-8  # below it a ray's mean features fade out instead of dividing by nothing
_LEAST_ALPHA, _ZERO, _ONE = np.float32(LEAST_ALPHA), np.float32(0), np.float32(1)


class ShadeNumba(torch.autograd.Function):
    """Colours of rays (R, 3), multiplied by alpha, of their sums of features.

    Args:
        features: (R, G) float32, sums of weight * geometry features.
        alpha: (R,) sums of weight.
        basis: (R, S) encoded directions. Not differentiated.
        slope: of neurons that are off.
        layers: how many of the network's tensors are matrices (inputs, outputs); the others, if any, are their biases.
        network: the first matrix takes G + S channels, the last gives 3.
    """

    @staticmethod
    def forward(ctx, features, alpha, basis, slope, layers, *network):
        matrices, biases = network[:layers], network[layers:]
        packed = pack([matrix[None] for matrix in matrices], biased=False)
        rows = [F.pad(bias.detach(), (0, padded(len(bias)) - len(bias))) for bias in biases]
        ctx.packed, ctx.shapes = packed, [matrix.shape for matrix in matrices]
        where = features.detach().contiguous(), alpha.detach().contiguous(), basis.detach().contiguous()
        offsets = torch.cat(rows) if rows else features.new_empty(0)
        ctx.arguments = *where, packed.parameters[0], offsets, packed.dims, np.float32(slope)
        ctx.transposed = pack([matrix.t()[None] for matrix in matrices], biased=False).parameters[0]
        rgb = torch.empty(len(alpha), 3)
        parallel_for(_shade, len(alpha), *ctx.arguments, rgb, grain=_GRAIN)
        return rgb

    @staticmethod
    def backward(ctx, grad_rgb):
        features, alpha, _, parameters, biases = ctx.arguments[:5]
        grad_features, grad_alpha = torch.empty_like(features), torch.empty_like(alpha)
        # One partial sum per chunk, added in order: the same bits for any number of threads.
        chunks = max(1, -(-len(alpha) // _GRAIN))
        of_matrices, of_biases = torch.zeros(chunks, len(parameters)), torch.zeros(chunks, len(biases))
        parallel_for(
            _shade_backward, len(alpha), *ctx.arguments, ctx.transposed, grad_rgb.contiguous(), grad_features,
            grad_alpha, of_matrices, of_biases, _GRAIN, grain=_GRAIN,
        )  # fmt: skip
        grads = unpack(of_matrices.sum(0), ctx.packed, ctx.shapes)
        if len(biases) > 0:
            rows = of_biases.sum(0).split(ctx.packed.dims[:, 2].tolist())
            grads += [row[:outputs] for row, (_, outputs) in zip(rows, ctx.shapes, strict=True)]
        return grad_features, grad_alpha, None, None, None, *grads


@njit(**FAST, **UNCALLED)
def _run(first, n, features, alpha, basis, parameters, biases, dims, slope, activations):
    """The network on rays ``first : first + n``; layer k's input is ``activations[k]``, its output the next one."""
    geometry, stride, even = features.shape[1], dims[0, 1], (n + ROWS - 1) // ROWS * ROWS
    for r in range(n):
        inverse = _ONE / max(alpha[first + r], _LEAST_ALPHA)
        for c in range(geometry):
            activations[0, r * stride + c] = features[first + r, c] * inverse
        for c in range(basis.shape[1]):
            activations[0, r * stride + geometry + c] = basis[first + r, c]
    at, shift = 0, 0
    for layer in range(len(dims)):
        inputs, rows, outputs = dims[layer]
        target = activations[layer + 1]
        if len(biases) > 0:
            for r in range(even):
                copy_row(biases, shift, outputs, target, r * outputs)
        start = ITSELF if len(biases) > 0 else NOTHING
        product(n, inputs, activations[layer], rows, NEIGHBOURS, parameters[at:], outputs, start, target)
        if layer + 1 < len(dims):
            bend(even * outputs, slope, target)
        at += rows * outputs
        shift += outputs


@njit(**FAST)
def _shade(start, stop, features, alpha, basis, parameters, biases, dims, slope, rgb):
    """Fills ``rgb[start:stop]``."""
    activations, width = new_block(dims), dims[-1, 2]
    for first in range(start, stop, BLOCK):
        n = min(stop - first, BLOCK)
        _run(first, n, features, alpha, basis, parameters, biases, dims, slope, activations)
        for r in range(n):
            for c in range(3):
                color = _ONE / (_ONE + np.exp(-activations[len(dims), r * width + c]))
                rgb[first + r, c] = alpha[first + r] * color


@njit(**FAST)
def _shade_backward(
    start, stop, features, alpha, basis, parameters, biases, dims, slope, transposed, grad_rgb, grad_features,
    grad_alpha, of_matrices, of_biases, grain,
):  # fmt: skip
    """Fills the gradients of ``start:stop``; adds those of the network to row ``start // grain`` of its sums."""
    layers, activations, grads = len(dims), new_block(dims), new_block(dims)
    width, stride, geometry = dims[-1, 2], dims[0, 1], features.shape[1]
    matrix_sum, bias_sum = of_matrices[start // grain], of_biases[start // grain]
    for first in range(start, stop, BLOCK):
        n = min(stop - first, BLOCK)
        _run(first, n, features, alpha, basis, parameters, biases, dims, slope, activations)
        grads[layers, : n * width] = _ZERO
        for r in range(n):
            total = _ZERO
            for c in range(3):
                color = _ONE / (_ONE + np.exp(-activations[layers, r * width + c]))
                grad = grad_rgb[first + r, c]
                grads[layers, r * width + c] = alpha[first + r] * grad * color * (_ONE - color)
                total += grad * color
            grad_alpha[first + r] = total
        at, shift = len(parameters), len(biases)
        for layer in range(layers - 1, -1, -1):
            _, rows, outputs = dims[layer]
            at -= rows * outputs
            source, upstream, grad = activations[layer], grads[layer + 1], grads[layer]
            product(rows, n, source, NEIGHBOURS, rows, upstream, outputs, ITSELF, matrix_sum[at:])
            if len(biases) > 0:
                shift -= outputs
                for r in range(n):
                    for c in range(outputs):
                        bias_sum[shift + c] += upstream[r * outputs + c]
            product(n, outputs, upstream, outputs, NEIGHBOURS, transposed[at:], rows, NOTHING, grad)
            if layer > 0:
                for i in range(n * rows):
                    grad[i] = grad[i] if source[i] > _ZERO else slope * grad[i]
        for r in range(n):
            opacity, through_mean = alpha[first + r], _ZERO
            inverse = _ONE / max(opacity, _LEAST_ALPHA)
            for c in range(geometry):
                grad_mean = grads[0, r * stride + c] * inverse
                grad_features[first + r, c] = grad_mean
                through_mean += grad_mean * activations[0, r * stride + c]
            # Where the divisor is alpha itself, the mean depends on it too.
            if opacity >= _LEAST_ALPHA:
                grad_alpha[first + r] -= through_mean
