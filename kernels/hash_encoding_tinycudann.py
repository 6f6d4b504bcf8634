"""The hash encoding by tiny-cuda-nn, where it is installed: our table in the place of the module's own parameters."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from kernels.hash_layout import HashLayout


@lru_cache(maxsize=8)
def encoding_of(layout: HashLayout, device: torch.device) -> torch.nn.Module:
    """tiny-cuda-nn's module of the layout."""
    import tinycudann

    config = {
        "otype": "HashGrid",
        "n_levels": layout.levels,
        "n_features_per_level": layout.features,
        "log2_hashmap_size": layout.table_size.bit_length() - 1,
        "base_resolution": layout.base_resolution,
        "per_level_scale": layout.growth,
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
    layout.check(table)
    return table.reshape(-1)


def encode(x: Tensor, table: Tensor, layout: HashLayout) -> Tensor:
    """(N, layout.output_width) from x (N, 3)."""
    parameters = {"params": table_to_tinycudann(table, layout)}
    return torch.func.functional_call(encoding_of(layout, x.device), parameters, (x.clamp(0, 1),))
