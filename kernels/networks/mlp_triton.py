"""What the Triton twins of the MLPs share: two networks on a block of samples, forward and backward.

A network is described by tuples that the compiler sees, ``(widths, padded widths, offsets, lows, highs, shifts, padded
widths of parts)``: channels of the inputs, the hidden layers and the outputs; the same as powers of two, at least 16
(``tl.dot`` has no others), where masked loads fill up with zeros; the first value of each layer in its flat parameters;
and of the parts that inputs come in, blocks whose channels ``low .. high`` are the inputs ``shift`` further on, a tuple
for each of their four numbers: of a tuple of tuples in a tuple Triton 3.6 makes nothing. Loops over layers and parts
are unrolled.

Its weights are a tuple of blocks: the first layer's matrix, (inputs, outputs), in as many parts as its inputs, then the
later layers', then each bias. The colour network's inputs are the density network's output and the direction, those of
a hash grid's density network the encoding and the direction's harmonics where it takes some: nothing has to be
concatenated, and no block is wider than what it holds. The sums of its gradients are a tuple alike. A kernel that takes
block after block of samples loads the weights once, which leaves them in shared memory, and stores the sums once: what
it reads and writes in between are samples, and the addresses of weights and sums take up no registers meanwhile.

``STYLE`` is ``(slope of a neuron that is off, whether layers have biases, whether matrices are (out, in))``, ``RAW``
the channel of the density network's output that holds raw density; the other channels are the geometry.

Sums are float32 throughout; factors of products have the type of the parameters. float32 ones are split into three
TF32 products each (``tf32x3``), which run on tensor cores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
import triton
import triton.language as tl

from kernels.triton_support import LEAST_DOT, MAX_WIDTH, padded

Parts = tuple[tuple[int, int, int, int], ...]
Network = tuple[tuple[int, ...], ...]


def network(widths: Sequence[int], biases: bool, parts: Parts = ()) -> Network:
    """The description of a network of these widths, inputs first.

    Args:
        parts: of the inputs; none: they come in one block.

    Raises:
        ValueError: a layer, or a part of the first one's inputs, is wider than ``MAX_WIDTH``.
    """
    widths = tuple(map(int, widths))
    parts = parts or side_by_side([(widths[0], 0, widths[0])])
    widest = max(*(high - low for low, high, _, _ in parts), *widths[1:])
    if widest > MAX_WIDTH:
        raise ValueError(f"implementation 'triton' takes layers up to {MAX_WIDTH} wide, found {widest}")
    offsets = [0]
    for inputs, outputs in itertools.pairwise(widths):
        offsets.append(offsets[-1] + (inputs + biases) * outputs)
    of_parts = tuple(zip(*parts, strict=True))
    pads = of_parts[3][0], *(padded(width, LEAST_DOT) for width in widths[1:])
    return widths, pads, tuple(offsets), *of_parts


def side_by_side(blocks: Iterable[tuple[int, int, int]]) -> Parts:
    """The parts of inputs that come in blocks, one after another.

    Args:
        blocks: of each, how many inputs it holds, the first one's channel, and its channels.
    """
    parts, before = [], 0
    for count, first, channels in blocks:
        parts.append((first, first + count, before - first, padded(channels, LEAST_DOT)))
        before += count
    return tuple(parts)


def precision_on(device: torch.device) -> str:
    """How float32 factors are multiplied: before Ampere (8.0) there are no TF32 tensor cores."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "ieee"
    return "tf32x3"


def block_of(networks: Sequence[Network]) -> dict[str, int]:
    """Samples per block and warps: what keeps the activations of two networks in registers.

    Half the rows that Hopper's wgmma multiplies at a time, which keeps it out: of kernels that spill the descriptors of
    its operands ptxas 12.8, Triton 3.6's, makes code that reads one before it is written, and on an H200 such a kernel
    read outside its shared memory.
    """
    return {"BLOCK": 32, "num_warps": 4 if _widest(networks) > 32 else 2, "num_stages": 1}


def backward_block_of(networks: Sequence[Network]) -> dict[str, int]:
    """As ``block_of``, with room for the sums of the gradients, which more threads share.

    The gradient of a matrix 64 wide still goes through wgmma, whose few descriptors need not be spilled.
    """
    return {"BLOCK": 32, "num_warps": 8 if _widest(networks) > 32 else 4}


