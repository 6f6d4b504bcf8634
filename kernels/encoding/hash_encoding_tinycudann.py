"""The hash encoding by tiny-cuda-nn, where it is installed: our table in the place of the module's own parameters."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from kernels.encoding.hash_layout import HashLayout


@cache
def tinycudann_refusal() -> str | None:
    """Why tinycudann, which fails in many ways if built for other GPUs, cannot be imported: one line; None: it can."""
    try:
        import_module("tinycudann")
    except Exception as error:
        return f"tinycudann cannot be imported ({(str(error).splitlines() or [type(error).__name__])[0]})"
    return None


@cache  # without an end: a recorded CUDA graph reads what is the module's own where it was
def encoding_of(layout: HashLayout, device: torch.device, precision: torch.dtype = torch.float32) -> torch.nn.Module:
    """tiny-cuda-nn's module of the layout, with entries and results of float16 or float32.

    Raises:
        ValueError: tinycudann cannot be imported, or the layout has planes, which it has not.
    """
    if tinycudann_refusal() is not None:
        raise ValueError(f"kernel hash_encoding: {tinycudann_refusal()}")
    if layout.planes:
        raise ValueError("kernel hash_encoding: tinycudann has no planes")
    tinycudann = import_module("tinycudann")
    config = {
        "otype": "HashGrid",
        "n_levels": layout.levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": layout.table_size.bit_length() - 1,
        "base_resolution": layout.base_resolution,
        "per_level_scale": layout.growth,
    }
    return tinycudann.Encoding(3, config, dtype=precision).to(device)


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
    layout.check(table)
    return table.reshape(-1)


def encode(x: Tensor, table: Tensor, layout: HashLayout, precision: torch.dtype = torch.float32) -> Tensor:
    """(N, layout.output_width) of type ``precision`` from x (N, 3).

    With float16 the library rounds the float32 table as its own parameters: once in a call, and their gradient too. It
    has no bfloat16: such results are float32's, rounded.
    """
    held = torch.float16 if precision == torch.float16 else torch.float32
    parameters = {"params": table_to_tinycudann(table, layout)}
    return torch.func.functional_call(encoding_of(layout, x.device, held), parameters, (x.clamp(0, 1),)).to(precision)
