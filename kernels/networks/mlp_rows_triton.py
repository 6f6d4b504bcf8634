"""What the Triton twins of the MLPs read and write of a block of samples beside the networks' weights."""

from __future__ import annotations

import triton
import triton.language as tl

MAX_RAW = tl.constexpr(15.0)


@triton.jit
def column(values, INDEX: tl.constexpr):
    """One column of a block."""
    channel = tl.arange(0, values.shape[1])
    return tl.sum(tl.where((channel == INDEX)[None, :], values, 0.0), 1)


@triton.jit
def store_density(output, density, point, live, RAW: tl.constexpr):
    """Writes the densities of a block's points, whose logarithms are a column of the network's output."""
    tl.store(density + point, tl.exp(tl.minimum(column(output, RAW), MAX_RAW)), mask=live)


@triton.jit
def store_color(logits, rgb, point, live):
    """Writes the colours (points, 3) of a block's logits, of which there may be more columns."""
    channel = tl.arange(0, logits.shape[1])
    mask = live[:, None] & (channel < 3)[None, :]
    tl.store(rgb + point[:, None] * 3 + channel[None, :], 1.0 / (1.0 + tl.exp(-logits)), mask=mask)


@triton.jit
def logit_gradient(grad_rgb, rgb, point, live, PADDED: tl.constexpr):
    """dL/d the colour's logits (BLOCK, PADDED)."""
    channel = tl.arange(0, PADDED)
    mask = live[:, None] & (channel < 3)[None, :]
    places = point[:, None] * 3 + channel[None, :]
    value = tl.load(rgb + places, mask=mask, other=0.0)
    return tl.load(grad_rgb + places, mask=mask, other=0.0) * value * (1.0 - value)


@triton.jit
def with_raw_gradient(grad, grad_density, density, point, live, RAW: tl.constexpr):
    """Puts dL/d raw density into its column: density itself is the slope, but never less than exp(-15)."""
    slope = tl.maximum(tl.load(density + point, mask=live, other=0.0), tl.exp(-MAX_RAW))
    raw = tl.load(grad_density + point, mask=live, other=0.0) * slope
    return tl.where((tl.arange(0, grad.shape[1]) == RAW)[None, :], raw[:, None], grad)


@triton.jit
def load_rows(rows, index, live, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows ``index`` of a contiguous (any, WIDTH) matrix, filled up with zeros to PADDED channels."""
    channel = tl.arange(0, PADDED)
    mask = live[:, None] & (channel < WIDTH)[None, :]
    return tl.load(rows + index[:, None] * WIDTH + channel[None, :], mask=mask, other=0.0)


@triton.jit
def load_behind(
    rows, index, live, FIRST: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr, AT: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """Channels from FIRST on, COUNT of them, of rows as of ``load_rows`` as a block's channels from AT on, else 0."""
    channel = tl.arange(0, PADDED) - AT
    mask = live[:, None] & ((channel >= 0) & (channel < COUNT))[None, :]
    return tl.load(rows + index[:, None] * WIDTH + (FIRST + channel)[None, :], mask=mask, other=0.0)


@triton.jit
def load_directions(basis, ray_index, point, live, WIDTH: tl.constexpr, PADDED: tl.constexpr, TYPE: tl.constexpr):
    """Encoded directions of the points' rays."""
    ray = tl.load(ray_index + point, mask=live, other=0)
    return load_rows(basis, ray, live, WIDTH, PADDED).to(TYPE)
