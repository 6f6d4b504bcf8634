"""Shape of a multiresolution hash table: tiny-cuda-nn's, level after level.

A level whose grid has at most ``table_size`` vertices is stored densely (x fastest), a finer one is hashed with the
primes 1, 2654435761, 805459861.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

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

    @property
    def growth(self) -> float:
        """Factor from one level's resolution to the next one's."""
        if self.levels == 1:
            return 1.0
        return (self.finest_resolution / self.base_resolution) ** (1 / (self.levels - 1))

    @cached_property
    def scales(self) -> np.ndarray:
        """(levels,) float32: a coordinate in [0, 1] times this, plus 0.5, is a position on the level's grid."""
        exponent = np.arange(self.levels, dtype=np.float32) * np.float32(np.log2(self.growth))
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

    def check(self, table: Tensor) -> None:
        """Raises:
        ValueError: the table has another shape than (entries, features).
        """
        if table.shape != (self.entries, self.features):
            expected = (self.entries, self.features)
            raise ValueError(f"table must be {expected} for this layout, found {tuple(table.shape)}")


@cache  # without an end: a recorded CUDA graph reads them where they were
def levels_on(layout: HashLayout, device: torch.device) -> tuple[Tensor, ...]:
    """The layout's offsets, resolutions, scales and ``hashed`` (as uint8), one value a level, on a device."""
    columns = layout.offsets, layout.resolutions, layout.scales, layout.hashed.astype(np.uint8)
    return tuple(torch.from_numpy(column).to(device) for column in columns)
