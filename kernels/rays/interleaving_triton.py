"""Triton twin of two lists of rays in one: all columns in one launch, where torch takes three dozen."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from kernels.triton_support import launch_on

_BLOCK = 128
_UNKNOWN = -1  # values between a list's rows of a column that it has not


@triton.jit(do_not_specialize=["first", "second"])
def _interleave(
    firsts, seconds, outs, first, second, WIDTHS: tl.constexpr, FIRST_ROWS: tl.constexpr, SECOND_ROWS: tl.constexpr,
    UNKNOWN: tl.constexpr, WIDEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place, channel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDEST)
    before = place * second // (first + second)  # of the second's
    of_second = (place + 1) * second // (first + second) > before
    row = tl.where(of_second, before, place - before)[:, None]
    of_second, live = of_second[:, None], (place < first + second)[:, None]
    for k in tl.static_range(len(WIDTHS)):
        there = live & (channel < WIDTHS[k])[None, :]
        known = there & (of_second == 0) & (FIRST_ROWS[k] >= 0)
        value = tl.load(firsts[k] + row * FIRST_ROWS[k] + channel[None, :], mask=known, other=UNKNOWN[k])
        known = there & of_second & (SECOND_ROWS[k] >= 0)
        other = tl.load(seconds[k] + row * SECOND_ROWS[k] + channel[None, :], mask=known, other=UNKNOWN[k])
        value = tl.where(of_second, other, value)
        tl.store(outs[k] + place[:, None] * WIDTHS[k] + channel[None, :], value, mask=there)


def interleaved(columns: Sequence[tuple[Tensor | None, Tensor | None, float]], counts: tuple[int, int]) -> list[Tensor]:
    """See ``kernels.rays.interleaving.interleaved``.

    Args:
        columns: of each the first list's, the second's, and what stands for values of the one that is None.
    """
    known = [first if second is None else second for first, second, _ in columns]
    outs = [column.new_empty(sum(counts), *column.shape[1:]) for column in known]
    lists = [
        [_rows_of(pair[of], other) for pair, other in zip(columns, known, strict=True)] for of in range(len(counts))
    ]
    (firsts, first_rows), (seconds, second_rows) = (zip(*rows, strict=True) for rows in lists)
    if sum(counts):
        widths = tuple(column[:1].numel() for column in outs)
        with launch_on(outs[0].device):
            _interleave[(triton.cdiv(sum(counts), _BLOCK),)](
                firsts, seconds, tuple(outs), *counts, WIDTHS=widths, FIRST_ROWS=first_rows, SECOND_ROWS=second_rows,
                UNKNOWN=tuple(value for _, _, value in columns), WIDEST=triton.next_power_of_2(max(widths)),
                BLOCK=_BLOCK,
            )  # fmt: skip
    return outs


def _rows_of(column: Tensor | None, other: Tensor) -> tuple[Tensor, int]:
    """A column to read, and how many values lie between its rows: none where all rows are one, as of a background."""
    if column is None:
        return other, _UNKNOWN
    if column.ndim == 2 and column.stride(0) == 0 and column.stride(1) == 1:
        return column, 0
    column = column.contiguous()
    return column, column.stride(0)
