"""A grid of tiny radiance MLPs (KiloNeRF, Reiser et al. 2021): every point is evaluated by its own cell's network.

One network: Fourier features of the position in the cell -> leaky ReLU layers -> (geometry..., raw density); density is
a truncated exponential. [geometry, direction basis] -> leaky ReLU layers -> sigmoid colour. All layers have biases.
The density network may take harmonics of the direction behind the position's features (``layout.harmonics``).

A cell's parameters are one row of a (cells, P) matrix, one matrix per network: layer after layer, each (in + 1, out)
row-major with the bias in the last row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import resolve
from kernels.networks import grouped_mlp_numba
from kernels.networks.deferred_numba import ShadeNumba
from kernels.networks.grouped_layout import LEAK, GroupedLayout, fourier_features
from kernels.networks.radiance_mlp import TAPS, check_taps, mean_features, truncated_exp, twins_of, widened
from kernels.optimization.updates import TouchedRows


def grouped_radiance_mlp(
    x: Tensor,
    basis: Tensor,
    ray_index: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    color_parameters: Tensor,
    layout: GroupedLayout,
    taps: Sequence[str] = (),
    *,
    harmonics: Tensor | None = None,
    precision: torch.dtype | None = None,
    touched: tuple[TouchedRows, TouchedRows] | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Density and colour of points, each from its cell's network, and what flows inside, differentiable like them.

    Args:
        x: (N, 3) float32 in the cell's coordinates, [-1, 1] inside it. Not differentiated.
        basis: (R, layout.direction_width) encoded directions, one row per ray. Not differentiated.
        ray_index, cell_index: (N,) int64, the ray and the cell of each point.
        density_parameters: (cells, layout.density_size) float32; with torch and Triton also float16 or bfloat16: then
            factors of products have that type, sums remain float32 (with torch, those of one product).
        color_parameters: (cells, layout.color_size), of the same type.
        taps: ``hidden``, the density network's first hidden layer after its leaky ReLU, and ``geo``, the geometry
            features.
        harmonics: (R, layout.harmonics) what density networks take of each ray's direction; None: zeros. Not
            differentiated.
        precision: type that the parameters are rounded to; from Triton their gradients have their own type all the
            same. None: the parameters' own.
        touched: of the two matrices, to flag the cells to whose gradient the backward pass adds (by numba; the others,
            which keep no account of it, flag every cell on the CPU and none on a GPU, where nothing reads the flags).
        implementation: "auto", "torch", "numba" or "triton" (on CUDA torch where layers are more than 64 wide, or
            32 in full precision). The Triton twin keeps its activations to itself: with taps it is none.

    Returns:
        density (N,) >= 0, rgb (N, 3) in (0, 1), and each tap (N, width). The numba twin adds the gradients of float32
        leaves into their ``.grad`` in place, rows of touched cells only, rather than allocating dense ones in every
        step.

    Raises:
        ValueError: shapes do not fit, or a cell index is out of range (from Triton such a point's outputs are NaN, as
            the check would wait for the GPU); an unknown tap, or ``hidden`` of a density network without a hidden
            layer.
    """
    check_taps(taps, layout.density_layers)
    _check(x, cell_index, density_parameters, layout.density_size)
    _check(x, ray_index, color_parameters, layout.color_size)
    precision = density_parameters.dtype if precision is None else precision
    available = twins_of(precision, layout.widest, tapped=bool(taps))
    name = resolve("tapped_grouped_mlp" if taps else "grouped_mlp", implementation, x.device, available)
    for rows in touched or () if name != "numba" else ():
        rows.mark_all(x.device)
    places = x, _harmonics_or_zeros(harmonics, layout, x, len(basis)), basis, ray_index, cell_index
    if name == "triton":
        from kernels.networks.grouped_mlp_triton import GroupedMLPTriton

        return *GroupedMLPTriton.apply(*places, density_parameters, color_parameters, layout, precision), {}
    arguments = (*places, density_parameters.to(precision), color_parameters.to(precision), layout)
    if name == "torch":
        density, rgb, *inside = _radiance_torch(*arguments, first_hidden="hidden" in taps)
    else:
        wanted = tuple(tap in taps for tap in TAPS)
        density, rgb, *inside = grouped_mlp_numba.GroupedMLPNumba.apply(wanted, *arguments, touched)
    return density, rgb, {tap: values for tap, values in zip(TAPS, inside, strict=True) if tap in taps}


