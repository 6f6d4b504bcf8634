"""What the Triton twins of the MLPs share: two networks on a block of samples, forward and backward.

A network is described by nested tuples that the compiler sees, ``(widths, padded widths, offsets)``: channels of the
inputs, the hidden layers and the outputs; the same as powers of two, at least 16 (``tl.dot`` has no others), where
masked loads fill up with zeros; the first value of each layer in its flat parameters. Loops over layers are unrolled.
A matrix is loaded for the product that wants it: it comes from the L1 or L2 cache, and no more than one has to fit
into shared memory.

``STYLE`` is ``(slope of a neuron that is off, whether layers have biases, whether matrices are (out, in))``, ``RAW``
the channel of the density network's output that holds raw density; the other channels are the geometry. The colour
network's first product is taken in two parts, geometry and direction, so that nothing has to be concatenated.

Sums are float32 throughout; factors of products have the type of the parameters. float32 ones are split into three
TF32 products each (``tf32x3``), which run on tensor cores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from kernels.triton_support import LEAST_DOT, MAX_WIDTH, NARROW, padded, training_refusal

MAX_RAW = tl.constexpr(15.0)
Network = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def network(widths: Sequence[int], biases: bool) -> Network:
    """The description of a network of these widths, inputs first.

    Raises:
        ValueError: a layer is wider than ``MAX_WIDTH``.
    """
    if max(widths) > MAX_WIDTH:
        raise ValueError(f"implementation 'triton' takes layers up to {MAX_WIDTH} wide, found {max(widths)}")
    offsets = [0]
    for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
        offsets.append(offsets[-1] + (inputs + biases) * outputs)
    return tuple(map(int, widths)), tuple(padded(int(width), LEAST_DOT) for width in widths), tuple(map(int, offsets))


def precision_on(device: torch.device) -> str:
    """How float32 factors are multiplied: before Ampere (8.0) there are no TF32 tensor cores."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32x3"


def shape_of(networks: Sequence[Network], backward: bool = False) -> dict[str, int]:
    """Samples per block and warps: what keeps the activations of two networks in registers.

    Either keeps out Hopper's wgmma, which takes products of at least 64 rows by four warps. Of kernels that spill its
    descriptors ptxas 12.8, Triton 3.6's, makes code that adds to one before anything has written it: an H200 read other
    shared memory in its place, or memory outside. A backward pass has products of as many rows as layers are wide.

    One stage: the compiler must not fetch the next block's weight gradients before this block's are written.
    """
    wide = max(max(pads) for _, pads, _ in networks) > NARROW
    return {"BLOCK": 32, "num_warps": 8 if wide and not backward else 2, "num_stages": 1}


def check_trainable(networks: Sequence[Network], dtype: torch.dtype) -> None:
    """Raises:
    ValueError: there is no backward pass for networks of these widths and this type.
    """
    refusal = training_refusal(max(max(widths) for widths, _, _ in networks), dtype)
    if refusal is not None:
        raise ValueError(refusal)


def launch_options(
    nets: Sequence[Network], direction: int, style: tuple, device: torch.device, backward: bool = False
) -> dict:
    """Constants and options of a kernel that runs a density and a colour network; ``direction`` is its width."""
    return {
        "DENSITY": nets[0],
        "COLOR": nets[1],
        "DIRECTION": direction,
        "DIRECTION_PAD": padded(direction, LEAST_DOT),
        "STYLE": style,
        "PRECISION": precision_on(device),
        **shape_of(nets, backward),
    }


