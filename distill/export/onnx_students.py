"""The students' own arithmetic as ONNX operations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from distill.export.onnx_graph import Graph
from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z
from kernels.encoding.spherical_harmonics import sh_basis
from kernels.networks.grouped_layout import LEAK
from kernels.networks.radiance_mlp import MAX_RAW_DENSITY
from students.base import Student
from students.hash_grid import HashGridStudent
from students.kilo_uniform import KiloUniformStudent

_POWERS = np.array([powers for powers in itertools.product(range(5), repeat=3) if sum(powers) <= 4], np.float32)


def cell_number(graph: Graph, cell: str, shape: Sequence[int]) -> str:
    """(...) int64 number, z fastest, of cells (..., 3) given as whole float32."""
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    return graph.total(graph.op("Mul", graph.whole_numbers(cell), strides), -1)


def direction_basis(graph: Graph, directions: str, degree: int) -> str:
    """(n, S) ``sh_basis``, a polynomial: monomials of the direction times coefficients, which are read off it."""
    powers = _POWERS[_POWERS.sum(1) <= degree]
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4 * len(powers), 3, generator=generator, dtype=torch.float64)
    monomials = (points[:, None] ** torch.from_numpy(powers).double()).prod(-1)
    coefficients = torch.linalg.lstsq(monomials, sh_basis(points, degree)).solution.numpy().round(12)
    raised = graph.op("Pow", graph.reshaped(directions, -1, 1, 3), powers[None])
    product = graph.op("ReduceProd", raised, np.array([-1]), keepdims=0)
    return graph.op("MatMul", product, coefficients.astype(np.float32))


def shade(graph: Graph, student: Student, features: str, basis: str) -> str:
    """(n, 3) colours of features (n, C) and encoded directions (n, S)."""
    inputs = graph.op("Concat", features, basis, axis=-1)
    if isinstance(student, HashGridStudent):
        return graph.op("Sigmoid", _layers(graph, inputs, student.color_weights))
    network = student.color_networks[:1]
    return graph.op("Sigmoid", _grouped_layers(graph, inputs, None, network, student.layout.color_dims))


def _hash_emission(graph: Graph, student: HashGridStudent, positions: str, basis: str) -> tuple[str, str]:
    """Density (n,) in the student's units and channels (n, C): colours, or of a deferred student features."""
    place = graph.op("Sub", positions, _array(student.box[0]))
    unit = graph.clipped(graph.op("Div", place, _array(student.longest_side)[None]), 0.0, 1.0)
    unit, layout, table = graph.reshaped(unit, -1, 1, 3), student.layout, graph.constant(_array(student.table))
    # Neighbouring levels of one kind are computed together.
    ends = np.flatnonzero(np.diff(layout.hashed) | np.diff(layout.normals >= 0)) + 1
    groups = itertools.pairwise([0, *ends.tolist(), layout.count])
    parts = [_levels(graph, student, unit, table, slice(*group)) for group in groups]
    encoding = graph.reshaped(graph.op("Concat", *parts, axis=1), -1, layout.output_width)
    encoding = _with_harmonics(graph, student, encoding, basis)
    output = _layers(graph, encoding, student.density_weights)
    raw, geo = graph.column(output, 0), graph.op("Slice", output, np.array([1]), np.array([1 << 31]), np.array([1]))
    density = _density(graph, raw)
    return density, geo if student.deferred else shade(graph, student, geo, basis)


def _with_harmonics(graph: Graph, student: Student, encoding: str, basis: str) -> str:
    """(n, I) what the density network takes of encoded places (n, C) and directions (n, S)."""
    if student.density_degree is None:
        return encoding
    end = np.array([(student.density_degree + 1) ** 2])
    return graph.op("Concat", encoding, graph.op("Slice", basis, np.array([1]), end, np.array([1])), axis=-1)


def _levels(graph: Graph, student: HashGridStudent, unit: str, table: str, group: slice) -> str:
    """(n, L, F) encoding of places (n, 1, 3) in [0, 1] by L levels: all dense or hashed, all grids or planes."""
    layout = student.layout
    columns = np.array([layout.axes(level) for level in range(group.start, group.stop)])
    count, axes = columns.shape
    if axes < 3:
        unit = graph.reshaped(graph.op("Gather", unit, columns, axis=2), -1, count, axes)
    place = graph.op("Add", graph.op("Mul", unit, layout.scales[group, None]), 0.5)
    below = graph.op("Floor", place)
    weight = _corner_products(graph, graph.op("Sub", place, below), axes)
    corner = graph.op("Unsqueeze", graph.whole_numbers(below), np.array([2]))
    vertex = graph.op("Add", corner, _corners(axes).astype(np.int64))
    sizes = (layout.offsets[1:] - layout.offsets[:-1])[group, None]
    if layout.hashed[group.start]:
        hashes = graph.op("Mul", vertex, np.array([1, PRIME_Y, PRIME_Z][:axes]))
        index = graph.column(hashes, 0)
        for axis in range(1, axes):
            index = graph.op("BitwiseXor", index, graph.column(hashes, axis))
        index = graph.op("BitwiseAnd", index, sizes - 1)
    else:
        strides = layout.resolutions[group, None] ** np.arange(axes)
        index = graph.op("Mod", graph.total(graph.op("Mul", vertex, strides[:, None]), -1), sizes)
    entries = graph.op("Gather", table, graph.op("Add", index, layout.offsets[:-1][group, None]))
    return graph.total(graph.op("Mul", entries, weight), 2)


