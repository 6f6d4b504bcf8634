"""What deferred shading has in Triton beside the density networks: geometry features, and colours of whole rays."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.networks.deferred_numba import LEAST_ALPHA
from kernels.networks.mlp_rows_triton import MAX_RAW, load_rows
from kernels.networks.mlp_triton import (
    Network,
    backward_block_of,
    color_gradient,
    launch_options,
    load_color,
    run_color,
    store_color_sums,
    zeros_like,
)
from kernels.triton_support import LEAST_DOT, launch_on, padded

_PROGRAMS = 1056  # that take block after block of rays: eight on each of an H100's 132 multiprocessors
_BACKWARD_PROGRAMS = 264  # whose sums of gradients are added up afterwards
_LEAST_ALPHA = tl.constexpr(LEAST_ALPHA)


@triton.jit
def _feature_of(channel, GEOMETRY: tl.constexpr, RAW: tl.constexpr):
    """Geometry feature that a channel of the density network's output is, and whether it is one."""
    if RAW == 0:
        return channel - 1, (channel >= 1) & (channel <= GEOMETRY)
    else:
        return channel, channel < GEOMETRY


@triton.jit
def store_geometry(output, geometry, point, live, GEOMETRY: tl.constexpr, RAW: tl.constexpr):
    """Writes the output's geometry features to rows of ``geometry`` (any, GEOMETRY)."""
    feature, exists = _feature_of(tl.arange(0, output.shape[1]), GEOMETRY, RAW)
    places = geometry + point[:, None] * GEOMETRY + feature[None, :]
    tl.store(places, output, mask=live[:, None] & exists[None, :])


@triton.jit
def output_gradient(
    grad_density, grad_geometry, density, point, live, GEOMETRY: tl.constexpr, RAW: tl.constexpr, PADDED: tl.constexpr
):
    """dL/d the density network's output (BLOCK, PADDED) from dL/d density and dL/d its geometry features."""
    channel = tl.arange(0, PADDED)
    feature, exists = _feature_of(channel, GEOMETRY, RAW)
    places = grad_geometry + point[:, None] * GEOMETRY + feature[None, :]
    grad = tl.load(places, mask=live[:, None] & exists[None, :], other=0.0).to(tl.float32)
    slope = tl.maximum(tl.load(density + point, mask=live, other=0.0), tl.exp(-MAX_RAW))
    raw = tl.load(grad_density + point, mask=live, other=0.0) * slope
    return tl.where((channel == RAW)[None, :], raw[:, None], grad)


