"""Triton twin of the grouped radiance MLPs: points sorted by cell, a program takes up to 512 points of one cell.

The schedule is made on the device and nothing waits for it: a launch has as many programs as there can be pieces, and
those left over have no points. Fourier features are made in registers, the backward pass recomputes activations.

A program adds the weight gradients of its blocks up and writes them to a row that no other program writes: the cell's
own row for the cell's first piece, a spare row for each further one, which are added to the cell's in order afterwards.
So the bits are the same in every run; a cell that half the points fall into is shared out over many multiprocessors,
where one program per cell would have the other 131 of an H100 wait for it; and rows of this size stay in its 50 MB L2
cache.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.networks.deferred_triton import output_gradient, store_geometry
from kernels.networks.grouped_layout import LEAK, GroupedLayout
from kernels.networks.grouped_schedule_triton import schedule
from kernels.networks.mlp_rows_triton import (
    load_behind,
    load_directions,
    logit_gradient,
    store_color,
    store_density,
    with_raw_gradient,
)
from kernels.networks.mlp_triton import (
    backward_block_of,
    block_of,
    color_gradient,
    launch_options,
    load_color,
    load_density,
    network,
    network_gradient,
    precision_on,
    run_color,
    run_network,
    store_color_sums,
    store_density_sums,
    zeros_like,
)
from kernels.triton_support import launch_on

_PIECE = 512  # points of one cell that one program takes
_FOLD = 1024  # parameters that one program adds up
STYLE = (LEAK, True, False)
# Taylor's series of the sine of so many turns; up to a quarter turn what is left out is less than 1e-9.
_SINE = tl.constexpr(tuple((-1) ** n * math.tau ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(7)))


@triton.jit
def _piece(pieces):
    """Cell, first and last + 1 position and gradient row of this program."""
    piece = pieces + tl.program_id(0) * 4
    return tl.load(piece).to(tl.int64), tl.load(piece + 1), tl.load(piece + 2), tl.load(piece + 3).to(tl.int64)


@triton.jit
def axis_of(PADDED: tl.constexpr):
    """The coordinate that each channel of the encoding is made of."""
    channel = tl.arange(0, PADDED)
    return tl.where(channel < 3, channel, tl.maximum(channel - 3, 0) % 3)


@triton.jit
def _sine(turns):
    """Sine of an angle of -1/2 to 3/4 turns: without the branch that ``tl.sin`` keeps for angles of any size."""
    turns = tl.where(turns > 0.25, 0.5 - turns, tl.where(turns < -0.25, -0.5 - turns, turns))
    square = turns * turns
    series = square * _SINE[6]
    for n in tl.static_range(5, 0, -1):
        series = (series + _SINE[n]) * square
    return (series + _SINE[0]) * turns


@triton.jit
def encode(place, live, CHANNELS: tl.constexpr, PADDED: tl.constexpr, TYPE: tl.constexpr):
    """[x, sin and cos of 2**k * pi/2 * x for every k]; place (BLOCK, PADDED) is each channel's coordinate.

    Angles are in turns, of which whole ones are taken away, which is exact; a cosine is a sine a quarter turn on.
    """
    channel = tl.arange(0, PADDED)
    wave = tl.maximum(channel - 3, 0)
    frequency = tl.exp2((wave // 6).to(tl.float32)) * 0.25
    turns = place * frequency[None, :]
    turns -= tl.floor(turns + 0.5)
    value = _sine(turns + tl.where(wave % 6 >= 3, 0.25, 0.0)[None, :])
    exists = live[:, None] & (channel < CHANNELS)[None, :]
    return tl.where((channel < 3)[None, :], place, tl.where(exists, value, 0.0)).to(TYPE)


@triton.jit
def _encoded_points(
    order, first, last, x, harmonics, ray_index, parameters, HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr,
    NET: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Points of a block, which of its places have one, and what their network takes, in its parameters' type."""
    kind: tl.constexpr = parameters.dtype.element_ty
    position: tl.constexpr = NET[0][0] - HARMONICS
    block = first + tl.arange(0, BLOCK)
    live = block < last
    point = tl.load(order + block, mask=live, other=0)
    mask = live[:, None] & (tl.arange(0, NET[1][0]) < position)[None, :]
    place = tl.load(x + point[:, None] * 3 + axis_of(NET[1][0])[None, :], mask=mask, other=0.0).to(tl.float32)
    encoded = encode(place, live, position, NET[1][0], kind)
    if HARMONICS > 0:
        ray = tl.load(ray_index + point, mask=live, other=0)
        encoded += load_behind(harmonics, ray, live, 0, HARMONICS, SEEN_ROW, position, NET[1][0]).to(kind)
    return point, live, encoded


