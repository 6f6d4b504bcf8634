"""The entries of a hash table that samples in occupied cells can reach.

Both sides of a compact file work them out for themselves, so the same cells must give the same entries on any machine:
arithmetic is float64 in separate numpy operations, which IEEE 754 settles to the last bit; what follows is integers.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.encoding.hash_layout import PRIME_Y, PRIME_Z, HashLayout
from kernels.threads import COMPILED, UNCALLED, parallel_for

# A sample's place is float32 arithmetic on world coordinates: it may lie this far outside of its cell, in units of the
# box's longest side.
_MARGIN = 1e-5


def reached_entries(cells: np.ndarray, resolution: int, layout: HashLayout, scales: np.ndarray) -> np.ndarray:
    """Which entries interpolation reads for some place in some occupied cell.

    Args:
        cells: (X, Y, Z) uint8, nonzero where occupied.
        resolution: cells along the box's longest side, which spans [0, 1] of the encoding's coordinates.
        layout: of the table.
        scales: (count,) float32, the layout's as they were where the file was written: powers differ in their last bit
            from machine to machine.

    Returns:
        (layout.entries,) bool.
    """
    reached = np.zeros(layout.entries, dtype=np.bool_)
    edges = np.arange(max(cells.shape) + 1, dtype=np.float64) / np.float64(resolution)
    edges = np.minimum(edges, 1.0)[:, None] * np.ones(layout.count)
    scales = scales.astype(np.float64)
    first = np.floor(np.maximum(edges[:-1] - _MARGIN, 0.0) * scales + 0.5).astype(np.int64)
    last = np.floor(np.minimum(edges[1:] + _MARGIN, 1.0) * scales + 0.5).astype(np.int64) + 1
    bounds = first.T.copy(), last.T.copy()
    columns = layout.offsets, layout.resolutions, layout.hashed, reached
    for normal in np.unique(layout.normals):
        levels = np.flatnonzero(layout.normals == normal)
        runs = _runs(cells != 0 if normal < 0 else (cells != 0).any(axis=normal)[:, None])
        parallel_for(_mark_levels, len(levels), levels, runs, *bounds, normal >= 0, *columns, grain=1)
    return reached


def _runs(cells: np.ndarray) -> np.ndarray:
    """(N, 4) int64 of cells (X, Y, Z) bool: runs along z, by x, y, the first cell and the last."""
    edge = np.diff(np.pad(cells, [(0, 0), (0, 0), (1, 1)]).astype(np.int8), axis=2)
    return np.column_stack([np.argwhere(edge == 1), np.argwhere(edge == -1)[:, 2] - 1])


@njit(**COMPILED)
def _mark_levels(start, stop, levels, runs, first, last, flat, offsets, resolutions, hashed, reached):
    for level in levels[start:stop]:
        entries = reached[offsets[level] : offsets[level + 1]]
        _mark(runs, first[level], last[level], flat, resolutions[level], hashed[level], entries)


@njit(**COMPILED, **UNCALLED)
def _mark(runs, first, last, flat, resolution, hashed, reached):
    """Marks the vertices ``first .. last`` (cells along an axis) of every run's cells on a level.

    A plane is ``flat``: its second axis is the runs' z, and they have no y.
    """
    size = left = len(reached)
    for run in runs:
        x, y = run[0], run[1]
        for iz in range(first[run[2]], last[run[3]] + 1):
            for iy in range(0 if flat else first[y], 1 if flat else last[y] + 1):
                if not left:  # a small table is soon full, of the very first cell's vertices where these are fine
                    return
                if flat:
                    yz = iz * PRIME_Y if hashed else resolution * iz
                else:
                    yz = (iy * PRIME_Y) ^ (iz * PRIME_Z) if hashed else resolution * (iy + resolution * iz)
                for ix in range(first[x], last[x] + 1):
                    index = (ix ^ yz) & (size - 1) if hashed else (ix + yz) % size
                    if not reached[index]:
                        reached[index] = True
                        left -= 1
