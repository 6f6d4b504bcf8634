"""Numba twin of the grouped radiance MLPs: points sorted by cell, then one cell's points at a time in small blocks.

Layout inside a block is channel-major, samples last, so that element-wise loops are contiguous; the last input row
of every layer is one, which makes the bias a row of the weight matrix. No channel of a sample ever reaches memory
outside its block: the backward pass recomputes the activations.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.added_gradients import room_for_gradient
from kernels.networks.grouped_inputs_numba import encode, load_harmonics
from kernels.networks.grouped_layout import LEAK, GroupedLayout
from kernels.networks.layers_numba import MAX_RAW, any_nonzero, density_of
from kernels.threads import FAST, FIRST, INNER, SECOND, SINGLE_THREAD_GEMM, UNCALLED, parallel_for

_BLOCK = 160
_PIECE = 4096  # points of one cell that one thread takes at a time
_GRAIN = 2048
_ZERO, _ONE = np.float32(0), np.float32(1)
_LEAK = np.float32(LEAK)


def density(
    x: Tensor, harmonics: Tensor, ray_index: Tensor, cell_index: Tensor, parameters: Tensor, layout: GroupedLayout
) -> Tensor:
    """Density (N,)."""
    order, pieces, _ = _route(cell_index, len(parameters))
    result, dims = torch.empty(len(x)), layout.density_dims
    parallel_for(
        _density, len(pieces), pieces, order, x.contiguous(), harmonics.contiguous(), ray_index.contiguous(),
        parameters, dims, layout.frequencies, block_of(dims), result, grain=_grain(pieces, order),
    )  # fmt: skip
    return result


class GroupedMLPNumba(torch.autograd.Function):
    """Density, rgb and the two taps; those that are not wanted have no columns.

    Nor has rgb where there are no colour networks: their parameters, of which no gradient is wanted, have no columns.
    """

    @staticmethod
    def forward(
        ctx, wanted, x, harmonics, basis, ray_index, cell_index, density_parameters, color_parameters, layout, touched
    ):
        order, pieces, slots = _route(cell_index, len(density_parameters))
        colored = color_parameters.shape[1] > 0
        dims = np.concatenate([layout.density_dims, layout.color_dims]) if colored else layout.density_dims
        rays = harmonics.detach().contiguous(), basis.detach().contiguous(), ray_index.contiguous()
        networks = density_parameters.detach(), color_parameters.detach(), dims, len(layout.density_dims)
        ctx.arguments = pieces, order, x.detach().contiguous(), *rays, *networks, layout.frequencies, block_of(dims)
        widths = int(layout.density_dims[0, 1]), layout.geo_features
        inside = [torch.empty(len(x), width if asked else 0) for width, asked in zip(widths, wanted, strict=True)]
        outputs = torch.empty(len(x)), torch.empty(len(x), 3 if colored else 0)
        ctx.slots, ctx.touched, ctx.grain = slots, touched, _grain(pieces, order)
        parallel_for(_forward, len(pieces), *ctx.arguments, *outputs, *inside, grain=ctx.grain)
        ctx.parameters = density_parameters, color_parameters
        ctx.save_for_backward(*outputs)
        return *outputs, *inside

    @staticmethod
    def backward(ctx, *grads):
        pieces = ctx.arguments[0]
        rooms = [room_for_gradient(*each) for each in zip(ctx.parameters, ctx.needs_input_grad[6:8], strict=True)]
        totals = [total for total, _ in rooms]
        # A cell of many points is shared out: one partial sum per piece, added in order, so that the bits do not
        # depend on the number of threads.
        partials = [torch.zeros(ctx.slots, total.shape[1]) for total in totals]
        grads = [grad.contiguous() for grad in grads]
        parallel_for(
            _backward, len(pieces), *ctx.arguments, *ctx.saved_tensors, *grads, *totals, *partials, grain=ctx.grain
        )
        cells = torch.from_numpy(pieces[:, 0])
        shared = cells[torch.from_numpy(pieces[:, 3]) >= 0]
        for total, partial in zip(totals, partials, strict=True):
            total.index_add_(0, shared, partial)
        for touched in ctx.touched or ():
            touched.flags[cells // touched.rows_per_flag] = 1
        return (None,) * 6 + (*(returned for _, returned in rooms), None, None)


def _route(cell_index: Tensor, cells: int) -> tuple[np.ndarray, np.ndarray, int]:
    if len(cell_index):
        lowest, highest = (int(bound) for bound in torch.aminmax(cell_index))
        if lowest < 0 or highest >= cells:
            raise ValueError(f"cell_index: found {lowest} to {highest}, expected 0 to {cells - 1}")
    return route(cell_index.contiguous().numpy(), cells, _PIECE)


def block_of(dims: np.ndarray) -> int:
    """Points per block: few enough for the caches and for single-threaded matrix products."""
    return int(np.clip(SINGLE_THREAD_GEMM // int(dims.prod(axis=1).max()), 1, _BLOCK))


def _grain(pieces: np.ndarray, order: np.ndarray) -> int:
    """Pieces in one task. Every piece has its own sum, so the results do not depend on this."""
    return max(1, len(pieces) * _GRAIN // max(1, len(order)))


def route(cell_index: np.ndarray, cells: int, most: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Counting sort by cell, cut into pieces of one cell and at most ``most`` points.

    Returns:
        order (N,): points, by cell, in their own order within a cell.
        pieces (P, 4): cell, first and last + 1 position in ``order``, slot of the partial gradient (-1: the piece is
        its cell's only one).
        slots: number of partial gradients.
    """
    order = np.empty(len(cell_index), np.int64)
    pieces = np.empty((cells + len(cell_index) // most, 4), np.int64)  # as many as there can be
    count, slots = _sort(cell_index, most, np.zeros(cells + 1, np.int64), order, pieces)
    return order, pieces[:count], slots


@njit(**FAST)
def _sort(cell_index, most, starts, order, pieces):
    for i in range(len(cell_index)):
        starts[cell_index[i] + 1] += 1
    count, slots = 0, 0
    for cell in range(len(starts) - 1):
        starts[cell + 1] += starts[cell]
        first, end = starts[cell], starts[cell + 1]
        whole = end - first <= most
        while first < end:
            last = first + most if first + most < end else end
            pieces[count, 0], pieces[count, 1], pieces[count, 2] = cell, first, last
            pieces[count, 3] = -1 if whole else slots
            count += 1
            slots += not whole
            first = last
    for i in range(len(cell_index)):
        cell = cell_index[i]
        order[starts[cell]] = i
        starts[cell] += 1
    return count, slots


@njit(**FAST, **INNER)
def _even_block(count, most):
    """Size of the equal blocks, of at most ``most``, that ``count`` points are cut into; multiples of 16 run best."""
    blocks = -(-count // most)
    return min(most, -(-count // (16 * blocks)) * 16)


@njit(**FAST, **INNER)
def _widest(dims):
    """Channels of the widest layer's input or output."""
    widest = 0
    for layer in range(len(dims)):
        widest = max(widest, dims[layer, 0], dims[layer, 1])
    return widest


@njit(**FAST, **UNCALLED)
def run_layers(parameters, dims, first_layer, last_layer, n, activations):
    """Layers ``first .. last`` of one network on ``activations[first]``; layer k's output is ``activations[k + 1]``."""
    begin = 0
    for layer in range(first_layer, last_layer):
        rows, columns = dims[layer, 0], dims[layer, 1]
        activations[layer, (rows - 1) * n : rows * n] = _ONE
        weight = parameters[begin : begin + rows * columns].reshape((rows, columns))
        target = activations[layer + 1, : columns * n]
        np.dot(weight.T, activations[layer, : rows * n].reshape((rows, n)), target.reshape((columns, n)))
        if layer + 1 < last_layer:
            for i in range(columns * n):
                target[i] = max(target[i], _LEAK * target[i])
        begin += rows * columns


@njit(**FAST, **UNCALLED)
def _forward_block(
    x, harmonics, basis, ray_index, order, first, n, density_row, color_row, dims, density_layers, frequencies,
    activations, raw,
):  # fmt: skip
    """Fills a block's activations; ``raw`` keeps the raw density.

    Raw density is the density network's last row: the geometry before it already lies where the colour network
    reads it, and the direction goes over the rest.
    """
    encode(x, order, first, n, frequencies, activations[0])
    load_harmonics(harmonics, ray_index, order, first, n, dims[0, 0] - 1 - harmonics.shape[1], activations[0])
    run_layers(density_row, dims, FIRST, density_layers, n, activations)
    geometry = dims[density_layers - 1, 1] - 1
    color_input = activations[density_layers]
    for s in range(n):
        raw[s] = color_input[geometry * n + s]
    for s in range(n if basis.shape[1] > 0 else 0):
        direction = basis[ray_index[order[first + s]]]
        for c in range(len(direction)):
            color_input[(geometry + c) * n + s] = direction[c]
    run_layers(color_row, dims, density_layers, len(dims), n, activations)


@njit(**FAST)
def _density(
    start, stop, pieces, order, x, harmonics, ray_index, density_parameters, dims, frequencies, block, density
):
    """Density of the points of ``pieces[start:stop]``."""
    layers = len(dims)
    activations = np.empty((layers + 1, _widest(dims) * block), np.float32)
    for piece in range(start, stop):
        cell, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        size = _even_block(end - begin, block)
        for first in range(begin, end, size):
            n = min(end - first, size)
            encode(x, order, first, n, frequencies, activations[0])
            load_harmonics(harmonics, ray_index, order, first, n, dims[0, 0] - 1 - harmonics.shape[1], activations[0])
            run_layers(density_parameters[cell], dims, FIRST, layers, n, activations)
            raw = activations[layers, (dims[layers - 1, 1] - 1) * n :]
            for s in range(n):
                density[order[first + s]] = density_of(raw[s])


@njit(**FAST)
def _forward(
    start, stop, pieces, order, x, harmonics, basis, ray_index, density_parameters, color_parameters, dims,
    density_layers, frequencies, block, density, rgb, hidden, geo,
):  # fmt: skip
    """Density and colour of the points of ``pieces[start:stop]``.

    ``hidden`` (N, width) and ``geo`` (N, G) take the activations of these names, where they have any columns.
    """
    layers = len(dims)
    activations, raw = np.empty((layers + 1, _widest(dims) * block), np.float32), np.empty(block, np.float32)
    for piece in range(start, stop):
        cell, begin, end = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
        density_row, color_row = density_parameters[cell], color_parameters[cell]
        size = _even_block(end - begin, block)
        for first in range(begin, end, size):
            n = min(end - first, size)
            _forward_block(
                x, harmonics, basis, ray_index, order, first, n, density_row, color_row, dims, density_layers,
                frequencies, activations, raw,
            )  # fmt: skip
            for s in range(n):
                point = order[first + s]
                density[point] = density_of(raw[s])
                for c in range(rgb.shape[1]):
                    rgb[point, c] = _ONE / (_ONE + np.exp(-activations[layers, c * n + s]))
                for c in range(hidden.shape[1]):
                    hidden[point, c] = activations[1, c * n + s]
                for c in range(geo.shape[1]):
                    geo[point, c] = activations[density_layers, c * n + s]


@njit(**FAST, **UNCALLED)
def _backward_layers(parameters, dims, first_layer, last_layer, n, activations, grads, weight_grad, total):
    """Back through layers ``last .. first`` of one network: ``grads[k + 1]`` holds dL/d output of layer k.

    Adds the parameters' gradient to ``total``. ``grads[0]``, of the position, is not computed.
    """
    end = len(parameters)
    for layer in range(last_layer - 1, first_layer - 1, -1):
        rows, columns = dims[layer, 0], dims[layer, 1]
        begin = end - rows * columns
        source = activations[layer, : rows * n]
        grad = grads[layer + 1, : columns * n].reshape((columns, n))
        np.dot(source.reshape((rows, n)), grad.T, weight_grad[: rows * columns].reshape((rows, columns)))
        layer_total = total[begin:end]
        for i in range(rows * columns):
            layer_total[i] += weight_grad[i]
        wanted = min(rows - 1, dims[layer - 1, 1]) if layer > 0 else 0
        if wanted > 0:
            weight = parameters[begin : begin + wanted * columns].reshape((wanted, columns))
            grad_source = grads[layer, : wanted * n]
            np.dot(weight, grad, grad_source.reshape((wanted, n)))
            if layer > first_layer:
                for i in range(wanted * n):
                    grad_source[i] = grad_source[i] if source[i] > _ZERO else _LEAK * grad_source[i]
        end = begin


@njit(**FAST)
def _backward(
    start, stop, pieces, order, x, harmonics, basis, ray_index, density_parameters, color_parameters, dims,
    density_layers, frequencies, block, density, rgb, grad_density, grad_rgb, grad_hidden, grad_geo,
    density_total, color_total, density_partial, color_partial,
):  # fmt: skip
    """Adds the parameters' gradient of ``pieces[start:stop]`` to the cell's row, or to the slot of a shared cell.

    Points whose outputs have no gradient are left out.
    """
    layers, widest = len(dims), _widest(dims)
    room = layers + 1, widest * block
    activations, grads = np.empty(room, np.float32), np.empty(room, np.float32)
    raw, weight_grad = np.empty(block, np.float32), np.empty(widest * widest, np.float32)
    geometry = dims[density_layers - 1, 1] - 1
    least_density = np.exp(-MAX_RAW)
    for piece in range(start, stop):
        cell, begin, end, slot = pieces[piece]
        density_row, color_row = density_parameters[cell], color_parameters[cell]
        density_sum = density_total[cell] if slot < 0 else density_partial[slot]
        color_sum = color_total[cell] if slot < 0 else color_partial[slot]
        which, count = np.empty(end - begin, np.int64), 0
        for point in order[begin:end]:
            if (
                grad_density[point] != _ZERO or any_nonzero(grad_rgb, point) or any_nonzero(grad_hidden, point)
                or any_nonzero(grad_geo, point)
            ):  # fmt: skip
                which[count] = point
                count += 1
        if count == 0:
            continue
        size = _even_block(count, block)
        for first in range(0, count, size):
            n = min(count - first, size)
            _forward_block(
                x, harmonics, basis, ray_index, which, first, n, density_row, color_row, dims, density_layers,
                frequencies, activations, raw,
            )  # fmt: skip
            grads[layers, : dims[layers - 1, 1] * n] = _ZERO
            for s in range(n):
                point = which[first + s]
                raw[s] = grad_density[point] * max(density[point], least_density)
                for c in range(rgb.shape[1]):
                    value = rgb[point, c]
                    grads[layers, c * n + s] = grad_rgb[point, c] * value * (_ONE - value)
            _backward_layers(color_row, dims, density_layers, layers, n, activations, grads, weight_grad, color_sum)
            for s in range(n):
                grads[density_layers, geometry * n + s] = raw[s]
                for c in range(grad_geo.shape[1]):
                    grads[density_layers, c * n + s] += grad_geo[which[first + s], c]
            if grad_hidden.shape[1] == 0:
                _backward_layers(
                    density_row, dims, FIRST, density_layers, n, activations, grads, weight_grad, density_sum
                )
                continue
            _backward_layers(density_row, dims, SECOND, density_layers, n, activations, grads, weight_grad, density_sum)
            for s in range(n):
                for c in range(grad_hidden.shape[1]):
                    grad = grads[1, c * n + s] + grad_hidden[which[first + s], c]
                    grads[1, c * n + s] = grad if activations[1, c * n + s] > _ZERO else _LEAK * grad
            own = dims[0, 0] * dims[0, 1]
            _backward_layers(
                density_row[:own], dims, FIRST, SECOND, n, activations, grads, weight_grad, density_sum[:own]
            )