@triton.jit(do_not_specialize=["count"])
def _shade(
    features, alpha, basis, weights, count, rgb,
    GEOMETRY: tl.constexpr, GEOMETRY_PAD: tl.constexpr, COLOR: tl.constexpr, DIRECTION: tl.constexpr,
    DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = weights.dtype.element_ty
    of_color = load_color(weights, GEOMETRY_PAD, DIRECTION_PAD, GEOMETRY, GEOMETRY, COLOR, STYLE)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        ray = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = ray < count
        met = tl.load(alpha + ray, mask=live, other=0.0)
        mean = load_rows(features, ray, live, GEOMETRY, GEOMETRY_PAD) / tl.maximum(met, _LEAST_ALPHA)[:, None]
        direction = load_rows(basis, ray, live, DIRECTION, DIRECTION_PAD).to(kind)
        logits, _ = run_color(mean, direction, of_color, COLOR, STYLE, PRECISION)
        channel = tl.arange(0, logits.shape[1])
        color = met[:, None] / (1.0 + tl.exp(-logits))
        tl.store(rgb + ray[:, None] * 3 + channel[None, :], color, mask=live[:, None] & (channel < 3)[None, :])


@triton.jit(do_not_specialize=["count"])
def _shade_backward(
    features, alpha, basis, weights, count, grad_rgb, grad_features, grad_alpha, totals,
    GEOMETRY: tl.constexpr, GEOMETRY_PAD: tl.constexpr, COLOR: tl.constexpr, DIRECTION: tl.constexpr,
    DIRECTION_PAD: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = weights.dtype.element_ty
    of_color = load_color(weights, GEOMETRY_PAD, DIRECTION_PAD, GEOMETRY, GEOMETRY, COLOR, STYLE)
    sums = zeros_like(of_color)
    for first in range(tl.program_id(0) * BLOCK, count, tl.num_programs(0) * BLOCK):
        ray = (first + tl.arange(0, BLOCK)).to(tl.int64)
        live = ray < count
        met = tl.load(alpha + ray, mask=live, other=0.0)
        share = tl.maximum(met, _LEAST_ALPHA)
        mean = load_rows(features, ray, live, GEOMETRY, GEOMETRY_PAD) / share[:, None]
        direction = load_rows(basis, ray, live, DIRECTION, DIRECTION_PAD).to(kind)
        logits, inputs = run_color(mean, direction, of_color, COLOR, STYLE, PRECISION)
        channel = tl.arange(0, logits.shape[1])
        mask = live[:, None] & (channel < 3)[None, :]
        upstream = tl.load(grad_rgb + ray[:, None] * 3 + channel[None, :], mask=mask, other=0.0)
        color = 1.0 / (1.0 + tl.exp(-logits))
        grad = met[:, None] * upstream * color * (1.0 - color)
        grad, sums = color_gradient(grad, inputs, of_color, sums, COLOR, STYLE, PRECISION)
        grad = grad / share[:, None]
        # Where the divisor is alpha itself, the mean depends on it too.
        through_mean = tl.where(met >= _LEAST_ALPHA, tl.sum(grad * mean, 1), 0.0)
        tl.store(grad_alpha + ray, tl.sum(upstream * color, 1) - through_mean, mask=live)
        feature = tl.arange(0, GEOMETRY_PAD)
        places = grad_features + ray[:, None] * GEOMETRY + feature[None, :]
        tl.store(places, grad, mask=live[:, None] & (feature < GEOMETRY)[None, :])
    totals += tl.program_id(0) * COLOR[2][len(COLOR[0]) - 1]
    store_color_sums(totals, sums, GEOMETRY, GEOMETRY, COLOR, STYLE)


def shade(
    features: Tensor, alpha: Tensor, basis: Tensor, net: Network, weights: Tensor, style: tuple, rgb: Tensor
) -> None:
    """Fills ``rgb`` (R, 3): colours of rays, multiplied by alpha.

    Args:
        features: (R, G) float32, sums of weight * geometry features.
        alpha: (R,) sums of weight.
        basis: (R, S) encoded directions, contiguous.
        net, weights: the colour network and its flat parameters, whose type is that of the products.
        style: see ``mlp_triton``.
    """
    count, options = len(features), _options(features, basis, net, style)
    if count:
        with launch_on(basis.device):
            programs = min(_PROGRAMS, triton.cdiv(count, options["BLOCK"]))
            _shade[(programs,)](features, alpha, basis, weights, count, rgb, **options)


def _options(features: Tensor, basis: Tensor, net: Network, style: tuple) -> dict:
    options = launch_options((net, net), basis.shape[1], style, basis.device)
    del options["DENSITY"]
    geometry = features.shape[1]
    return options | {"GEOMETRY": geometry, "GEOMETRY_PAD": padded(geometry, LEAST_DOT)}


class ShadeTriton(torch.autograd.Function):
    """Colours of rays (R, 3), multiplied by alpha, of their sums of features; arguments as of ``shade``.

    ``weights`` are flat and float32, ``precision`` is the type of the products' factors.
    """

    @staticmethod
    def forward(ctx, features, alpha, basis, net, weights, style, precision):
        ctx.net, ctx.style, ctx.type = net, style, weights.dtype
        features, alpha, basis = features.contiguous(), alpha.contiguous(), basis.contiguous()
        weights = weights.detach().to(precision)
        rgb = features.new_empty(len(features), 3)
        shade(features, alpha, basis, net, weights, style, rgb)
        ctx.save_for_backward(features, alpha, basis, weights)
        return rgb

    @staticmethod
    def backward(ctx, grad_rgb):
        features, alpha, basis, weights = ctx.saved_tensors
        count = len(features)
        options = _options(features, basis, ctx.net, ctx.style) | backward_block_of([ctx.net])
        programs = min(_BACKWARD_PROGRAMS, triton.cdiv(count, options["BLOCK"]))
        totals = weights.new_empty(programs, len(weights), dtype=torch.float32)
        grad_features, grad_alpha = torch.empty_like(features), torch.empty_like(alpha)
        if count:
            with launch_on(features.device):
                _shade_backward[(programs,)](
                    features, alpha, basis, weights, count, grad_rgb.contiguous(), grad_features, grad_alpha, totals,
                    **options,
                )  # fmt: skip
        return grad_features, grad_alpha, None, None, totals.sum(0).to(ctx.type), None, None
