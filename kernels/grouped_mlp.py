"""A grid of tiny radiance MLPs (KiloNeRF, Reiser et al. 2021): every point is evaluated by its own cell's network.

One network: Fourier features of the position in the cell -> leaky ReLU layers -> (geometry..., raw density); density is
a truncated exponential. [geometry, direction basis] -> leaky ReLU layers -> sigmoid colour. All layers have biases.

A cell's parameters are one row of a (cells, P) matrix, one matrix per network: layer after layer, each (in + 1, out)
row-major with the bias in the last row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import grouped_mlp_numba as numba_twin
from kernels.adam import TouchedRows
from kernels.dispatch import resolve
from kernels.grouped_layout import GroupedLayout, fourier_features
from kernels.radiance_mlp import TAPS, check_taps, truncated_exp, twins_without_triton, widened
from kernels.threads import parallel_for

# Slope of a neuron that is off: a cell sees few points, and a plain ReLU that none of them reaches stays dead.
LEAK = numba_twin.LEAK
_BLOCK = 160
_PIECE = 4096  # points of one cell that one thread takes at a time
_GRAIN = 2048
# OpenBLAS multiplies matrices up to this many multiply-adds on the calling thread; larger ones would make our
# threads wait for its own pool.
_SINGLE_THREAD_GEMM = 262144


def grouped_radiance_mlp(
    x: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    color_parameters: Tensor,
    layout: GroupedLayout,
    *,
    touched: tuple[TouchedRows, TouchedRows] | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Density and colour of points, each from its cell's network.

    Args:
        x: (N, 3) float32 in the cell's coordinates, [-1, 1] inside it. Not differentiated.
        basis: (R, layout.direction_width) encoded directions, one row per ray. Not differentiated.
        ray_index, cell_index: (N,) int64, the ray and the cell of each point.
        density_parameters: (cells, layout.density_size) float32; with torch and Triton also float16 or bfloat16: then
            factors of products have that type, sums remain float32 (with torch, those of one product).
        color_parameters: (cells, layout.color_size), of the same type.
        touched: of the two matrices, to flag the cells to whose gradient the backward pass adds (by numba; the others,
            which keep no account of it, flag every cell on the CPU and none on a GPU, where nothing reads the flags).
        implementation: "auto", "torch", "numba" or "triton" (layers up to 128 wide).

    Returns:
        density (N,) >= 0 and rgb (N, 3) in (0, 1). The numba twin adds the parameters' gradients into their ``.grad``
        in place, rows of touched cells only, rather than allocating dense ones in every step.

    Raises:
        ValueError: shapes do not fit, or a cell index is out of range (from Triton such a point's outputs are NaN, as
            the check would wait for the GPU).
    """
    _check(x, cell_index, density_parameters, layout.density_size)
    _check(x, ray_index, color_parameters, layout.color_size)
    name = resolve("grouped_mlp", implementation, x.device, (*twins_without_triton(density_parameters), "triton"))
    _mark(touched, name, x)
    arguments = (x, basis, ray_index, cell_index, density_parameters, color_parameters, layout)
    if name == "torch":
        return _radiance_torch(*arguments)[:2]
    if name == "triton":
        from kernels.grouped_mlp_triton import GroupedMLPTriton

        return GroupedMLPTriton.apply(*arguments, LEAK)
    return _GroupedNumba.apply((), *arguments, touched)[:2]


