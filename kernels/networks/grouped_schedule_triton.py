"""Who evaluates what of a grid of networks: points sorted by cell, and cut into pieces that one program takes.

Two launches after the sort, whatever the number of cells.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_CELLS = 1024  # that one pass over them takes
_PIECES = 128


class Schedule(NamedTuple):
    """Who evaluates what.

    order: (N,) int64, points by cell, in their own order within a cell.
    pieces: (P, 4) int32, a program's cell, its first and last + 1 position in ``order``, and its row of the gradients.
    spare: (cells, 2) int32, the first spare row of a cell's gradients and their number.
    spares: spare rows that there can be.
    """

    order: Tensor
    pieces: Tensor
    spare: Tensor
    spares: int


@triton.jit
def _ends(starts, cells, most, ends, spare, BLOCK: tl.constexpr):
    """Pieces of all cells up to each one, and its spare rows: a single program."""
    pieces, further, first = tl.zeros((), tl.int64), tl.zeros((), tl.int64), tl.zeros((), tl.int32)
    while first < cells:
        cell = first + tl.arange(0, BLOCK)
        live = cell < cells
        begin = tl.load(starts + cell, mask=live, other=0)
        own = (tl.load(starts + cell + 1, mask=live, other=0) - begin + most - 1) // most
        more = tl.maximum(own - 1, 0)
        tl.store(ends + cell, pieces + tl.cumsum(own, axis=0), mask=live)
        tl.store(spare + 2 * cell, (cells + further + tl.cumsum(more, axis=0) - more).to(tl.int32), mask=live)
        tl.store(spare + 2 * cell + 1, more.to(tl.int32), mask=live)
        pieces += tl.sum(own, axis=0)
        further += tl.sum(more, axis=0)
        first += BLOCK


@triton.jit(do_not_specialize=["count"])
def _cut(starts, ends, spare, cells, most, count, pieces, BLOCK: tl.constexpr):
    piece = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    # The first cell whose pieces end behind this one; ``cells``: there is no such piece, and it is left empty.
    low, high = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32) + cells
    while tl.max(high - low, axis=0) > 0:
        middle = (low + high) // 2
        open_ = low < high
        beyond = tl.load(ends + middle, mask=open_, other=0) > piece
        high = tl.where(open_ & beyond, middle, high)
        low = tl.where(open_ & (beyond == 0), middle + 1, low)
    exists, cell = low < cells, tl.minimum(low, cells - 1)
    before = tl.load(ends + cell - 1, mask=cell > 0, other=0).to(tl.int32)
    within = piece - before
    first = tl.load(starts + cell).to(tl.int32) + within * most
    last = tl.where(exists, tl.minimum(first + most, tl.load(starts + cell + 1).to(tl.int32)), first)
    row = tl.where(within == 0, cell, tl.load(spare + 2 * cell) + within - 1)
    live = piece < count
    tl.store(pieces + 4 * piece, cell, mask=live)
    tl.store(pieces + 4 * piece + 1, first, mask=live)
    tl.store(pieces + 4 * piece + 2, last, mask=live)
    tl.store(pieces + 4 * piece + 3, row, mask=live)


def schedule(cell_index: Tensor, cells: int, most: int) -> Schedule:
    """Pieces of one cell and at most ``most`` points. Points of cells out of range are in none.

    Args:
        cell_index: (N,), any type of integer: the narrower, the faster it is sorted.
    """
    device = cell_index.device
    keys = cell_index.int() if cell_index.dtype == torch.int64 else cell_index
    by_cell, order = torch.sort(keys, stable=True)
    starts = torch.searchsorted(by_cell, _numbers(cells + 1, keys.dtype, device))
    spares = len(cell_index) // most
    count = spares + min(cells, len(cell_index))
    ends = torch.empty(cells, dtype=torch.int64, device=device)
    spare = torch.empty(cells, 2, dtype=torch.int32, device=device)
    pieces = torch.empty(count, 4, dtype=torch.int32, device=device)
    with launch_on(device):
        _ends[(1,)](starts, cells, most, ends, spare, BLOCK=_CELLS)
        if count:
            _cut[(triton.cdiv(count, _PIECES),)](starts, ends, spare, cells, most, count, pieces, BLOCK=_PIECES)
    return Schedule(order, pieces, spare, spares)


@cache  # without an end: a recorded CUDA graph reads them where they were
def _numbers(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=dtype, device=device)
