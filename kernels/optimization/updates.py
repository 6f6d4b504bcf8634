"""What an update is told of a parameter beside its values: which rows it touches, and which matrices these hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

ROWS_PER_FLAG = 8  # of two values each: one cache line
Shapes = Sequence[tuple[int, int]]
"""(N, K) of the matrices that each row of a parameter holds one after another; of a matrix, its own shape alone."""


class TouchedRows:
    """Which rows of a parameter have received a gradient since they were last cleared.

    Args:
        rows: of the parameter.
        rows_per_flag: rows that share a flag; an update visits them together.
    """

    def __init__(self, rows: int, rows_per_flag: int = ROWS_PER_FLAG) -> None:
        self.rows_per_flag = rows_per_flag
        self.flags = torch.zeros(rows // rows_per_flag + 1, dtype=torch.uint8)

    def mark_all(self, device: torch.device) -> None:
        """For a gradient on ``device`` whose rows nobody kept account of. Only the CPU's update reads the flags."""
        if device.type == "cpu":
            self.flags.fill_(1)

    def clear(self, device: torch.device) -> None:
        """After an update of a parameter on ``device``."""
        if device.type == "cpu":
            self.flags.zero_()


class Update(NamedTuple):
    """What updates a parameter: its gradient and both moments, and what of its own Adam needs, see ``adam_step``.

    Attributes:
        matrices: shapes of those that Muon updates in Adam's place, see ``kernels.optimization.muon``; none: Adam does.
        number: () float64, which update of the parameter this is, from 1 on, which Muon asks of several rows.
    """

    parameter: Tensor
    grad: Tensor
    first_moment: Tensor
    second_moment: Tensor
    weight_decay: float = 0.0
    touched: TouchedRows | None = None
    matrices: Shapes = ()
    number: Tensor | None = None
