"""Shape of a multiresolution hash table: tiny-cuda-nn's, level after level, and levels that are planes.

A level whose grid has at most ``table_size`` vertices is stored densely (x fastest), a finer one is hashed with the
primes 1, 2654435761, 805459861. A plane's entries are those of two axes, the first of them in the place of x, and all
places along the third read the same (as in Shin and Park 2023, "Binary Radiance Fields").
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
        base_resolution, finest_resolution: grid vertices per axis of the first and the last grid.
        planes: vertices per axis of planes. For each number there are three levels after the grids: the planes across
            x, y and z.
    """

    levels: int
    features: int
    table_size: int
    base_resolution: int
    finest_resolution: int
    planes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.table_size < 8 or self.table_size & (self.table_size - 1):
            raise ValueError(f"table_size must be a power of two of at least 8, found {self.table_size}")

    @property
    def count(self) -> int:
        """Levels of both kinds."""
        return self.levels + 3 * len(self.planes)

    @property
    def growth(self) -> float:
        """Factor from one grid's resolution to the next one's."""
        if self.levels == 1:
            return 1.0
        return (self.finest_resolution / self.base_resolution) ** (1 / (self.levels - 1))

    @cached_property
    def scales(self) -> np.ndarray:
        """(count,) float32: a coordinate in [0, 1] times this, plus 0.5, is a position on the level's grid."""
        exponent = np.arange(self.levels, dtype=np.float32) * np.float32(np.log2(self.growth))
        grids = np.exp2(exponent) * np.float32(self.base_resolution)
        return np.concatenate([grids, np.repeat(np.float32(self.planes), 3)]) - np.float32(1)

    @cached_property
    def resolutions(self) -> np.ndarray:
        """(count,) int64 vertices per axis."""
        return np.ceil(self.scales).astype(np.int64) + 1

    @cached_property
    def offsets(self) -> np.ndarray:
        """(count + 1,) int64: first table entry of each level, then the number of entries."""
        dense = (self._vertices + 7) // 8 * 8
        return np.concatenate([[0], np.cumsum(np.minimum(dense, self.table_size))])

    @cached_property
    def hashed(self) -> np.ndarray:
        """(count,) bool: whether the level is too fine to be stored densely."""
        return self._vertices > self.table_size

    @cached_property
    def normals(self) -> np.ndarray:
        """(count,) int64: the axis that a plane lies across, 0, 1 or 2; -1 of a grid."""
        return np.array([-1] * self.levels + [0, 1, 2] * len(self.planes))

    def axes(self, level: int) -> tuple[int, ...]:
        """The axes that a level extends along, in the order in which its entries follow one another."""
        return tuple(axis for axis in range(3) if axis != self.normals[level])

    @cached_property
    def kinds(self) -> np.ndarray:
        """(count,) uint8, what kernels ask for: 1 where a level is hashed, plus 2, 4 or 6 for planes across x, y, z."""
        return (self.hashed + 2 * (self.normals + 1)).astype(np.uint8)

    @property
    def _vertices(self) -> np.ndarray:
        return self.resolutions ** np.where(self.normals < 0, 3, 2)

    @property
    def entries(self) -> int:
        """Entries of the table: its shape is (entries, features)."""
        return int(self.offsets[-1])

    @property
    def output_width(self) -> int:
        """Channels of the encoding: count * features."""
        return self.count * self.features

    def check(self, table: Tensor) -> None:
        """Raises:
        ValueError: the table has another shape than (entries, features).
        """
        if table.shape != (self.entries, self.features):
            expected = (self.entries, self.features)
            raise ValueError(f"table must be {expected} for this layout, found {tuple(table.shape)}")


@cache  # without an end: a recorded CUDA graph reads them where they were
def levels_on(layout: HashLayout, device: torch.device) -> tuple[Tensor, ...]:
    """The layout's offsets, resolutions, scales and kinds, one value a level, on a device."""
    columns = layout.offsets, layout.resolutions, layout.scales, layout.kinds
    return tuple(torch.from_numpy(column).to(device) for column in columns)
