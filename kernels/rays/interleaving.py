"""Two lists of rays in one, the second spread evenly in the first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.dispatch import by_triton

Column = Tensor | None


def interleaved(
    first: Sequence[Column],
    second: Sequence[Column],
    counts: tuple[int, int],
    unknown: Sequence[float],
    *,
    implementation: str = "auto",
) -> list[Column]:
    """Columns of F and S rays as those of F + S, in the order of ``interleaving``.

    Args:
        first, second: (F, C) or (F,), and as wide of S, float32; None where a list does not know them.
        counts: F and S.
        unknown: what stands for the values of a column that the other list alone knows.
        implementation: "auto", "torch", "numba" or "triton"; numba's is torch's.

    Returns:
        (F + S, C) or (F + S,) each; None where neither list knows them.
    """
    wanted = [place for place, pair in enumerate(zip(first, second, strict=True)) if any(c is not None for c in pair)]
    device = next(column.device for column in (*first, *second) if column is not None)
    found: list[Column] = [None] * len(first)
    if by_triton("interleaving", implementation, device):
        from kernels.rays import interleaving_triton

        columns = [(first[place], second[place], float(unknown[place])) for place in wanted]
        for place, column in zip(wanted, interleaving_triton.interleaved(columns, counts), strict=True):
            found[place] = column
        return found
    order = interleaving(*counts, device)
    for place in wanted:
        pair = zip((first[place], second[place]), (second[place], first[place]), counts, strict=True)
        parts = [
            other.new_full((count, *other.shape[1:]), unknown[place]) if own is None else own
            for own, other, count in pair
        ]
        found[place] = torch.cat(parts)[order]
    return found


def interleaving(first: int, second: int, device: torch.device) -> Tensor:
    """(first + second,) int64: an order of two joined lists that spreads the second evenly in the first."""
    place = torch.arange(first + second, device=device)
    before = place * second // max(1, first + second)  # of the second's
    is_second = (place + 1) * second // max(1, first + second) > before
    return torch.where(is_second, first + before, place - before)
