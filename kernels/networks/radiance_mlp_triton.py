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
from kernels.networks.mlp_triton import (
    backward_block_of,
    block_of,
    color_gradient,
    density_gradient,
    input_gradient,
    launch_options,
    load_color,
    load_density,
    load_directions,
    logit_gradient,
    network,
    precision_on,
    run_color,
    run_density,
    store_color,
    store_color_sums,
    store_density,
    store_density_sums,
    with_raw_gradient,
    zeros_like,
)
from kernels.triton_support import launch_on

_PROGRAMS = 264  # of the backward pass: two on each of an H100's 132 multiprocessors
STYLE = (0.0, False, True)


@triton.jit
def _load_features(features, row, channel_stride, point, live, NET: tl.constexpr, TYPE: tl.constexpr):
    channel = tl.arange(0, NET[1][0])
    mask = live[:, None] & (channel < NET[0][0])[None, :]
    return tl.load(features + point[:, None] * row + channel[None, :] * channel_stride, mask=mask, other=0.0).to(TYPE)


@triton.jit
def _density(
    features, row, channel_stride, weights, count, density,
    NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    x = _load_features(features, row, channel_stride, point, live, NET, weights.dtype.element_ty)
    output, _ = run_density(x, load_density(weights, NET, STYLE), NET, STYLE, PRECISION)
    store_density(output, density, point, live, 0)


@triton.jit
def _radiance(
    features, row, channel_stride, basis, ray_index, density_weights, color_weights, count, density, rgb,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr,
    STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    x = _load_features(features, row, channel_stride, point, live, DENSITY, density_weights.dtype.element_ty)
    output, _ = run_density(x, load_density(density_weights, DENSITY, STYLE), DENSITY, STYLE, PRECISION)
    store_density(output, density, point, live, 0)
    direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, x.dtype)
    weights = load_color(color_weights, output.shape[1], DIRECTION_PAD, COLOR[0][0] - DIRECTION, 0, COLOR, STYLE)
    logits, _ = run_color(output, direction, weights, COLOR, STYLE, PRECISION)
    store_color(logits, rgb, point, live)


@triton.jit
def _radiance_backward(
    features, row, channel_stride, basis, ray_index, density_weights, color_weights, count, density, rgb,
    grad_density, grad_rgb, grad_features, grad_row, grad_channel, density_totals, color_totals,
    DENSITY: tl.constexpr, COLOR: tl.constexpr, DIRECTION: tl.constexpr, DIRECTION_PAD: tl.constexpr,
    STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    geometry: tl.constexpr = COLOR[0][0] - DIRECTION
    output_pad: tl.constexpr = DENSITY[1][len(DENSITY[0]) - 1]
    of_density = load_density(density_weights, DENSITY, STYLE)
    of_color = load_color(color_weights, output_pad, DIRECTION_PAD, geometry, 0, COLOR, STYLE)
    density_sums, color_sums = zeros_like(of_density), zeros_like(of_color)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        point = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = point < count
        x = _load_features(features, row, channel_stride, point, live, DENSITY, density_weights.dtype.element_ty)
        output, density_inputs = run_density(x, of_density, DENSITY, STYLE, PRECISION)
        direction = load_directions(basis, ray_index, point, live, DIRECTION, DIRECTION_PAD, x.dtype)
        _, color_inputs = run_color(output, direction, of_color, COLOR, STYLE, PRECISION)
        grad = logit_gradient(grad_rgb, rgb, point, live, COLOR[1][len(COLOR[0]) - 1])
        grad, color_sums = color_gradient(grad, color_inputs, direction, of_color, color_sums, COLOR, STYLE, PRECISION)
        grad = with_raw_gradient(grad, grad_density, density, point, live, 0)
        grad, density_sums = density_gradient(grad, density_inputs, of_density, density_sums, DENSITY, STYLE, PRECISION)
        grad = input_gradient(grad, of_density, PRECISION)
        channel = tl.arange(0, DENSITY[1][0])
        mask = live[:, None] & (channel < DENSITY[0][0])[None, :]
        tl.store(grad_features + point[:, None] * grad_row + channel[None, :] * grad_channel, grad, mask=mask)
    program = tl.program_id(0)
    store_density_sums(density_totals + program * DENSITY[2][len(DENSITY[0]) - 1], density_sums, DENSITY, STYLE)
    store_color_sums(color_totals + program * COLOR[2][len(COLOR[0]) - 1], color_sums, geometry, 0, COLOR, STYLE)


@triton.jit
def _geometry(
    features, row, channel_stride, weights, count, density, geometry,
    GEOMETRY: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = point < count
    x = _load_features(features, row, channel_stride, point, live, NET, weights.dtype.element_ty)
    output, _ = run_density(x, load_density(weights, NET, STYLE), NET, STYLE, PRECISION)
    store_density(output, density, point, live, 0)
    store_geometry(output, geometry, point, live, GEOMETRY, 0)


@triton.jit
def _geometry_backward(
    features, row, channel_stride, weights, count, density, grad_density, grad_geometry, grad_features, grad_row,
    grad_channel, totals,
    GEOMETRY: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    of_density = load_density(weights, NET, STYLE)
    sums = zeros_like(of_density)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        point = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = point < count
        x = _load_features(features, row, channel_stride, point, live, NET, weights.dtype.element_ty)
        _, inputs = run_density(x, of_density, NET, STYLE, PRECISION)
        output_pad: tl.constexpr = NET[1][len(NET[0]) - 1]
        grad = output_gradient(grad_density, grad_geometry, density, point, live, GEOMETRY, 0, output_pad)
        grad, sums = density_gradient(grad, inputs, of_density, sums, NET, STYLE, PRECISION)
        grad = input_gradient(grad, of_density, PRECISION)
        channel = tl.arange(0, NET[1][0])
        mask = live[:, None] & (channel < NET[0][0])[None, :]
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
    """Density and colour, float32, of features (N, C) of any strides, whose type is that of the products."""

    @staticmethod
    def forward(ctx, features, basis, ray_index, density_layers, *weights):
        count = len(features)
        nets = network_of(weights[:density_layers]), network_of(weights[density_layers:])
        ctx.nets, ctx.launch = nets, launch_options(nets, basis.shape[1], STYLE, features.device)
        flat = [flat_weights(part, features.dtype) for part in (weights[:density_layers], weights[density_layers:])]
        basis, ray_index = basis.contiguous(), ray_index.contiguous()
        density = features.new_empty(count, dtype=torch.float32)
        rgb = features.new_empty(count, 3, dtype=torch.float32)
        if count:
            with launch_on(features.device):
                _radiance[(triton.cdiv(count, ctx.launch["BLOCK"]),)](
                    features, *features.stride(), basis, ray_index, *flat, count, density, rgb, **ctx.launch
                )
        ctx.save_for_backward(features, basis, ray_index, *flat, density, rgb)
        ctx.weights = [(weight.shape, weight.dtype) for weight in weights]
        return density, rgb

    @staticmethod
    def backward(ctx, grad_density, grad_rgb):
        features, basis, ray_index, *flat, density, rgb = ctx.saved_tensors
        count = len(features)
        grad_features = torch.empty_like(features)
        launch = ctx.launch | backward_block_of(ctx.nets)
        programs = min(_PROGRAMS, triton.cdiv(count, launch["BLOCK"]))
        totals = [weights.new_empty(programs, len(weights), dtype=torch.float32) for weights in flat]
        if count:
            with launch_on(features.device):
                _radiance_backward[(programs,)](
                    features, *features.stride(), basis, ray_index, *flat, count, density, rgb,
                    grad_density.contiguous(), grad_rgb.contiguous(), grad_features, *grad_features.stride(),
                    *totals, **launch,
                )  # fmt: skip
        return grad_features, None, None, None, *_as_weights(torch.cat([part.sum(0) for part in totals]), ctx.weights)


class GeometryMLPTriton(torch.autograd.Function):
    """Density, float32, and geometry features, of the type of features (N, C), which may have any strides."""

    @staticmethod
    def forward(ctx, features, *weights):
        count, net = len(features), network_of(weights)
        ctx.net, flat = net, flat_weights(weights, features.dtype)
        ctx.options = {"GEOMETRY": net[0][-1] - 1, "NET": net, "STYLE": STYLE, "PRECISION": precision_on(flat.device)}
        density = features.new_empty(count, dtype=torch.float32)
        geometry = features.new_empty(count, net[0][-1] - 1)
        if count:
            with launch_on(features.device):
                launch = block_of([net])
                _geometry[(triton.cdiv(count, launch["BLOCK"]),)](
                    features, *features.stride(), flat, count, density, geometry, **ctx.options, **launch
                )
        ctx.save_for_backward(features, flat, density)
        ctx.weights = [(weight.shape, weight.dtype) for weight in weights]
        return density, geometry

    @staticmethod
    def backward(ctx, grad_density, grad_geometry):
        features, flat, density = ctx.saved_tensors
        count = len(features)
        grad_features = torch.empty_like(features)
        launch = {"num_stages": 1} | backward_block_of([ctx.net])
        programs = min(_PROGRAMS, triton.cdiv(count, launch["BLOCK"]))
        totals = flat.new_empty(programs, len(flat), dtype=torch.float32)
        if count:
            with launch_on(features.device):
                _geometry_backward[(programs,)](
                    features, *features.stride(), flat, count, density, grad_density.contiguous(),
                    grad_geometry.contiguous(), grad_features, *grad_features.stride(), totals,
                    **ctx.options, **launch,
                )  # fmt: skip
        return grad_features, *_as_weights(totals.sum(0), ctx.weights)


def _as_weights(grads: Tensor, weights: Sequence[tuple[torch.Size, torch.dtype]]) -> list[Tensor]:
    """Gradients of all layers, one after another, as tensors of these shapes and types."""
    grads = grads.split([shape.numel() for shape, _ in weights])
    return [grad.view(shape).to(dtype) for grad, (shape, dtype) in zip(grads, weights, strict=True)]


def network_of(weights: Sequence[Tensor]):
    return network([weights[0].shape[1], *(len(weight) for weight in weights)], biases=False)


def flat_weights(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([weight.detach().reshape(-1) for weight in weights]).to(dtype)