def tapped_grouped_radiance_mlp(
    x: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    color_parameters: Tensor,
    layout: GroupedLayout,
    taps: Sequence[str],
    *,
    touched: tuple[TouchedRows, TouchedRows] | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """As ``grouped_radiance_mlp``, and what flows inside, differentiable like the outputs.

    Args:
        taps: ``hidden``, the density network's first hidden layer after its leaky ReLU, and ``geo``, the geometry
            features.
        implementation: "auto", "torch" or "numba": the Triton twin keeps its activations to itself. Without taps, as
            there.

    Returns:
        density (N,), rgb (N, 3), and each tap (N, width).

    Raises:
        ValueError: as there; an unknown tap, or ``hidden`` of a density network without a hidden layer.
    """
    check_taps(taps, layout.density_layers)
    arguments = (x, basis, ray_index, cell_index, density_parameters, color_parameters, layout)
    if not taps:
        return *grouped_radiance_mlp(*arguments, touched=touched, implementation=implementation), {}
    _check(x, cell_index, density_parameters, layout.density_size)
    _check(x, ray_index, color_parameters, layout.color_size)
    name = resolve("tapped_grouped_mlp", implementation, x.device, twins_without_triton(density_parameters))
    _mark(touched, name, x)
    if name == "torch":
        density, rgb, *inside = _radiance_torch(*arguments, first_hidden="hidden" in taps)
    else:
        density, rgb, *inside = _GroupedNumba.apply(tuple(taps), *arguments, touched)
    return density, rgb, {tap: values for tap, values in zip(TAPS, inside, strict=True) if tap in taps}


def grouped_density_mlp(
    x: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    layout: GroupedLayout,
    *,
    implementation: str = "auto",
) -> Tensor:
    """Density (N,) alone, arguments as in ``grouped_radiance_mlp``; differentiable with the torch one only."""
    _check(x, cell_index, density_parameters, layout.density_size)
    available = (*twins_without_triton(density_parameters), "triton")
    name = resolve("grouped_density_mlp", implementation, x.device, available)
    if name == "triton":
        from kernels import grouped_mlp_triton

        dims = layout.density_dims
        return grouped_mlp_triton.density(x.detach(), cell_index, density_parameters.detach(), dims, LEAK)
    if name == "torch":
        order, groups = _groups(cell_index)
        encoded = fourier_features(x, layout.frequencies)[order].to(density_parameters.dtype)
        networks = density_parameters.unbind()
        raw = [
            _mlp(part, networks[cell], layout.density_dims)[1][:, -1]
            for cell, part in zip(groups, encoded.split(list(groups.values())), strict=True)
        ]
        return truncated_exp(widened(_unsorted(torch.cat([density_parameters[:0, 0], *raw]), order)))
    order, pieces, _ = _route(cell_index, len(density_parameters))
    density = torch.empty(len(x))
    parallel_for(
        numba_twin.density_forward,
        len(pieces),
        pieces,
        order,
        x.detach().contiguous().numpy(),
        density_parameters.detach().numpy(),
        layout.density_dims,
        layout.frequencies,
        _block(layout.density_dims),
        density.numpy(),
        grain=_grain(pieces, order),
    )
    return density


def _mark(touched: tuple[TouchedRows, TouchedRows] | None, name: str, x: Tensor) -> None:
    for rows in touched or () if name != "numba" else ():
        rows.mark_all(x.device)


def _check(x: Tensor, index: Tensor, parameters: Tensor, size: int) -> None:
    if x.ndim != 2 or x.shape[1] != 3 or index.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, 3) and an index (N,), found {tuple(x.shape)} and {tuple(index.shape)}")
    if parameters.ndim != 2 or parameters.shape[1] != size or not parameters.is_contiguous():
        raise ValueError(f"parameters must be contiguous (cells, {size}), found {tuple(parameters.shape)}")


