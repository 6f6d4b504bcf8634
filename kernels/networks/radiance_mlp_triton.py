"""Triton twin of the radiance MLPs: both networks on a block of samples, with no activation written to memory.

The backward pass recomputes a block's activations. Its programs stay and take block after block; each adds up its
own weight gradients, in the caches, and a sum over programs follows: the same bits in every run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.networks.deferred_triton import output_gradient, store_geometry
from kernels.networks.mlp_rows_triton import (
    load_behind,
    load_directions,
    logit_gradient,
    store_color,
    store_density,
    with_raw_gradient,
)
from kernels.networks.mlp_triton import (
    Network,
    Parts,
    backward_block_of,
    block_of,
    color_gradient,
    input_gradient,
    launch_options,
    load_color,
    load_density,
    network,
    network_gradient,
    precision_on,
    run_color,
    run_network,
    side_by_side,
    store_color_sums,
    store_density_sums,
    zeros_like,
)
from kernels.triton_support import MAX_WIDTHS, launch_on

_PROGRAMS = 264  # of the backward pass: two on each of an H100's 132 multiprocessors
STYLE = (0.0, False, True)


@triton.jit
def _load_inputs(
    features, row, channel_stride, harmonics, ray_index, point, live, NET: tl.constexpr, HARMONICS: tl.constexpr,
    SEEN_ROW: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The density network's inputs: features and behind them the points' rays' harmonics, in a block or two."""
    encoded: tl.constexpr = NET[0][0] - HARMONICS
    channel = tl.arange(0, NET[1][0])
    mask = live[:, None] & (channel < encoded)[None, :]
    x = tl.load(features + point[:, None] * row + channel[None, :] * channel_stride, mask=mask, other=0.0).to(TYPE)
    if HARMONICS == 0:
        return (x,)
    else:
        ray = tl.load(ray_index + point, mask=live, other=0)
        if len(NET[3]) == 1:
            return (x + load_behind(harmonics, ray, live, 0, HARMONICS, SEEN_ROW, encoded, NET[1][0]).to(TYPE),)
        else:
            return (x, load_behind(harmonics, ray, live, 0, HARMONICS, SEEN_ROW, 0, NET[6][1]).to(TYPE))