def _widest(networks: Sequence[Network]) -> int:
    return max(max(pads) for _, pads, *_ in networks)


def launch_options(nets: Sequence[Network], direction: int, style: tuple, device: torch.device) -> dict:
    """Constants and options of a kernel that runs a density and a colour network; ``direction`` is its width."""
    return {
        "DENSITY": nets[0],
        "COLOR": nets[1],
        "DIRECTION": direction,
        "DIRECTION_PAD": padded(direction, LEAST_DOT),
        "STYLE": style,
        "PRECISION": precision_on(device),
        **block_of(nets),
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
def _geometry(GEOMETRY: tl.constexpr, RAW: tl.constexpr):
    """Geometry lies behind raw density if that is the first channel, else before it."""
    return (1, GEOMETRY + 1, -1) if RAW == 0 else (0, GEOMETRY, 0)


@triton.jit
def _load_matrix(
    parameters, LAYER: tl.constexpr, PART: tl.constexpr, IN_PAD: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr
):
    offsets, exists = _matrix(LAYER, PART, IN_PAD, NET, STYLE)
    return tl.load(parameters + offsets, mask=exists, other=0.0)


@triton.jit
def _load_later(parameters, NET: tl.constexpr, STYLE: tl.constexpr):
    weights = ()
    for layer in tl.static_range(1, len(NET[0]) - 1):
        whole = (0, tl.constexpr(NET[0][layer]), 0)
        weights = weights + (_load_matrix(parameters, layer, whole, NET[1][layer], NET, STYLE),)
    if STYLE[1]:
        for layer in tl.static_range(0, len(NET[0]) - 1):
            offsets, exists = _bias(layer, NET)
            weights = weights + (tl.load(parameters + offsets, mask=exists, other=0.0).to(tl.float32),)
    return weights


@triton.jit
def load_density(parameters, NET: tl.constexpr, STYLE: tl.constexpr):
    """The density network's weights."""
    weights = ()
    for k in tl.static_range(len(NET[3])):
        part = (tl.constexpr(NET[3][k]), tl.constexpr(NET[4][k]), tl.constexpr(NET[5][k]))
        weights = weights + (_load_matrix(parameters, 0, part, NET[6][k], NET, STYLE),)
    return weights + _load_later(parameters, NET, STYLE)


@triton.jit
def load_color(
    parameters, OUTPUT_PAD: tl.constexpr, DIRECTION_PAD: tl.constexpr, GEOMETRY: tl.constexpr, RAW: tl.constexpr,
    NET: tl.constexpr, STYLE: tl.constexpr,
):  # fmt: skip
    """The colour network's weights; OUTPUT_PAD: padded width of the density network's output."""
    of_output = _load_matrix(parameters, 0, _geometry(GEOMETRY, RAW), OUTPUT_PAD, NET, STYLE)
    behind = (0, NET[0][0] - GEOMETRY, GEOMETRY)
    of_direction = _load_matrix(parameters, 0, behind, DIRECTION_PAD, NET, STYLE)
    return (of_output, of_direction) + _load_later(parameters, NET, STYLE)


@triton.jit
def zeros_like(weights):
    """Zeros to add the gradients of weights up in."""
    zeros = ()
    for index in tl.static_range(len(weights)):
        zeros = zeros + (tl.zeros(weights[index].shape, tl.float32),)
    return zeros


@triton.jit
def run_network(x, weights, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """A network's output (BLOCK, outputs), float32, and every layer's input, the first being x.

    x is a tuple of blocks, the parts of the first layer's inputs, which have the weights' type.
    """
    parts: tl.constexpr = len(x)
    layers: tl.constexpr = len(NET[0]) - 1
    y = tl.dot(x[0], weights[0], input_precision=PRECISION)
    for k in tl.static_range(1, parts):
        y = tl.dot(x[k], weights[k], acc=y, input_precision=PRECISION)
    inputs = (x,)
    for layer in tl.static_range(layers):
        if layer > 0:
            y = tl.where(y > 0, y, STYLE[0] * y).to(x[0].dtype)
            inputs = inputs + (y,)
            y = tl.dot(y, weights[parts - 1 + layer], input_precision=PRECISION)
        if STYLE[1]:
            y += weights[parts - 1 + layers + layer][None, :]
    return y, inputs


@triton.jit
def run_color(output, direction, weights, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """Logits of the colour and every layer's input, the first being the density network's output and the direction."""
    return run_network((output.to(direction.dtype), direction), weights, NET, STYLE, PRECISION)


@triton.jit
def _more(sum, x, grad, PRECISION: tl.constexpr):
    """The sum of a matrix's gradient with a block's added."""
    return tl.dot(tl.trans(x), grad.to(x.dtype), acc=sum, input_precision=PRECISION)


@triton.jit
def _back(grad, weight, PRECISION: tl.constexpr):
    """dL/d input of a layer from dL/d its output."""
    return tl.dot(grad.to(weight.dtype), tl.trans(weight), input_precision=PRECISION)


@triton.jit
def network_gradient(
    grad, inputs, weights, sums, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """dL/d output of the first layer, from dL/d the network's output, and all sums with the block's added."""
    parts: tl.constexpr = len(inputs[0])
    layers: tl.constexpr = len(NET[0]) - 1
    matrices, biases = (), ()
    for layer in tl.static_range(layers - 1, -1, -1):
        if STYLE[1]:
            biases = (sums[parts - 1 + layers + layer] + tl.sum(grad, 0),) + biases
        if layer > 0:
            x = inputs[layer]
            matrices = (_more(sums[parts - 1 + layer], x, grad, PRECISION),) + matrices
            grad = _back(grad, weights[parts - 1 + layer], PRECISION)
            grad = tl.where(x > 0, grad, STYLE[0] * grad)
    first = ()
    for k in tl.static_range(parts):
        first = first + (_more(sums[k], inputs[0][k], grad, PRECISION),)
    return grad, first + matrices + biases


@triton.jit
def color_gradient(grad, inputs, weights, sums, NET: tl.constexpr, STYLE: tl.constexpr, PRECISION: tl.constexpr):
    """dL/d the density network's output, zero for raw density, from dL/d the colour's logits; and the new sums."""
    grad, sums = network_gradient(grad, inputs, weights, sums, NET, STYLE, PRECISION)
    return _back(grad, weights[0], PRECISION), sums


@triton.jit
def input_gradient(grad, weights, PRECISION: tl.constexpr):
    """dL/d the first part of the network's inputs, from dL/d output of its first layer."""
    return _back(grad, weights[0], PRECISION)


@triton.jit
def _store_matrix(total, sum, LAYER: tl.constexpr, PART: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    offsets, exists = _matrix(LAYER, PART, sum.shape[0], NET, STYLE)
    tl.store(total + offsets, sum, mask=exists)


@triton.jit
def _store_later(total, sums, PARTS: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    layers: tl.constexpr = len(NET[0]) - 1
    for layer in tl.static_range(1, layers):
        _store_matrix(total, sums[PARTS - 1 + layer], layer, (0, tl.constexpr(NET[0][layer]), 0), NET, STYLE)
    if STYLE[1]:
        for layer in tl.static_range(0, layers):
            offsets, exists = _bias(layer, NET)
            tl.store(total + offsets, sums[PARTS - 1 + layers + layer], mask=exists)


@triton.jit
def store_density_sums(total, sums, NET: tl.constexpr, STYLE: tl.constexpr):
    """Writes the density network's sums as gradients of its flat parameters."""
    for k in tl.static_range(len(NET[3])):
        part = (tl.constexpr(NET[3][k]), tl.constexpr(NET[4][k]), tl.constexpr(NET[5][k]))
        _store_matrix(total, sums[k], 0, part, NET, STYLE)
    _store_later(total, sums, len(NET[3]), NET, STYLE)


@triton.jit
def store_color_sums(total, sums, GEOMETRY: tl.constexpr, RAW: tl.constexpr, NET: tl.constexpr, STYLE: tl.constexpr):
    """Writes the colour network's sums as gradients of its flat parameters."""
    _store_matrix(total, sums[0], 0, _geometry(GEOMETRY, RAW), NET, STYLE)
    _store_matrix(total, sums[1], 0, (0, NET[0][0] - GEOMETRY, GEOMETRY), NET, STYLE)
    _store_later(total, sums, 2, NET, STYLE)