@triton.jit
def _matrix(LAYER: tl.constexpr, PART: tl.constexpr, IN_PAD: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    """Offsets in the parameters of one layer's part, (inputs, outputs), and which of them exist.

    PART ``(low, high, shift)``: the block's inputs ``low .. high`` are the layer's inputs ``shift`` further on.
    Triton 3.6 takes no bare numbers in a tuple that is an argument: those read from NET are made constexpr again.
    """
    i = tl.arange(0, IN_PAD)[:, None]
    o = tl.arange(0, NET[1][LAYER + 1])[None, :]
    exists = (i >= PART[0]) & (i < PART[1]) & (o < NET[0][LAYER + 1])
    if STYLE[2]:
        offsets = NET[2][LAYER] + o * NET[0][LAYER] + i + PART[2]
    else:
        offsets = NET[2][LAYER] + (i + PART[2]) * NET[0][LAYER + 1] + o
    return offsets, exists


@triton.jit
def _bias(LAYER: tl.constexpr, NET: tl.constexpr):
    o = tl.arange(0, NET[1][LAYER + 1])
    return NET[2][LAYER] + NET[0][LAYER] * NET[0][LAYER + 1] + o, o < NET[0][LAYER + 1]


@triton.jit
def _product(
    x, parameters, LAYER: tl.constexpr, PART: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    offsets, exists = _matrix(LAYER, PART, x.shape[1], NET, STYLE)
    weight = tl.load(parameters + offsets, mask=exists, other=0.0)
    return tl.dot(x, weight, input_precision=PRECISION)


@triton.jit
def _biased(y, parameters, LAYER: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    if STYLE[1]:
        offsets, exists = _bias(LAYER, NET)
        y += tl.load(parameters + offsets, mask=exists, other=0.0).to(tl.float32)[None, :]
    return y


@triton.jit
def _later_layers(x, y, parameters, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """From the first layer's input x and output y: the network's output, and every layer's input."""
    inputs = (x,)
    for layer in tl.static_range(1, len(NET[0]) - 1):
        y = tl.where(y > 0, y, STYLE[0] * y).to(parameters.dtype.element_ty)
        inputs = inputs + (y,)
        y = _product(y, parameters, layer, (0, tl.constexpr(NET[0][layer]), 0), NET, STYLE, PRECISION)
        y = _biased(y, parameters, layer, NET, STYLE)
    return y, inputs


@triton.jit
def run_density(x, parameters, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """The density network's output (BLOCK, outputs), float32, and every layer's input; x has the parameters' type."""
    y = _product(x, parameters, 0, (0, tl.constexpr(NET[0][0]), 0), NET, STYLE, PRECISION)
    y = _biased(y, parameters, 0, NET, STYLE)
    return _later_layers(x, y, parameters, NET, STYLE, PRECISION)


@triton.jit
def run_color(
    output, direction, parameters, GEOMETRY: tl.constexpr, RAW: tl.constexpr, NET: tl.constexpr,
    STYLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits of the colour and every layer's input, the first being the density network's whole output."""
    output = output.to(parameters.dtype.element_ty)
    y = _product(output, parameters, 0, _geometry(GEOMETRY, RAW), NET, STYLE, PRECISION)
    y += _product(direction, parameters, 0, (0, NET[0][0] - GEOMETRY, GEOMETRY), NET, STYLE, PRECISION)
    return _later_layers(output, _biased(y, parameters, 0, NET, STYLE), parameters, NET, STYLE, PRECISION)


@triton.jit
def _geometry(GEOMETRY: tl.constexpr, RAW: tl.constexpr):
    """Geometry lies behind raw density if that is the first channel, else before it."""
    return (1, GEOMETRY + 1, -1) if RAW == 0 else (0, GEOMETRY, 0)


@triton.jit
def _add_gradient(
    x, grad, total, LAYER: tl.constexpr, PART: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    offsets, exists = _matrix(LAYER, PART, x.shape[1], NET, STYLE)
    gained = tl.dot(tl.trans(x), grad, input_precision=PRECISION)
    tl.store(total + offsets, tl.load(total + offsets, mask=exists, other=0.0) + gained, mask=exists)


@triton.jit
def _add_bias_gradient(grad, total, LAYER: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    if STYLE[1]:
        offsets, exists = _bias(LAYER, NET)
        gained = tl.sum(grad, 0)
        tl.store(total + offsets, tl.load(total + offsets, mask=exists, other=0.0) + gained, mask=exists)


@triton.jit
def _back(
    grad, parameters, LAYER: tl.constexpr, PART: tl.constexpr, IN_PAD: tl.constexpr, NET: tl.constexpr,
    STYLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dL/d input of a layer from dL/d its output."""
    offsets, exists = _matrix(LAYER, PART, IN_PAD, NET, STYLE)
    weight = tl.load(parameters + offsets, mask=exists, other=0.0)
    return tl.dot(grad.to(weight.dtype), tl.trans(weight), input_precision=PRECISION)


@triton.jit
def _back_to_first(grad, inputs, parameters, total, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """dL/d output of the first layer; the later layers' gradients are added to ``total``."""
    for layer in tl.static_range(len(NET[0]) - 2, 0, -1):
        x = inputs[layer]
        _add_gradient(x, grad.to(x.dtype), total, layer, (0, tl.constexpr(NET[0][layer]), 0), NET, STYLE, PRECISION)
        _add_bias_gradient(grad, total, layer, NET, STYLE)
        grad = _back(grad, parameters, layer, (0, tl.constexpr(NET[0][layer]), 0), x.shape[1], NET, STYLE, PRECISION)
        grad = tl.where(x > 0, grad, STYLE[0] * grad)
    return grad


@triton.jit
def color_gradient(
    grad, inputs, direction, parameters, total, GEOMETRY: tl.constexpr, RAW: tl.constexpr, NET: tl.constexpr,
    STYLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dL/d the density network's output, zero for raw density, from dL/d the colour's logits."""
    grad = _back_to_first(grad, inputs, parameters, total, NET, STYLE, PRECISION)
    x, part = inputs[0], _geometry(GEOMETRY, RAW)
    _add_gradient(x, grad.to(x.dtype), total, 0, part, NET, STYLE, PRECISION)
    behind = (0, NET[0][0] - GEOMETRY, GEOMETRY)
    _add_gradient(direction, grad.to(x.dtype), total, 0, behind, NET, STYLE, PRECISION)
    _add_bias_gradient(grad, total, 0, NET, STYLE)
    return _back(grad, parameters, 0, part, x.shape[1], NET, STYLE, PRECISION)


@triton.jit
def density_gradient(
    grad, inputs, parameters, total, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """dL/d output of the density network's first layer, from dL/d its output."""
    grad = _back_to_first(grad, inputs, parameters, total, NET, STYLE, PRECISION)
    x = inputs[0]
    _add_gradient(x, grad.to(x.dtype), total, 0, (0, tl.constexpr(NET[0][0]), 0), NET, STYLE, PRECISION)
    _add_bias_gradient(grad, total, 0, NET, STYLE)
    return grad


@triton.jit
def input_gradient(grad, parameters, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """dL/d the network's input, from dL/d output of its first layer."""
    return _back(grad, parameters, 0, (0, tl.constexpr(NET[0][0]), 0), NET[1][0], NET, STYLE, PRECISION)


@triton.jit
def column(values, INDEX: tl.constexpr):
    """One column of a block."""
    channel = tl.arange(0, values.shape[1])
    return tl.sum(tl.where((channel == INDEX)[None, :], values, 0.0), 1)


@triton.jit
def store_density(output, density, point, live, RAW: tl.constexpr):
    tl.store(density + point, tl.exp(tl.minimum(column(output, RAW), MAX_RAW)), mask=live)


@triton.jit
def store_color(logits, rgb, point, live):
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
def load_directions(basis, ray_index, point, live, WIDTH: tl.constexpr, PADDED: tl.constexpr, TYPE: tl.constexpr):
    """Encoded directions of the points' rays."""
    ray = tl.load(ray_index + point, mask=live, other=0)
    return load_rows(basis, ray, live, WIDTH, PADDED).to(TYPE)