@triton.jit
def _density(
    features, row, channel_stride, weights, count, density,
    NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    kind: tl.constexpr = weights.dtype.element_ty
    x = _load_inputs(features, row, channel_stride, None, None, point, live, NET, 0, 0, kind)
    output, _ = run_network(x, load_density(weights, NET, STYLE), NET, STYLE, PRECISION)
    store_density(output, density, point, live, 0)


@triton.jit
def _radiance(
    features, row, channel_stride, harmonics, basis, ray_index, weights, count, density, rgb,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr,
    DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    kind: tl.constexpr = weights.dtype.element_ty
    x = _load_inputs(
        features, row, channel_stride, harmonics, ray_index, point, live, DENSITY, HARMONICS, SEEN_ROW, kind
    )
    of_density = load_density(weights, DENSITY, STYLE)
    output, _ = run_network(x, of_density, DENSITY, STYLE, PRECISION)
    store_density(output, density, point, live, 0)
    direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, kind)
    weights += DENSITY[2][len(DENSITY[0]) - 1]
    of_color = load_color(weights, output.shape[1], DIRECTION_PAD, COLOR[0][0] - DIRECTION, 0, COLOR, STYLE)
    logits, _ = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
    store_color(logits, rgb, point, live)


@triton.jit
def _radiance_backward(
    features, row, channel_stride, harmonics, basis, ray_index, weights, count, density, rgb,
    grad_density, grad_rgb, grad_features, grad_row, grad_channel, totals,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr,
    DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    geometry: tl.constexpr = COLOR[0][0] - DIRECTION
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    kind: tl.constexpr = weights.dtype.element_ty
    of_density = load_density(weights, DENSITY, STYLE)
    behind: tl.constexpr = DENSITY[2][len(DENSITY[0]) - 1]
    of_color = load_color(weights + behind, output_pad, DIRECTION_PAD, geometry, 0, COLOR, STYLE)
    density_sums, color_sums = zeros_like(of_density), zeros_like(of_color)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        point = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = point < count
        x = _load_inputs(
            features, row, channel_stride, harmonics, ray_index, point, live, DENSITY, HARMONICS, SEEN_ROW, kind
        )
        output, density_inputs = run_network(x, of_density, DENSITY, STYLE, PRECISION)
        direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, kind)
        _, color_inputs = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
        grad = logit_gradient(grad_rgb, rgb, point, live, COLOR[1][len(COLOR[0]) - 1])
        grad, color_sums = color_gradient(grad, color_inputs, of_color, color_sums, COLOR, STYLE, PRECISION)
        grad = with_raw_gradient(grad, grad_density, density, point, live, 0)
        grad, density_sums = network_gradient(grad, density_inputs, of_density, density_sums, DENSITY, STYLE, PRECISION)
        grad = input_gradient(grad, of_density, PRECISION)
        channel = tl.arange(0, DENSITY[1][0])
        mask = live[:, None] & (channel < DENSITY[0][0] - HARMONICS)[None, :]
        tl.store(grad_features + point[:, None] * grad_row + channel[None, :] * grad_channel, grad, mask=mask)
    totals += tl.program_id(0) * (behind + COLOR[2][len(COLOR[0]) - 1])
    store_density_sums(totals, density_sums, DENSITY, STYLE)
    store_color_sums(totals + behind, color_sums, geometry, 0, COLOR, STYLE)


@triton.jit
def _geometry(
    features, row, channel_stride, harmonics, ray_index, weights, count, density, geometry,
    GEOMETRY: tl.constexpr, HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    kind: tl.constexpr = weights.dtype.element_ty
    x = _load_inputs(features, row, channel_stride, harmonics, ray_index, point, live, NET, HARMONICS, SEEN_ROW, kind)
    of_density = load_density(weights, NET, STYLE)
    output, _ = run_network(x, of_density, NET, STYLE, PRECISION)
    store_density(output, density, point, live, 0)
    store_geometry(output, geometry, point, live, GEOMETRY, 0)


@triton.jit
def _geometry_backward(
    features, row, channel_stride, harmonics, ray_index, weights, count, density, grad_density,
    grad_geometry, grad_features, grad_row, grad_channel, totals,
    GEOMETRY: tl.constexpr, HARMONICS: tl.constexpr, SEEN_ROW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = weights.dtype.element_ty
    of_density = load_density(weights, NET, STYLE)
    sums = zeros_like(of_density)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        point = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = point < count
        x = _load_inputs(
            features, row, channel_stride, harmonics, ray_index, point, live, NET, HARMONICS, SEEN_ROW, kind
        )
        _, inputs = run_network(x, of_density, NET, STYLE, PRECISION)
        output_pad: tl.constexpr = NET[1][len(NET[0]) - 1]
        grad = output_gradient(grad_density, grad_geometry, density, point, live, GEOMETRY, 0, output_pad)
        grad, sums = network_gradient(grad, inputs, of_density, sums, NET, STYLE, PRECISION)
        grad = input_gradient(grad, of_density, PRECISION)
        channel = tl.arange(0, NET[1][0])
        mask = live[:, None] & (channel < NET[0][0] - HARMONICS)[None, :]
        tl.store(grad_features + point[:, None] * grad_row + channel[None, :] * grad_channel, grad, mask=mask)
    store_density_sums(totals + tl.program_id(0) * NET[2][len(NET[0]) - 1], sums, NET, STYLE)


def density(features: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Density (N,), float32."""
    count = len(features)
    result = features.new_empty(count, dtype=torch.float32)
    net = network_of(weights)
    if count:
        with launch_on(features.device):
            launch = block_of([net])
            _density[(triton.cdiv(count, launch["BLOCK"]),)](
                features, *features.stride(), flat_weights(weights, features.dtype), count, result,
                NET=net, STYLE=STYLE, PRECISION=precision_on(features.device), **launch,
            )  # fmt: skip
    return result


class RadianceMLPTriton(torch.autograd.Function):
    """Density and colour, float32, of features (N, C) of any strides, whose type is that of the products.

    ``harmonics`` (R, H), float32, or None: see ``kernels.networks.radiance_mlp.radiance_mlp``.
    """

    @staticmethod
    def forward(ctx, features, harmonics, basis, ray_index, density_layers, *weights):
        count, color = len(features), network_of(weights[density_layers:])
        nets = _density_network(features, weights[:density_layers]), color
        ctx.nets = nets
        ctx.launch = launch_options(nets, basis.shape[1], STYLE, features.device) | _rows_of(harmonics)
        flat = flat_weights(weights, features.dtype)
        basis, ray_index = basis.contiguous(), ray_index.contiguous()
        density = features.new_empty(count, dtype=torch.float32)
        rgb = features.new_empty(count, 3, dtype=torch.float32)
        if count:
            with launch_on(features.device):
                _radiance[(triton.cdiv(count, ctx.launch["BLOCK"]),)](
                    features, *features.stride(), harmonics, basis, ray_index, flat, count, density, rgb,
                    **ctx.launch,
                )  # fmt: skip
        ctx.save_for_backward(features, harmonics, basis, ray_index, flat, density, rgb)
        ctx.weights = [(weight.shape, weight.dtype) for weight in weights]
        return density, rgb

    @staticmethod
    def backward(ctx, grad_density, grad_rgb):
        features, harmonics, basis, ray_index, flat, density, rgb = ctx.saved_tensors
        count = len(features)
        grad_features = torch.empty_like(features)
        launch = ctx.launch | backward_block_of(ctx.nets)
        programs = min(_PROGRAMS, triton.cdiv(count, launch["BLOCK"]))
        totals = flat.new_empty(programs, len(flat), dtype=torch.float32)
        if count:
            with launch_on(features.device):
                _radiance_backward[(programs,)](
                    features, *features.stride(), harmonics, basis, ray_index, flat, count, density, rgb,
                    grad_density.contiguous(), grad_rgb.contiguous(), grad_features, *grad_features.stride(),
                    totals, **launch,
                )  # fmt: skip
        return grad_features, None, None, None, None, *_as_weights(totals.sum(0), ctx.weights)


class GeometryMLPTriton(torch.autograd.Function):
    """Density, float32, and geometry features, of the type of features (N, C), which may have any strides.

    ``harmonics`` and ``ray_index`` as of ``RadianceMLPTriton``; both None where density depends on no direction.
    """

    @staticmethod
    def forward(ctx, features, harmonics, ray_index, *weights):
        count, net = len(features), _density_network(features, weights)
        ctx.net, flat = net, flat_weights(weights, features.dtype)
        ctx.options = {"GEOMETRY": net[0][-1] - 1, "NET": net, "STYLE": STYLE, "PRECISION": precision_on(flat.device)}
        ctx.options |= _rows_of(harmonics)
        ray_index = None if harmonics is None else ray_index.contiguous()
        density = features.new_empty(count, dtype=torch.float32)
        geometry = features.new_empty(count, net[0][-1] - 1)
        if count:
            with launch_on(features.device):
                launch = block_of([net])
                _geometry[(triton.cdiv(count, launch["BLOCK"]),)](
                    features, *features.stride(), harmonics, ray_index, flat, count, density, geometry,
                    **ctx.options, **launch,
                )  # fmt: skip
        ctx.save_for_backward(features, harmonics, ray_index, flat, density)
        ctx.weights = [(weight.shape, weight.dtype) for weight in weights]
        return density, geometry

    @staticmethod
    def backward(ctx, grad_density, grad_geometry):
        features, harmonics, ray_index, flat, density = ctx.saved_tensors
        count = len(features)
        grad_features = torch.empty_like(features)
        launch = {"num_stages": 1} | backward_block_of([ctx.net])
        programs = min(_PROGRAMS, triton.cdiv(count, launch["BLOCK"]))
        totals = flat.new_empty(programs, len(flat), dtype=torch.float32)
        if count:
            with launch_on(features.device):
                _geometry_backward[(programs,)](
                    features, *features.stride(), harmonics, ray_index, flat, count, density,
                    grad_density.contiguous(), grad_geometry.contiguous(), grad_features, *grad_features.stride(),
                    totals, **ctx.options, **launch,
                )  # fmt: skip
        return grad_features, None, None, *_as_weights(totals.sum(0), ctx.weights)


def _density_network(features: Tensor, weights: Sequence[Tensor]) -> Network:
    """Of layers whose inputs are the features and then harmonics, if there are more.

    They come in one block where that is narrow enough: the gradients of a second part take up registers.
    """
    encoded, inputs = features.shape[1], weights[0].shape[1]
    if inputs <= MAX_WIDTHS[features.element_size()]:
        return network_of(weights)
    return network_of(weights, side_by_side([(width, 0, width) for width in (encoded, inputs - encoded)]))


def _rows_of(harmonics: Tensor | None) -> dict[str, int]:
    """How many harmonics a row has, side by side, and how far apart rows are."""
    if harmonics is None:
        return {"HARMONICS": 0, "SEEN_ROW": 0}
    return {"HARMONICS": harmonics.shape[1], "SEEN_ROW": harmonics.stride(0)}


def _as_weights(grads: Tensor, weights: Sequence[tuple[torch.Size, torch.dtype]]) -> list[Tensor]:
    """Gradients of all layers, one after another, as tensors of these shapes and types."""
    grads = grads.split([shape.numel() for shape, _ in weights])
    return [grad.view(shape).to(dtype) for grad, (shape, dtype) in zip(grads, weights, strict=True)]


def network_of(weights: Sequence[Tensor], parts: Parts = ()) -> Network:
    """Of layers (out, in); parts: of the inputs, see ``mlp_triton``."""
    return network([weights[0].shape[1], *(len(weight) for weight in weights)], biases=False, parts=parts)


def flat_weights(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """(P,) the weights of layers, one after another."""
    return torch.cat([weight.detach().reshape(-1) for weight in weights]).to(dtype)