def _radiance_torch(
    x: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    color_parameters: Tensor,
    layout: GroupedLayout,
    first_hidden: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Density, rgb, the first hidden layer (without columns unless ``first_hidden``), geometry features."""
    order, groups = _groups(cell_index)
    counts = list(groups.values())
    encoded = fourier_features(x, layout.frequencies)[order].to(density_parameters.dtype).split(counts)
    directions = basis[ray_index[order]].to(density_parameters.dtype).split(counts)
    density_networks, color_networks = density_parameters.unbind(), color_parameters.unbind()
    first_width, geometry = int(layout.density_dims[0, 1]) if first_hidden else 0, layout.geo_features
    # Empty slices of the parameters, so that no points at all still have a gradient.
    nothing = density_parameters[:0, :1] + color_parameters[:0, :1]
    outputs = [nothing.expand(0, 4 + geometry + first_width)]
    for cell, position, direction in zip(groups, encoded, directions, strict=True):
        first, hidden = _mlp(position, density_networks[cell], layout.density_dims)
        _, color = _mlp(torch.cat([hidden[:, :-1], direction], dim=-1), color_networks[cell], layout.color_dims)
        outputs.append(torch.cat([hidden[:, -1:], color, hidden[:, :-1], first[:, :first_width]], dim=-1))
    output = _unsorted(torch.cat(outputs), order)
    raw, color, geo, first = output.split([1, 3, geometry, first_width], dim=-1)
    return truncated_exp(widened(raw[:, 0])), torch.sigmoid(widened(color)), F.leaky_relu(first, LEAK), geo


def _groups(cell_index: Tensor) -> tuple[Tensor, dict[int, int]]:
    """Points sorted by cell, and the number of points of each cell that has any."""
    order = torch.argsort(cell_index, stable=True)
    cells, counts = torch.unique_consecutive(cell_index[order], return_counts=True)
    return order, dict(zip(cells.tolist(), counts.tolist(), strict=True))


def _unsorted(values: Tensor, order: Tensor) -> Tensor:
    return values[torch.argsort(order)]


def _mlp(x: Tensor, parameters: Tensor, dims: np.ndarray) -> tuple[Tensor, Tensor]:
    """Leaky ReLU layers of one cell on x (n, in), the last of them linear: its first layer's raw output, the last's."""
    matrices = parameters.split(dims.prod(axis=1).tolist())
    outputs = []
    for layer, (matrix, (rows, columns)) in enumerate(zip(matrices, dims.tolist(), strict=True)):
        matrix = matrix.view(rows, columns)
        x = torch.addmm(matrix[-1], F.leaky_relu(x, LEAK) if layer else x, matrix[:-1])
        outputs.append(x)
    return outputs[0], outputs[-1]


def _route(cell_index: Tensor, cells: int) -> tuple[np.ndarray, np.ndarray, int]:
    if len(cell_index):
        lowest, highest = (int(bound) for bound in torch.aminmax(cell_index))
        if lowest < 0 or highest >= cells:
            raise ValueError(f"cell_index: found {lowest} to {highest}, expected 0 to {cells - 1}")
    return numba_twin.route(cell_index.contiguous().numpy(), cells, _PIECE)


def _block(dims: np.ndarray) -> int:
    """Points per block: few enough for the caches and for single-threaded matrix products."""
    return int(np.clip(_SINGLE_THREAD_GEMM // int(dims.prod(axis=1).max()), 1, _BLOCK))


def _grain(pieces: np.ndarray, order: np.ndarray) -> int:
    """Pieces in one task. Every piece has its own sum, so the results do not depend on this."""
    return max(1, len(pieces) * _GRAIN // max(1, len(order)))


class _GroupedNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, taps, x, basis, ray_index, cell_index, density_parameters, color_parameters, layout, touched):
        order, pieces, slots = _route(cell_index, len(density_parameters))
        dims = np.concatenate([layout.density_dims, layout.color_dims])
        arguments = (
            pieces,
            order,
            x.detach().contiguous().numpy(),
            basis.detach().contiguous().numpy(),
            ray_index.contiguous().numpy(),
            density_parameters.detach().numpy(),
            color_parameters.detach().numpy(),
            dims,
            len(layout.density_dims),
            layout.frequencies,
            _block(dims),
        )
        density, rgb = torch.empty(len(x)), torch.empty(len(x), 3)
        widths = int(layout.density_dims[0, 1]), layout.geo_features
        # Taps that are not asked for have no columns.
        inside = [torch.empty(len(x), width if tap in taps else 0) for tap, width in zip(TAPS, widths, strict=True)]
        outputs = [output.numpy() for output in (density, rgb, *inside)]
        grain = _grain(pieces, order)
        parallel_for(numba_twin.radiance_forward, len(pieces), *arguments, *outputs, grain=grain)
        ctx.arguments, ctx.slots, ctx.touched, ctx.grain = arguments, slots, touched, grain
        ctx.parameters = (density_parameters, color_parameters)
        ctx.save_for_backward(density, rgb)
        return density, rgb, *inside

    @staticmethod
    def backward(ctx, grad_density, grad_rgb, *grad_inside):
        pieces = ctx.arguments[0]
        for parameter in ctx.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        totals = [parameter.grad for parameter in ctx.parameters]
        # A cell of many points is shared out: one partial sum per piece, added in order, so that the bits do not
        # depend on the number of threads.
        partials = [torch.zeros(ctx.slots, total.shape[1]) for total in totals]
        parallel_for(
            numba_twin.radiance_backward,
            len(pieces),
            *ctx.arguments,
            *(output.numpy() for output in ctx.saved_tensors),
            grad_density.contiguous().numpy(),
            grad_rgb.contiguous().numpy(),
            *(grad.contiguous().numpy() for grad in grad_inside),
            *(total.numpy() for total in totals),
            *(partial.numpy() for partial in partials),
            grain=ctx.grain,
        )
        cells = torch.from_numpy(pieces[:, 0])
        shared = cells[torch.from_numpy(pieces[:, 3]) >= 0]
        for total, partial in zip(totals, partials, strict=True):
            total.index_add_(0, shared, partial)
        for touched in ctx.touched or ():
            touched.flags[cells // touched.rows_per_flag] = 1
        return (None,) * 9
