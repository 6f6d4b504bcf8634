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
_CORNERS = torch.tensor([*itertools.product((0, 1), repeat=3)])  # of a box: its lower or upper end on each axis


class View:
    """One of some cameras, looking at boxes."""

    def __init__(self, cameras: Cameras, frame: int) -> None:
        self.cameras, self.frame = cameras, frame

    def seen(self, boxes: Sequence[SceneBox]) -> list[int]:
        """Which of the boxes may be in the picture."""
        return [place for place, rectangle in enumerate(self._rectangles(boxes)) if rectangle is not None]

    def bands(self, box: SceneBox) -> Iterator[tuple[Tensor, int]]:
        """The rectangle around a box in the picture, a few rows at a time: their pixels, row-major (N,) int64, and its
        width. Yields nothing for a box outside the picture.

        A box that reaches behind the camera may be anywhere in the picture.
        """
        (rectangle,) = self._rectangles([box])
        if rectangle is None:
            return
        first_row, last_row, first_column, last_column = rectangle
        device, width = self.cameras.fx.device, last_column - first_column
        columns = torch.arange(first_column, last_column, device=device)
        rows = max(1, _BAND // (width * TILE)) * TILE
        for row in range(first_row, last_row, rows):
            band = torch.arange(row, min(row + rows, last_row), device=device)[:, None] * self.cameras.width
            yield (band + columns).reshape(-1), width

    def footprint(self, box: SceneBox) -> float:
        """Side of a pixel at a box's nearest point, world units; 0 within the box."""
        centre = self.cameras.centers[self.frame].tolist()
        aside = (max(low - c, c - high, 0.0) for low, c, high in zip(box.lower, centre, box.upper, strict=True))
        return math.hypot(*aside) / max(float(self.cameras.fx[self.frame]), float(self.cameras.fy[self.frame]))

    def _rectangles(self, boxes: Sequence[SceneBox]) -> list[tuple[int, int, int, int] | None]:
        """First and last row, first and last column of what may show each box, the last ones excluded; None: unseen."""
        cameras = self.cameras
        ends = torch.tensor([(box.lower, box.upper) for box in boxes], device=cameras.fx.device).view(-1, 2, 3)
        corners = ends[:, _CORNERS, torch.arange(3)]
        places = (part.view(-1, 8) for part in project(cameras, self.frame, corners.reshape(-1, 3)))
        rows, columns, depth, _ = places
        is_before = (depth > 1e-6).all(1)
        is_unseen = (depth <= 0).all(1) | (~is_before & self._beside(corners))
        sides = [_range(rows, is_before, cameras.height), _range(columns, is_before, cameras.width)]
        rectangles = torch.stack([end for side in sides for end in side], dim=1)
        is_unseen |= (rectangles[:, ::2] >= rectangles[:, 1::2]).any(1)
        pairs = zip(rectangles.tolist(), is_unseen.tolist(), strict=True)
        return [None if unseen else tuple(map(int, rectangle)) for rectangle, unseen in pairs]

    def _beside(self, corners: Tensor) -> Tensor:
        """(N,) bool: whether all corners (N, 8, 3) are outside one side of the pyramid that the picture sees."""
        cameras, frame = self.cameras, self.frame
        local = (corners - cameras.centers[frame]) @ cameras.c2w[frame, :3, :3]
        x, y, depth = local[..., 0] * cameras.fx[frame], local[..., 1] * cameras.fy[frame], -local[..., 2]
        left, right = -cameras.cx[frame] - _MARGIN, cameras.width - cameras.cx[frame] + _MARGIN
        bottom, top = cameras.cy[frame] - cameras.height - _MARGIN, cameras.cy[frame] + _MARGIN
        sides = x < left * depth, x > right * depth, y < bottom * depth, y > top * depth
        return torch.stack([side.all(1) for side in sides]).any(0)


def level_for(cell_sizes: Sequence[float], footprint: float) -> int:
    """Which of a block's students to show: the coarsest whose cells are smaller than a pixel, else the finest.

    Args:
        cell_sizes: of the students, world units, finest first.
        footprint: side of a pixel at the block's nearest point, world units.
    """
    return max((level for level, size in enumerate(cell_sizes) if size < footprint), default=0)


def _range(places: Tensor, is_before: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """The pixels from the least to the greatest of each row of places in a picture, cut at its border; all of them
    where a box is not wholly before the camera.
    """
    low, high = places.amin(1).floor() - _MARGIN, places.amax(1).ceil() + _MARGIN
    zero, last = torch.zeros_like(low), torch.full_like(high, end)
    return torch.where(is_before, low.clamp(0, end), zero), torch.where(is_before, high.clamp(0, end), last)
