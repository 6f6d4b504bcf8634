"""Multiresolution hash encoding (Mueller et al. 2022, "Instant Neural Graphics Primitives").

The table's layout is tiny-cuda-nn's: levels one after another; a level whose grid has at most ``table_size``
vertices is stored densely (x fastest), a finer one is hashed with the primes 1, 2654435761, 805459861.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from kernels import hash_encoding_numba as numba_twin
from kernels.adam import TouchedRows
from kernels.dispatch import resolve
from kernels.threads import parallel_for

PRIME_Y, PRIME_Z = 2654435761, 805459861


@dataclass(frozen=True)
class HashLayout:
    """Shape of a multiresolution hash table.

    Args:
        levels: number of grids.
        features: values per table entry.
        table_size: most entries per level, a power of two.
        base_resolution, finest_resolution: grid vertices per axis of the first and the last level.
    """

    levels: int
    features: int
    table_size: int
    base_resolution: int
    finest_resolution: int

    def __post_init__(self) -> None:
        if self.table_size < 8 or self.table_size & (self.table_size - 1):
            raise ValueError(f"table_size must be a power of two of at least 8, found {self.table_size}")

    @cached_property
    def scales(self) -> np.ndarray:
        """(levels,) float32: a coordinate in [0, 1] times this, plus 0.5, is a position on the level's grid."""
        growth = 1.0
        if self.levels > 1:
            growth = (self.finest_resolution / self.base_resolution) ** (1 / (self.levels - 1))
        exponent = np.arange(self.levels, dtype=np.float32) * np.float32(np.log2(growth))
        return np.exp2(exponent) * np.float32(self.base_resolution) - np.float32(1)

    @cached_property
    def resolutions(self) -> np.ndarray:
        """(levels,) int64 vertices per axis."""
        return np.ceil(self.scales).astype(np.int64) + 1

    @cached_property
    def offsets(self) -> np.ndarray:
        """(levels + 1,) int64: first table entry of each level, then the number of entries."""
        dense = (self.resolutions**3 + 7) // 8 * 8
        return np.concatenate([[0], np.cumsum(np.minimum(dense, self.table_size))])

    @cached_property
    def hashed(self) -> np.ndarray:
        """(levels,) bool: whether the level is too fine to be stored densely."""
        return self.resolutions**3 > self.table_size

    @property
    def entries(self) -> int:
        """Entries of the table: its shape is (entries, features)."""
        return int(self.offsets[-1])

    @property
    def output_width(self) -> int:
        """Channels of the encoding: levels * features."""
        return self.levels * self.features


def hash_encode(
    x: Tensor,
    table: Tensor,
    layout: HashLayout,
    *,
    precision: torch.dtype = torch.float32,
    touched: TouchedRows | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Encodes points by trilinear interpolation in every level of the table.

    Args:
        x: (N, 3) in [0, 1], float32; values outside are clamped. Not differentiated.
        table: (layout.entries, layout.features) float32; with torch and triton float16 or bfloat16 too, whose
            products are summed in float32 as well, forward and backward.
        precision: type that the entries are rounded to as they are read, and that of the result; with float16 or
            bfloat16 sums and the table's gradient remain float32 (torch and triton; tinycudann rounds its result).
        touched: rows to mark where the backward pass adds to the table's gradient (by numba; the others, which keep no
            account of it, mark every row on the CPU and none on a GPU, where nothing reads the marks).
        implementation: "auto", "torch", "numba", "triton", or where it is importable, on CUDA, "tinycudann".

    Returns:
        (N, layout.output_width) of type ``precision``, level-major; from numba and triton its memory is channel-major.
        These two add the gradient of a float32 leaf into ``table.grad`` in place rather than allocating a dense one in
        every step.
    """
    if x.ndim != 2 or x.shape[1] != 3:
        raise ValueError(f"x must be (N, 3), found {tuple(x.shape)}")
    _check_table(table, layout)
    available = ("torch", "triton", *(("tinycudann",) if find_spec("tinycudann") else ()))
    available += ("numba",) if precision == torch.float32 else ()
    name = resolve("hash_encoding", implementation, x.device, available)
    if name != "numba" and touched is not None:
        touched.mark_all(x.device)
    if name == "torch":
        return _hash_encode_torch(x, table, layout, precision)
    if name == "tinycudann":
        return _hash_encode_tinycudann(x, table, layout).to(precision)
    if name == "triton":
        return _HashEncodeTriton.apply(x, table, layout, precision)
    return _HashEncodeNumba.apply(x, table, layout, touched)


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
    for level in range(layout.levels):
        position = x * float(layout.scales[level]) + 0.5
        corner = position.floor().long()
        fraction = position - corner
        offset, size = int(layout.offsets[level]), int(layout.offsets[level + 1] - layout.offsets[level])
        resolution = int(layout.resolutions[level])
        value = 0.0
        for bits in range(8):
            beyond = (bits & 1, bits >> 1 & 1, bits >> 2 & 1)
            ix, iy, iz = (below + step for below, step in zip(corner.unbind(-1), beyond, strict=True))
            if layout.hashed[level]:
                index = (ix ^ (iy * PRIME_Y) ^ (iz * PRIME_Z)) & (size - 1)
            else:
                index = (ix + resolution * (iy + resolution * iz)) % size
            parts = zip(fraction.unbind(-1), beyond, strict=True)
            wx, wy, wz = (part if step else 1 - part for part, step in parts)
            held = table[offset + index]
            if half:
                held = _Rounded.apply(held, precision)
            value = value + (wx * wy * wz)[:, None] * held
        outputs.append(value)
    encoding = torch.cat(outputs, dim=-1)
    return encoding.to(precision) if half else encoding


@lru_cache(maxsize=8)
def _tinycudann_encoding(layout: HashLayout, device: torch.device) -> torch.nn.Module:
    import tinycudann

    growth = 1.0
    if layout.levels > 1:
        growth = (layout.finest_resolution / layout.base_resolution) ** (1 / (layout.levels - 1))
    config = {
        "otype": "HashGrid",
        "n_levels": layout.levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": layout.table_size.bit_length() - 1,
        "base_resolution": layout.base_resolution,
        "per_level_scale": growth,
    }
    return tinycudann.Encoding(3, config, dtype=torch.float32).to(device)


def table_to_tinycudann(table: Tensor, layout: HashLayout) -> Tensor:
    """A table as the ``params`` of tiny-cuda-nn's HashGrid encoding of the same layout; differentiable.

    Both store levels one after another, each padded to 8 entries, and an entry's features together.

    Args:
        table: (layout.entries, layout.features).

    Returns:
        (layout.entries * layout.features,), the same type; shares memory where the table is contiguous.

    Raises:
        ValueError: the table has another shape.
    """
    _check_table(table, layout)
    return table.reshape(-1)


def table_from_tinycudann(params: Tensor, layout: HashLayout) -> Tensor:
    """The table of ``params`` of tiny-cuda-nn's HashGrid encoding: the inverse of ``table_to_tinycudann``.

    Raises:
        ValueError: the number of parameters is not that of the layout.
    """
    count = layout.entries * layout.features
    if params.shape != (count,):
        raise ValueError(f"params must be {(count,)} for this layout, found {tuple(params.shape)}")
    return params.reshape(layout.entries, layout.features)


def _check_table(table: Tensor, layout: HashLayout) -> None:
    if table.shape != (layout.entries, layout.features):
        raise ValueError(
            f"table must be {(layout.entries, layout.features)} for this layout, found {tuple(table.shape)}"
        )


def _hash_encode_tinycudann(x: Tensor, table: Tensor, layout: HashLayout) -> Tensor:
    """Our table in the place of the module's own parameters."""
    encoding = _tinycudann_encoding(layout, x.device)
    return torch.func.functional_call(encoding, {"params": table_to_tinycudann(table, layout)}, (x.clamp(0, 1),))


