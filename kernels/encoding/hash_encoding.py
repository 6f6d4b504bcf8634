"""Multiresolution hash encoding (Müller et al. 2022, "Instant Neural Graphics Primitives")."""

from __future__ import annotations

from functools import reduce
from itertools import product
from math import prod
from operator import xor

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.encoding.hash_encoding_numba import HashEncodeNumba
from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z, HashLayout
from kernels.optimization.updates import TouchedRows

_PRIMES = 1, PRIME_Y, PRIME_Z


def hash_encode(
    x: Tensor,
    table: Tensor,
    layout: HashLayout,
    *,
    precision: torch.dtype = torch.float32,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Encodes points by interpolation in every level of the table, trilinear in grids and bilinear in planes.

    Args:
        x: (N, 3) in [0, 1], float32; values outside are clamped. Not differentiated.
        table: (layout.entries, layout.features) float32; with torch and triton float16 or bfloat16 too, whose
            products are summed in float32 as well, forward and backward.
        precision: type that the entries are rounded to as they are read, and that of the result; with float16 or
            bfloat16 sums and the table's gradient remain float32 (torch and triton; tinycudann rounds it).
        touched: rows to mark where the backward pass adds to the table's gradient (by numba; the others, which keep no
            account of it, mark every row on the CPU and none on a GPU, where nothing reads the marks).
        implementation: "auto", "torch", "numba", "triton", or on CUDA, by name alone, "tinycudann".

    Returns:
        (N, layout.output_width) of type ``precision``, level-major; from numba and triton its memory is channel-major.
        These two add the gradient of a float32 leaf into ``table.grad`` in place rather than allocating a dense one in
        every step.

    Raises:
        ValueError: points or table of another shape, or an implementation that is not to be had here.
    """
    if x.ndim != 2 or x.shape[1] != 3:
        raise ValueError(f"x must be (N, 3), found {tuple(x.shape)}")
    layout.check(table)
    available = ("torch", "triton", "tinycudann", *(("numba",) if precision == torch.float32 else ()))
    name = resolve("hash_encoding", implementation, x.device, available)
    if name != "numba" and touched is not None:
        touched.mark_all(x.device)
    if name == "torch":
        return _hash_encode_torch(x, table, layout, precision)
    if name == "tinycudann":
        from kernels.encoding.hash_encoding_tinycudann import encode

        return encode(x, table, layout, precision)
    if name == "triton":
        from kernels.encoding.hash_encoding_triton import HashEncodeTriton

        return HashEncodeTriton.apply(x, table, layout, precision)
    return HashEncodeNumba.apply(x, table, layout, touched)


class _Rounded(torch.autograd.Function):
    """Values as another type holds them; the gradient is that of the values themselves."""

    @staticmethod
    def forward(ctx, values: Tensor, precision: torch.dtype) -> Tensor:
        return values.to(precision).to(values.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _hash_encode_torch(x: Tensor, table: Tensor, layout: HashLayout, precision: torch.dtype) -> Tensor:
    outputs, half = [], precision != torch.float32
    x = x.clamp(0, 1)
    for level in range(layout.count):
        # Lists of columns, an axis each: indices as tensors would be waited for on a GPU.
        places = [x[:, axis] * float(layout.scales[level]) + 0.5 for axis in layout.axes(level)]
        below = [place.floor().long() for place in places]
        fractions = [place - corner for place, corner in zip(places, below, strict=True)]
        offset, size = int(layout.offsets[level]), int(layout.offsets[level + 1] - layout.offsets[level])
        resolution, value = int(layout.resolutions[level]), 0.0
        for beyond in product((0, 1), repeat=len(places)):
            vertex = [corner + step for corner, step in zip(below, beyond, strict=True)]
            if layout.hashed[level]:
                index = reduce(xor, (part * prime for part, prime in zip(vertex, _PRIMES, strict=False))) & (size - 1)
            else:
                index = sum(part * resolution**axis for axis, part in enumerate(vertex)) % size
            weight = prod(part if step else 1 - part for part, step in zip(fractions, beyond, strict=True))
            held = table[offset + index]
            if half:
                held = _Rounded.apply(held, precision)
            value = value + weight[:, None] * held
        outputs.append(value)
    encoding = torch.cat(outputs, dim=-1)
    return encoding.to(precision) if half else encoding