def grouped_geometry_mlp(
    x: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    layout: GroupedLayout,
    taps: Sequence[str] = (),
    *,
    harmonics: Tensor | None = None,
    ray_index: Tensor | None = None,
    precision: torch.dtype | None = None,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The density networks alone, differentiable: density (N,), geometry features (N, G), and each tap.

    Arguments are those of ``grouped_radiance_mlp``, but that the Triton twin gives ``geo`` too; in half
    precision the geometry features have its type. ``ray_index`` is needed where ``harmonics`` are given.

    Raises:
        ValueError: as there.
    """
    check_taps(taps, layout.density_layers)
    _check(x, cell_index, density_parameters, layout.density_size)
    precision = density_parameters.dtype if precision is None else precision
    available = twins_of(precision, layout.widest, tapped="hidden" in taps)
    name, hidden = resolve("grouped_geometry_mlp", implementation, x.device, available), None
    if touched is not None and name != "numba":
        touched.mark_all(x.device)
    if name != "triton":
        density_parameters = density_parameters.to(precision)
    harmonics, rows = _harmonics_and_rows(harmonics, ray_index, layout, x, cell_index)
    arguments = x, harmonics, rows, cell_index, density_parameters, layout
    if name == "triton":
        from kernels.networks.grouped_mlp_triton import GroupedGeometryTriton

        density, geo = GroupedGeometryTriton.apply(*arguments, precision)
    elif name == "torch":
        density, hidden, geo = _geometry_torch(*arguments, first_hidden="hidden" in taps)
    else:
        # No colour networks: their inputs have no direction, they have no parameters and their outputs no channels.
        places = x, harmonics, x.new_empty(0, 0), rows, cell_index
        networks = density_parameters, x.new_empty(len(density_parameters), 0), layout
        asked = ("hidden" in taps, True), *places, *networks, None if touched is None else (touched,)
        density, _, hidden, geo = grouped_mlp_numba.GroupedMLPNumba.apply(*asked)
    inside = {"hidden": hidden, "geo": geo}
    return density, geo, {tap: inside[tap] for tap in TAPS if tap in taps}


def color_network(geo: Tensor, basis: Tensor, parameters: Tensor, layout: GroupedLayout) -> Tensor:
    """One colour network (P,) alone: rgb (N, 3) of geometry features (N, G) and encoded directions (N, S)."""
    inputs = torch.cat([geo, basis], dim=-1).to(parameters.dtype)
    return torch.sigmoid(widened(_mlp(inputs, parameters, layout.color_dims)[1]))


def color_of_rays(
    features: Tensor,
    alpha: Tensor,
    basis: Tensor,
    parameters: Tensor,
    layout: GroupedLayout,
    *,
    precision: torch.dtype = torch.float32,
    implementation: str = "auto",
) -> Tensor:
    """Colour (R, 3) of rays by one colour network (P,); the rest is as of ``radiance_mlp.color_of_rays``."""
    name = resolve("color_of_rays", implementation, features.device, twins_of(precision, layout.widest))
    if name == "numba":
        sizes, dims = layout.color_dims.prod(axis=1).tolist(), layout.color_dims.tolist()
        matrices = [part.view(*shape) for part, shape in zip(parameters.split(sizes), dims, strict=True)]
        network = *(matrix[:-1] for matrix in matrices), *(matrix[-1] for matrix in matrices)
        return ShadeNumba.apply(features, alpha, basis, LEAK, len(matrices), *network)
    if name == "triton":
        from kernels.networks.deferred_triton import ShadeTriton
        from kernels.networks.grouped_mlp_triton import STYLE, network_of

        return ShadeTriton.apply(features, alpha, basis, network_of(layout.color_dims), parameters, STYLE, precision)
    return alpha[:, None] * color_network(mean_features(features, alpha), basis, parameters.to(precision), layout)


def grouped_density_mlp(
    x: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    layout: GroupedLayout,
    *,
    harmonics: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Density (N,) alone, arguments as in ``grouped_radiance_mlp``; differentiable with the torch one only.

    ``harmonics``, (N, layout.harmonics), are of points.
    """
    _check(x, cell_index, density_parameters, layout.density_size)
    available = twins_of(density_parameters.dtype, layout.widest)
    name = resolve("grouped_density_mlp", implementation, x.device, available)
    points = None if harmonics is None else torch.arange(len(x), device=x.device)
    harmonics, rows = _harmonics_and_rows(harmonics, points, layout, x, cell_index)
    if name == "triton":
        from kernels.networks import grouped_mlp_triton

        return grouped_mlp_triton.density(x.detach(), harmonics, rows, cell_index, density_parameters.detach(), layout)
    if name == "torch":
        return _geometry_torch(x, harmonics, rows, cell_index, density_parameters, layout)[0]
    return grouped_mlp_numba.density(x.detach(), harmonics, rows, cell_index, density_parameters, layout)


def _harmonics_or_zeros(harmonics: Tensor | None, layout: GroupedLayout, x: Tensor, count: int) -> Tensor:
    """(count, layout.harmonics) what density networks take of directions; of none at all nothing is made."""
    if harmonics is None or not layout.harmonics:
        return x.new_zeros(count if layout.harmonics else 0, layout.harmonics)
    if harmonics.shape != (count, layout.harmonics):
        raise ValueError(f"harmonics must be {(count, layout.harmonics)}, found {tuple(harmonics.shape)}")
    return harmonics if harmonics.stride(1) == 1 else harmonics.contiguous()


def _harmonics_and_rows(
    harmonics: Tensor | None, ray_index: Tensor | None, layout: GroupedLayout, x: Tensor, cell_index: Tensor
) -> tuple[Tensor, Tensor]:
    """Those of any number of rays, or one row of zeros, and each point's row."""
    if not layout.harmonics:
        return _harmonics_or_zeros(None, layout, x, 0), cell_index  # whose values nothing looks at
    if harmonics is None:
        return _harmonics_or_zeros(None, layout, x, 1), torch.zeros_like(cell_index)
    return _harmonics_or_zeros(harmonics, layout, x, len(harmonics)), ray_index


def _check(x: Tensor, index: Tensor, parameters: Tensor, size: int) -> None:
    if x.ndim != 2 or x.shape[1] != 3 or index.shape != x.shape[:1]:
        raise ValueError(f"x must be (N, 3) and an index (N,), found {tuple(x.shape)} and {tuple(index.shape)}")
    if parameters.ndim != 2 or parameters.shape[1] != size or not parameters.is_contiguous():
        raise ValueError(f"parameters must be contiguous (cells, {size}), found {tuple(parameters.shape)}")


def _radiance_torch(
    x: Tensor,
    harmonics: Tensor,
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
    encoded = _inputs(x, harmonics, ray_index, layout)[order].to(density_parameters.dtype).split(counts)
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


def _geometry_torch(
    x: Tensor,
    harmonics: Tensor,
    ray_index: Tensor,
    cell_index: Tensor,
    density_parameters: Tensor,
    layout: GroupedLayout,
    first_hidden: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Density, the first hidden layer (without columns unless ``first_hidden``), geometry features."""
    order, groups = _groups(cell_index)
    encoded = _inputs(x, harmonics, ray_index, layout)[order].to(density_parameters.dtype)
    networks, geometry = density_parameters.unbind(), layout.geo_features
    first_width = int(layout.density_dims[0, 1]) if first_hidden else 0
    # An empty slice of the parameters, so that no points at all still have a gradient.
    outputs = [density_parameters[:0, :1].expand(0, geometry + 1 + first_width)]
    for cell, position in zip(groups, encoded.split(list(groups.values())), strict=True):
        first, last = _mlp(position, networks[cell], layout.density_dims)
        outputs.append(torch.cat([last, first[:, :first_width]], dim=-1))
    geo, raw, first = _unsorted(torch.cat(outputs), order).split([geometry, 1, first_width], dim=-1)
    return truncated_exp(widened(raw[:, 0])), F.leaky_relu(first, LEAK), geo


def _inputs(x: Tensor, harmonics: Tensor, ray_index: Tensor, layout: GroupedLayout) -> Tensor:
    """(N, I) what density networks take of points."""
    features = fourier_features(x, layout.frequencies)
    return torch.cat([features, harmonics[ray_index]], dim=-1) if layout.harmonics else features


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