class _HashEncodeNumba(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, layout: HashLayout, touched: TouchedRows | None) -> Tensor:
        columns = x.detach().t().contiguous()
        out = torch.empty((layout.output_width, len(x)), dtype=torch.float32)
        parallel_for(
            numba_twin.encode,
            len(x),
            columns.numpy(),
            table.detach().numpy(),
            layout.offsets,
            layout.resolutions,
            layout.scales,
            layout.hashed,
            out.numpy(),
            grain=4096,
        )
        ctx.columns, ctx.table, ctx.layout, ctx.touched = columns, table, layout, touched
        return out.t()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, None, None, None]:
        table, layout = ctx.table, ctx.layout
        if not table.requires_grad:
            return None, None, None, None
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        touched = ctx.touched or TouchedRows(layout.entries)
        # A thread owns whole levels, so no two threads add to one entry and the sum's order never changes.
        parallel_for(
            numba_twin.encode_backward,
            layout.levels,
            ctx.columns.numpy(),
            grad.t().contiguous().numpy(),
            layout.offsets,
            layout.resolutions,
            layout.scales,
            layout.hashed,
            table.grad.numpy(),
            touched.flags.numpy(),
            grain=1,
        )
        return None, None, None, None


@lru_cache(maxsize=8)
def levels_on(layout: HashLayout, device: torch.device) -> tuple[Tensor, ...]:
    """The layout's offsets, resolutions, scales and ``hashed`` (as uint8), one value a level, on a device."""
    columns = layout.offsets, layout.resolutions, layout.scales, layout.hashed.astype(np.uint8)
    return tuple(torch.from_numpy(column).to(device) for column in columns)


class _HashEncodeTriton(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, table: Tensor, layout: HashLayout, precision: torch.dtype) -> Tensor:
        from kernels import hash_encoding_triton as triton_twin

        out = torch.empty((layout.output_width, len(x)), dtype=precision, device=x.device).t()
        held = table.contiguous() if precision == torch.float32 else table.contiguous().to(precision)
        triton_twin.encode(x, held, levels_on(layout, x.device), out)
        ctx.save_for_backward(x)
        ctx.table, ctx.layout = table, layout
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[None, Tensor | None, None, None]:
        from kernels import hash_encoding_triton as triton_twin

        (x,), table, layout = ctx.saved_tensors, ctx.table, ctx.layout
        if not ctx.needs_input_grad[1]:
            return None, None, None, None
        in_place = table.is_leaf and table.dtype == torch.float32 and table.is_contiguous()
        if in_place and table.grad is None:
            table.grad = torch.zeros_like(table)
        # Half precision would lose small additions to a large sum.
        total = table.grad if in_place else torch.zeros(table.shape, dtype=torch.float32, device=table.device)
        triton_twin.encode_backward(x, grad, levels_on(layout, x.device), total)
        return None, None if in_place else total.to(table.dtype), None, None