def _corners(axes: int) -> np.ndarray:
    """(2**axes, axes) bool: along which axes each corner of a cell is an upper one."""
    return np.array(list(itertools.product((False, True), repeat=axes)))


def _corner_products(graph: Graph, upper: str, axes: int) -> str:
    """(..., 2**axes, 1) weights of the corners of which ``upper`` (..., axes) is the upper ones' along each axis."""
    upper = graph.op("Unsqueeze", upper, np.array([-2]))
    along = graph.op("Where", _corners(axes), upper, graph.op("Sub", 1.0, upper))
    return graph.op("ReduceProd", along, np.array([-1]), keepdims=1)


def _layers(graph: Graph, values: str, weights: Sequence[Tensor]) -> str:
    for number, weight in enumerate(weights):
        values = graph.op("Relu", values) if number else values
        values = graph.op("MatMul", values, _array(weight).T)
    return values


def _density(graph: Graph, raw: str) -> str:
    return graph.op("Exp", graph.op("Min", raw, MAX_RAW_DENSITY))


def _kilo_emission(graph: Graph, student: KiloUniformStudent, positions: str, basis: str) -> tuple[str, str]:
    """As ``_hash_emission``."""
    cells, layout = np.array(student.grid, np.float32), student.layout
    scale = _array(torch.tensor(student.grid, device=student.box.device) / (student.box[1] - student.box[0]))
    place = graph.op("Mul", graph.op("Sub", positions, _array(student.box[0])), scale)
    corner = graph.clipped(graph.op("Floor", place), 0.0, cells - 1)
    local = graph.op("Sub", graph.op("Mul", graph.op("Sub", place, corner), 2.0), 1.0)
    cell = graph.reshaped(cell_number(graph, corner, student.grid), -1)
    encoded = _with_harmonics(graph, student, _fourier(graph, local, layout.frequencies), basis)
    output = _grouped_layers(graph, encoded, cell, student.density_networks, layout.density_dims)
    density = _density(graph, graph.column(output, layout.geo_features))
    channels = graph.op("Slice", output, np.array([0]), np.array([layout.geo_features]), np.array([1]))
    if student.deferred:
        return density, channels
    inputs = graph.op("Concat", channels, basis, axis=-1)
    colors = _grouped_layers(graph, inputs, cell, student.color_networks, layout.color_dims)
    return density, graph.op("Sigmoid", colors)


def _fourier(graph: Graph, local: str, frequencies: int) -> str:
    """``fourier_features``."""
    parts = [local]
    for octave in range(frequencies):
        angle = graph.op("Mul", local, 2.0**octave * np.pi / 2)
        parts += [graph.op("Sin", angle), graph.op("Cos", angle)]
    return graph.op("Concat", *parts, axis=-1)


def _grouped_layers(graph: Graph, values: str, cell: str | None, networks: Tensor, dims: np.ndarray) -> str:
    """Leaky ReLU layers on (m, in), each row by its cell's network; ``cell`` None: all by the only one there is."""
    matrices = _array(networks)
    starts = np.concatenate([[0], np.cumsum(dims.prod(axis=1))])
    if cell is not None:
        values = graph.op("Unsqueeze", values, np.array([1]))
    for layer, (rows, columns) in enumerate(dims.tolist()):
        matrix = matrices[:, starts[layer] : starts[layer + 1]].reshape(-1, rows, columns)
        weight, bias = matrix[:, :-1], matrix[:, -1:]
        if cell is None:
            weight, bias = weight[0], bias[0]
        else:
            weight, bias = graph.op("Gather", weight, cell), graph.op("Gather", bias, cell)
        values = graph.op("LeakyRelu", values, alpha=LEAK) if layer else values
        values = graph.op("Add", graph.op("MatMul", values, weight), bias)
    return values if cell is None else graph.op("Squeeze", values, np.array([1]))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


EMISSIONS = {HashGridStudent: _hash_emission, KiloUniformStudent: _kilo_emission}
"""Of the students that can be expressed: (graph, student, positions, basis) -> density (n,), channels (n, C)."""