@triton.jit
def _density(
    pieces, order, x, harmonics, ray_index, parameters, density,
    HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    cell, begin, end, row = _piece(pieces)
    weights = load_density(parameters + cell * NET[2][len(NET[0]) - 1], NET, STYLE)
    for first in range(begin, end, BLOCK):
        point, live, encoded = _encoded_points(
            order, first, end, x, harmonics, ray_index, parameters, HARMONICS, SEEN_ROW, NET, BLOCK
        )
        output, _ = run_network((encoded,), weights, NET, STYLE, PRECISION)
        store_density(output, density, point, live, NET[0][len(NET[0]) - 1] - 1)


@triton.jit
def _radiance(
    pieces, order, x, harmonics, basis, ray_index, density_parameters, color_parameters, density, rgb,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, GEOMETRY: tl.constexpr, HARMONICS: tl.constexpr,
    SEEN_ROW: tl.constexpr, DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell, begin, end, row = _piece(pieces)
    of_density = load_density(density_parameters + cell * DENSITY[2][len(DENSITY[0]) - 1], DENSITY, STYLE)
    color_parameters += cell * COLOR[2][len(COLOR[0]) - 1]
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    of_color = load_color(color_parameters, output_pad, DIRECTION_PAD, GEOMETRY, GEOMETRY, COLOR, STYLE)
    for first in range(begin, end, BLOCK):
        point, live, encoded = _encoded_points(
            order, first, end, x, harmonics, ray_index, density_parameters, HARMONICS, SEEN_ROW, DENSITY, BLOCK
        )
        output, _ = run_network((encoded,), of_density, DENSITY, STYLE, PRECISION)
        store_density(output, density, point, live, GEOMETRY)
        direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, encoded.dtype)
        logits, _ = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
        store_color(logits, rgb, point, live)


@triton.jit
def _radiance_backward(
    pieces, order, x, harmonics, basis, ray_index, density_parameters, color_parameters, density, rgb, grad_density,
    grad_rgb, density_totals, color_totals,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, GEOMETRY: tl.constexpr, HARMONICS: tl.constexpr,
    SEEN_ROW: tl.constexpr, DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    cell, begin, end, row = _piece(pieces)
    of_density = load_density(density_parameters + cell * DENSITY[2][len(DENSITY[0]) - 1], DENSITY, STYLE)
    color_parameters += cell * COLOR[2][len(COLOR[0]) - 1]
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    of_color = load_color(color_parameters, output_pad, DIRECTION_PAD, GEOMETRY, GEOMETRY, COLOR, STYLE)
    density_sums, color_sums = zeros_like(of_density), zeros_like(of_color)
    for first in range(begin, end, BLOCK):
        point, live, encoded = _encoded_points(
            order, first, end, x, harmonics, ray_index, density_parameters, HARMONICS, SEEN_ROW, DENSITY, BLOCK
        )
        output, density_inputs = run_network((encoded,), of_density, DENSITY, STYLE, PRECISION)
        direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, encoded.dtype)
        _, color_inputs = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
        grad = logit_gradient(grad_rgb, rgb, point, live, COLOR[1][len(COLOR[0]) - 1])
        grad, color_sums = color_gradient(grad, color_inputs, of_color, color_sums, COLOR, STYLE, PRECISION)
        grad = with_raw_gradient(grad, grad_density, density, point, live, GEOMETRY)
        _, density_sums = network_gradient(grad, density_inputs, of_density, density_sums, DENSITY, STYLE, PRECISION)
    if begin < end:
        store_density_sums(density_totals + row * DENSITY[2][len(DENSITY[0]) - 1], density_sums, DENSITY, STYLE)
        color_totals += row * COLOR[2][len(COLOR[0]) - 1]
        store_color_sums(color_totals, color_sums, GEOMETRY, GEOMETRY, COLOR, STYLE)


@triton.jit
def _geometry(
    pieces, order, x, harmonics, ray_index, parameters, density, geometry,
    HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    cell, begin, end, row = _piece(pieces)
    weights = load_density(parameters + cell * NET[2][len(NET[0]) - 1], NET, STYLE)
    features: tl.constexpr = NET[0][len(NET[0]) - 1] - 1
    for first in range(begin, end, BLOCK):
        point, live, encoded = _encoded_points(
            order, first, end, x, harmonics, ray_index, parameters, HARMONICS, SEEN_ROW, NET, BLOCK
        )
        output, _ = run_network((encoded,), weights, NET, STYLE, PRECISION)
        store_density(output, density, point, live, features)
        store_geometry(output, geometry, point, live, features, features)


@triton.jit
def _geometry_backward(
    pieces, order, x, harmonics, ray_index, parameters, density, grad_density, grad_geometry, totals,
    HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    cell, begin, end, row = _piece(pieces)
    weights = load_density(parameters + cell * NET[2][len(NET[0]) - 1], NET, STYLE)
    features: tl.constexpr = NET[0][len(NET[0]) - 1] - 1
    output_pad: tl.constexpr = NET[1][len(NET[0]) - 1]
    sums = zeros_like(weights)
    for first in range(begin, end, BLOCK):
        point, live, encoded = _encoded_points(
            order, first, end, x, harmonics, ray_index, parameters, HARMONICS, SEEN_ROW, NET, BLOCK
        )
        _, inputs = run_network((encoded,), weights, NET, STYLE, PRECISION)
        grad = output_gradient(grad_density, grad_geometry, density, point, live, features, features, output_pad)
        _, sums = network_gradient(grad, inputs, weights, sums, NET, STYLE, PRECISION)
    if begin < end:
        store_density_sums(totals + row * NET[2][len(NET[0]) - 1], sums, NET, STYLE)


@triton.jit
def _fold(totals, spare, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Adds a cell's spare rows, in order, to its own."""
    cell = tl.program_id(0)
    first, count = tl.load(spare + 2 * cell), tl.load(spare + 2 * cell + 1)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < SIZE
    if count > 0:
        own = totals + cell.to(tl.int64) * SIZE + column
        total = tl.load(own, mask=mask, other=0.0)
        for row in range(first, first + count):
            total += tl.load(totals + (row + tl.zeros((BLOCK,), tl.int64)) * SIZE + column, mask=mask, other=0.0)
        tl.store(own, total, mask=mask)


def density(
    x: Tensor, harmonics: Tensor, ray_index: Tensor, cell_index: Tensor, parameters: Tensor, layout: GroupedLayout
) -> Tensor:
    """Density (N,), float32; NaN of points whose cell is out of range."""
    result = x.new_full((len(x),), float("nan"), dtype=torch.float32)
    net = network_of(layout.density_dims)
    if len(x):
        order, pieces, _, _ = schedule(cell_index, len(parameters), _PIECE)
        with launch_on(x.device):
            _density[(len(pieces),)](
                pieces, order, x.contiguous(), harmonics, ray_index.contiguous(), parameters, result,
                NET=net, STYLE=STYLE, PRECISION=precision_on(x.device), **_seen(harmonics), **block_of([net]),
            )  # fmt: skip
    return result


class GroupedMLPTriton(torch.autograd.Function):
    """Density and colour, float32, of points; ``precision`` is the type of the products' factors."""

    @staticmethod
    def forward(
        ctx, x, harmonics, basis, ray_index, cell_index, density_parameters, color_parameters, layout, precision
    ):
        ctx.types = density_parameters.dtype, color_parameters.dtype
        nets = network_of(layout.density_dims), network_of(layout.color_dims)
        options = {"GEOMETRY": layout.geo_features} | _seen(harmonics)
        ctx.nets, ctx.launch = nets, launch_options(nets, layout.direction_width, STYLE, x.device) | options
        plan = schedule(cell_index, len(density_parameters), _PIECE)
        ctx.spares = plan.spares
        inputs = plan.pieces, plan.order, x.contiguous(), harmonics, basis.contiguous(), ray_index.contiguous()
        inputs += (density_parameters.to(precision), color_parameters.to(precision))
        density = x.new_full((len(x),), float("nan"), dtype=torch.float32)
        rgb = x.new_full((len(x), 3), float("nan"), dtype=torch.float32)
        if len(x):
            with launch_on(x.device):
                _radiance[(len(plan.pieces),)](*inputs, density, rgb, **ctx.launch)
        ctx.save_for_backward(plan.spare, *inputs, density, rgb)
        return density, rgb

    @staticmethod
    def backward(ctx, grad_density, grad_rgb):
        spare, *inputs = ctx.saved_tensors
        pieces, parameters = inputs[0], inputs[6:8]
        cells = len(spare)
        totals = [matrix.new_zeros(cells + ctx.spares, matrix.shape[1], dtype=torch.float32) for matrix in parameters]
        if len(pieces):
            launch = ctx.launch | backward_block_of(ctx.nets)
            with launch_on(spare.device):
                _radiance_backward[(len(pieces),)](
                    *inputs, grad_density.contiguous(), grad_rgb.contiguous(), *totals, **launch
                )
                for total in totals if ctx.spares else ():
                    _add_spares(total, spare)
        grads = [total[:cells].to(dtype) for total, dtype in zip(totals, ctx.types, strict=True)]
        return *(None,) * 5, *grads, None, None


class GroupedGeometryTriton(torch.autograd.Function):
    """Density, float32, and geometry features of points; ``precision`` is the type of these and of the factors."""

    @staticmethod
    def forward(ctx, x, harmonics, ray_index, cell_index, parameters, layout, precision):
        net, ctx.type = network_of(layout.density_dims), parameters.dtype
        ctx.net, ctx.options = net, {"NET": net, "STYLE": STYLE, "PRECISION": precision_on(x.device)}
        ctx.options |= _seen(harmonics)
        plan = schedule(cell_index, len(parameters), _PIECE)
        ctx.spares = plan.spares
        inputs = plan.pieces, plan.order, x.contiguous(), harmonics, ray_index.contiguous()
        inputs += (parameters.to(precision),)
        density = x.new_full((len(x),), float("nan"), dtype=torch.float32)
        geometry = x.new_full((len(x), layout.geo_features), float("nan"), dtype=precision)
        if len(x):
            with launch_on(x.device):
                _geometry[(len(plan.pieces),)](*inputs, density, geometry, **ctx.options, **block_of([net]))
        ctx.save_for_backward(plan.spare, *inputs, density)
        return density, geometry

    @staticmethod
    def backward(ctx, grad_density, grad_geometry):
        spare, *inputs, density = ctx.saved_tensors
        pieces, parameters = inputs[0], inputs[5]
        cells = len(spare)
        total = parameters.new_zeros(cells + ctx.spares, parameters.shape[1], dtype=torch.float32)
        if len(pieces):
            with launch_on(spare.device):
                _geometry_backward[(len(pieces),)](
                    *inputs, density, grad_density.contiguous(), grad_geometry.contiguous(), total,
                    **ctx.options, num_stages=1, **backward_block_of([ctx.net]),
                )  # fmt: skip
                if ctx.spares:
                    _add_spares(total, spare)
        return *(None,) * 4, total[:cells].to(ctx.type), None, None


def _add_spares(total: Tensor, spare: Tensor) -> None:
    size = total.shape[1]
    _fold[len(spare), triton.cdiv(size, _FOLD)](total, spare, SIZE=size, BLOCK=_FOLD)


def _seen(harmonics: Tensor) -> dict[str, int]:
    """How many harmonics a row has, and how far apart rows are; those of a row lie side by side."""
    width = harmonics.shape[1]
    return {"HARMONICS": width, "SEEN_ROW": harmonics.stride(0) if width else 0}


def network_of(dims):
    """Of layers (L, 2): inputs, of which the last is the bias, and outputs; see ``GroupedLayout``."""
    return network([dims[0, 0] - 1, *dims[:, 1]], biases=True)
