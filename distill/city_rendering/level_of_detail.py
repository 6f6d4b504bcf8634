"""What a camera sees of a block: which pixels, and how fine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kernels.rendering.fused_rays_numba import TILE
from scene.cameras import Cameras
from scene.rays import SceneBox, project

_MARGIN = 1  # pixels, for rounding
_BAND = 1 << 14  # pixels of a picture at a time


class View:
    """One of some cameras, looking at boxes."""

    def __init__(self, cameras: Cameras, frame: int) -> None:
        self.cameras, self.frame = cameras, frame

    def bands(self, box: SceneBox) -> Iterator[tuple[Tensor, int]]:
        """The rectangle about a box in the picture, a few rows at a time: their pixels, row-major (N,) int64, and its
        width; nothing of a box that is not in the picture.

        A box that reaches behind the camera may be anywhere in the picture.
        """
        rectangle = self._rectangle(box)
        if rectangle is None:
            return
        first_row, last_row, first_column, last_column = rectangle
        device, width = self.cameras.fx.device, last_column - first_column
        columns = torch.arange(first_column, last_column, device=device)
        rows = max(1, _BAND // (width * TILE)) * TILE
        for row in range(first_row, last_row, rows):
            band = torch.arange(row, min(row + rows, last_row), device=device)[:, None] * self.cameras.width
            yield (band + columns).reshape(-1), width

    def _rectangle(self, box: SceneBox) -> tuple[int, int, int, int] | None:
        """First and last row, first and last column of what may show a box, the last ones excluded; None: unseen."""
        cameras, device = self.cameras, self.cameras.fx.device
        corners = torch.tensor(list(itertools.product(*zip(box.lower, box.upper, strict=True))), device=device)
        rows, columns, depth, _ = project(cameras, self.frame, corners)
        if bool((depth <= 0).all()):
            return None
        first_row, last_row, first_column, last_column = 0, cameras.height, 0, cameras.width
        if bool((depth > 1e-6).all()):
            first_row, last_row = _range(rows, cameras.height)
            first_column, last_column = _range(columns, cameras.width)
        elif self._beside(corners):
            return None
        if first_row >= last_row or first_column >= last_column:
            return None
        return first_row, last_row, first_column, last_column

    def footprint(self, box: SceneBox) -> float:
        """Side of a pixel at a box's nearest point, world units; 0 within the box."""
        centre = self.cameras.centers[self.frame].tolist()
        aside = (max(low - c, c - high, 0.0) for low, c, high in zip(box.lower, centre, box.upper, strict=True))
        return math.hypot(*aside) / max(float(self.cameras.fx[self.frame]), float(self.cameras.fy[self.frame]))

    def _beside(self, corners: Tensor) -> bool:
        """Whether all corners are outside one side of the pyramid that the picture sees."""
        cameras, frame = self.cameras, self.frame
        local = (corners - cameras.centers[frame]) @ cameras.c2w[frame, :3, :3]
        x, y, depth = local[:, 0] * cameras.fx[frame], local[:, 1] * cameras.fy[frame], -local[:, 2]
        left, right = -cameras.cx[frame] - _MARGIN, cameras.width - cameras.cx[frame] + _MARGIN
        bottom, top = cameras.cy[frame] - cameras.height - _MARGIN, cameras.cy[frame] + _MARGIN
        sides = x < left * depth, x > right * depth, y < bottom * depth, y > top * depth
        return any(bool(side.all()) for side in sides)


def level_for(cell_sizes: Sequence[float], footprint: float) -> int:
    """Which of a block's students to show: the coarsest whose cells are smaller than a pixel, else the finest.

    Args:
        cell_sizes: of the students, world units, finest first.
        footprint: side of a pixel at the block's nearest point, world units.
    """
    return max((level for level, size in enumerate(cell_sizes) if size < footprint), default=0)


def _range(places: Tensor, end: int) -> tuple[int, int]:
    """The pixels from the least to the greatest of places in a picture, cut at its border."""
    low, high = math.floor(float(places.min())) - _MARGIN, math.ceil(float(places.max())) + _MARGIN
    return max(low, 0), min(high, end)
