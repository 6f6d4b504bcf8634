"""What the decision about a watched step reads and changes, see ``step_control_triton``."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Scaling(NamedTuple):
    """A loss scale on the device, and its rules.

    ``value`` () float32; ``counts`` (5,) int64: steps since the last overflow or growth, overflows in a row, most of
    them in a row so far, overflows in all, overflows at the floor.
    """

    value: Tensor
    counts: Tensor
    growth_every: int
    floor: float
    ceiling: float
