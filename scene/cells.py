"""Cubic cells over the scene box."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scene.rays import SceneBox


@dataclass(frozen=True)
class CellGrid:
    """Cubic cells over a box, ``resolution`` of them along its longest side.

    The last cells of a shorter side may reach over the box.
    """

    box: SceneBox
    resolution: int

    @property
    def cell_size(self) -> float:
        """Side of a cell, world units."""
        return max(self.box.extent) / self.resolution

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells along x, y, z."""
        # The tolerance keeps a side of exactly n cells from becoming n + 1 by rounding.
        return tuple(max(1, math.ceil(side / self.cell_size - 1e-4)) for side in self.box.extent)
