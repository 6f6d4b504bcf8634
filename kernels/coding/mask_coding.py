"""A grid of occupied cells as bits, each cell judged by those before it."""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.coding.range_coding import DECODE, decide, new_models
from kernels.threads import COMPILED

# Cells before a cell, as steps along x, y and z: all of the 2x2x2 block behind it, and those next nearest.
_BEFORE = (
    *((0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, -1), (-1, 0, -1), (-1, -1, 0)),
    *((0, -1, 1), (-1, 0, 1), (-1, 1, 0), (0, 0, -2)),
)
_BEHIND, _BEYOND = 2, 1  # cells of padding


def code_mask(mode: int, coder: np.ndarray, data: np.ndarray, cells: np.ndarray) -> None:
    """Codes ``cells`` (X, Y, Z) uint8, 0 or 1; decoding, fills them in."""
    padded = np.pad(cells, [(_BEHIND, _BEYOND)] * 3)
    strides = padded.strides
    before = np.array([sum(a * b for a, b in zip(step, strides, strict=True)) for step in _BEFORE], dtype=np.int64)
    models = new_models(1 << len(_BEFORE), 0)
    _code_cells(mode, coder, data, models, padded.reshape(-1), np.array(cells.shape), np.array(strides), before)
    if mode == DECODE:
        cells[...] = padded[tuple(slice(_BEHIND, -_BEYOND) for _ in range(3))]


@njit(**COMPILED)
def _code_cells(mode, coder, data, models, padded, shape, strides, before):
    for x in range(shape[0]):
        for y in range(shape[1]):
            start = (x + _BEHIND) * strides[0] + (y + _BEHIND) * strides[1] + _BEHIND
            for cell in range(start, start + shape[2]):
                seen = 0
                for step in before:
                    seen = 2 * seen + padded[np.uint64(cell + step)]
                padded[np.uint64(cell)] = decide(mode, coder, data, models, seen, np.int64(padded[np.uint64(cell)]))
