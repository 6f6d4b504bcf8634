"""The entries of a hash table that samples in occupied cells can reach.

Both sides of a compact file work them out for themselves, so the same cells must give the same entries on any machine:
arithmetic is float64 in separate numpy operations, which IEEE 754 settles to the last bit; what follows is integers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z, HashLayout
from kernels.threads import COMPILED, parallel_for

# A sample's place is float32 arithmetic on world coordinates: it may lie this far outside of its cell, in units of the
# box's longest side.
_MARGIN = 1e-5


def reached_entries(cells: np.ndarray, resolution: int, layout: HashLayout, scales: np.ndarray) -> np.ndarray:
    """Which entries interpolation reads for some place in some occupied cell.

    Args:
        cells: (X, Y, Z) uint8, nonzero where occupied.
        resolution: cells along the box's longest side, which spans [0, 1] of the encoding's coordinates.
        layout: of the table.
        scales: (levels,) float32, the layout's as they were where the file was written: powers differ in their last bit
            from machine to machine.

    Returns:
        (layout.entries,) bool.
    """
    edge = np.diff(np.pad(cells != 0, [(0, 0), (0, 0), (1, 1)]).astype(np.int8), axis=2)
    # Runs of cells along z: x, y, its first cell and its last.
    runs = np.column_stack([np.argwhere(edge == 1), np.argwhere(edge == -1)[:, 2] - 1])
    reached = np.zeros(layout.entries, dtype=np.bool_)
    edges = np.arange(max(cells.shape) + 1, dtype=np.float64) / np.float64(resolution)
    edges = np.minimum(edges, 1.0)[:, None] * np.ones(layout.levels)
    scales = scales.astype(np.float64)
    first = np.floor(np.maximum(edges[:-1] - _MARGIN, 0.0) * scales + 0.5).astype(np.int64)
    last = np.floor(np.minimum(edges[1:] + _MARGIN, 1.0) * scales + 0.5).astype(np.int64) + 1
    levels = layout.offsets, layout.resolutions, layout.hashed
    parallel_for(_mark, layout.levels, runs, first.T.copy(), last.T.copy(), *levels, reached, grain=1)
    return reached


@njit(**COMPILED)
def _mark(start, stop, runs, first, last, offsets, resolutions, hashed, reached):
    """Marks the vertices ``first .. last`` (levels, cells along an axis) of every run's cells, for some levels."""
    for level in range(start, stop):
        offset, size, resolution = offsets[level], offsets[level + 1] - offsets[level], resolutions[level]
        left = size
        for run in runs:
            x, y = run[0], run[1]
            for iz in range(first[level, run[2]], last[level, run[3]] + 1):
                for iy in range(first[level, y], last[level, y] + 1):
                    yz = (iy * PRIME_Y) ^ (iz * PRIME_Z) if hashed[level] else resolution * (iy + resolution * iz)
                    for ix in range(first[level, x], last[level, x] + 1):
                        index = offset + ((ix ^ yz) & (size - 1) if hashed[level] else (ix + yz) % size)
                        if not reached[index]:
                            reached[index] = True
                            left -= 1
            if not left:  # a small table under fine cells is soon full
                break
