"""What deferred shading has in Triton beside the density networks: geometry features, and colours of whole rays."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.mlp_triton import MAX_RAW, Network, launch_options, load_color, load_rows, run_color
from kernels.triton_support import LEAST_DOT, launch_on, padded

_PROGRAMS = 1056  # that take block after block of rays: eight on each of an H100's 132 multiprocessors
LEAST_ALPHA = tl.constexpr(1e-8)  # as in ``students.base``: a ray of less has features that fade out


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


@triton.jit
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
        mean = load_rows(features, ray, live, GEOMETRY, GEOMETRY_PAD) / tl.maximum(met, LEAST_ALPHA)[:, None]
        direction = load_rows(basis, ray, live, DIRECTION, DIRECTION_PAD).to(kind)
        logits, _ = run_color(mean, direction, of_color, COLOR, STYLE, PRECISION)
        channel = tl.arange(0, logits.shape[1])
        color = met[:, None] / (1.0 + tl.exp(-logits))
        tl.store(rgb + ray[:, None] * 3 + channel[None, :], color, mask=live[:, None] & (channel < 3)[None, :])


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
    count, geometry = features.shape
    options = launch_options((net, net), basis.shape[1], style, basis.device)
    del options["DENSITY"]
    with launch_on(basis.device):
        _shade[(min(_PROGRAMS, triton.cdiv(count, options["BLOCK"])),)](
            features, alpha, basis, weights, count, rgb,
            GEOMETRY=geometry, GEOMETRY_PAD=padded(geometry, LEAST_DOT), **options,
        )  # fmt: skip
