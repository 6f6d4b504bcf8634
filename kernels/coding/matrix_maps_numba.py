"""Numba twin of maps of matrices: a row's at a time, which stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.threads import COMPILED, parallel_for

_GRAIN = 8  # rows a thread takes at a time


def map_matrices(rows: Tensor, lefts: Sequence[Tensor], rights: Sequence[Tensor]) -> Tensor:
    """As ``kernels.coding.matrix_maps.map_matrices``."""
    found, start = torch.empty_like(rows), 0
    for left, right in zip(lefts, rights, strict=True):
        maps = left.contiguous(), right.T.contiguous()
        parallel_for(_map_matrix, len(rows), rows, found, start, *maps, grain=_GRAIN)
        start += len(left) * len(right)
    return found


@njit(**COMPILED)
def _map_matrix(begin, end, rows, found, start, left, right):
    height, width = len(left), len(right)
    half = np.empty((height, width), np.float32)
    for row in range(begin, end):
        given, out = rows[row, start : start + height * width], found[row, start : start + height * width]
        place = 0
        while place < len(given) and given[place] == 0:
            place += 1
        if place < len(given):  # a cell that no ray has met has not moved
            np.dot(given.reshape(height, width), right, half)
            np.dot(left, half, out.reshape(height, width))
        else:
            out[:] = np.float32(0)
