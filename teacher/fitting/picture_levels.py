"""The training pictures of a fit, at full size and halved: coarse levels first make the first thousand steps cheap."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.images import resize_area, resize_rgba
from teacher.views.teacher_views import TeacherViews

_LEAST_WIDTH = 64


class Pictures:
    """Straight-alpha pictures of the views that are not held out, in a pyramid of halves.

    Args:
        views: N views; those held out are left out.
        levels: halvings at most; fewer where pictures would be narrower than 64 pixels.

    Attributes:
        has_alpha: whether alpha means anything; without it pictures are compared on ``views.background``.

    Of pixels that do not count (``TeacherViews.counted``) those of the halves are made, too, do not.
    """

    def __init__(self, views: TeacherViews, levels: int) -> None:
        train = (~views.holdout).nonzero()[:, 0]
        self.has_alpha, self.background = views.alpha is not None, views.background
        alpha = views.alpha if self.has_alpha else torch.full(views.rgb.shape[:3], 255, dtype=torch.uint8)
        full = torch.cat([views.rgb[train], alpha[train][..., None]], dim=-1)
        cameras = views.cameras[train]
        counted = None if views.counted is None else views.counted[train]
        self._levels, self._cameras, self._counted = [full], [cameras], [counted]
        for _ in range(levels):
            width, height = cameras.width // 2, cameras.height // 2
            if width < _LEAST_WIDTH:
                break
            cameras = cameras.resized(width, height)
            smaller = np.stack([resize_rgba(picture, width, height) for picture in full.numpy()])
            self._levels.insert(0, torch.from_numpy(smaller))
            self._cameras.insert(0, cameras)
            if counted is not None:
                counted = torch.stack([_halved(mask, width, height) for mask in counted])
            self._counted.insert(0, counted)
            full = self._levels[0]

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def levels(self) -> int:
        """Sizes there are, the coarsest being level 0."""
        return len(self._levels)

    def level(self, level: int) -> Tensor:
        """(N, H, W, 4) uint8 straight RGBA."""
        return self._levels[level]

    def counted(self, level: int, index: int) -> Tensor | None:
        """(H, W) bool: the pixels of a picture that are compared; None: all."""
        counted = self._counted[level]
        return None if counted is None else counted[index]

    def cameras(self, level: int) -> Cameras:
        """The N cameras at the size of that level."""
        return self._cameras[level]


def _halved(counted: Tensor, width: int, height: int) -> Tensor:
    """(height, width) bool: the pixels that are made of counted ones alone."""
    return torch.from_numpy(resize_area(counted.numpy().astype(np.float32), width, height) >= 1 - 1e-4)
