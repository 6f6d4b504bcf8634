"""The training pictures of a fit, at full size and halved: coarse levels first make the first thousand steps cheap."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kernels.threads import one_torch_thread
from machine.terminal import late_bar
from scene.cameras import Cameras, join_cameras
from scene.images import resize_area, resize_rgba
from settings.sections import Color
from teacher.views.lazy_pictures import LazyPlane, rgba_plane
from teacher.views.output_folder import parallel_map
from teacher.views.teacher_views import TeacherViews

_LEAST_WIDTH = 64
_MOST_TIMES, _OF_THE_RARER = 64, 4  # that pictures of one kind are repeated


class Pictures:
    """Straight-alpha pictures of the views that are not held out, in a pyramid of halves.

    Args:
        views: N views; those held out are left out.
        levels: halvings at most; fewer where pictures would be narrower than 64 pixels.

    Attributes:
        has_alpha: whether alpha means anything; without it pictures are compared on ``views.background``.
        are_photographs: whether they show no background, so that nothing of them may be left to it.

    A pixel of a half counts (see ``TeacherViews.counted``) where all that it is made of do.
    """

    def __init__(self, views: TeacherViews, levels: int) -> None:
        train = views.training_frames
        self.has_alpha, self.background = views.alpha is not None, views.background
        self.are_photographs = not views.silhouettes
        cameras = views.cameras[train]
        store = views.store
        # The views have the largest in memory, if anybody has: another copy would take half as much again.
        is_own = store is None or store.drawn
        full = _chosen(rgba_plane(views.rgb, views.alpha) if is_own else views.ground_truth, train)
        counted = None if views.counted is None else _chosen(views.counted, train)
        each = _each_when_asked if store else _each
        self._levels, self._cameras, self._counted = [full], [cameras], [counted]
        for _ in range(levels):
            width, height = cameras.width // 2, cameras.height // 2
            if width < _LEAST_WIDTH:
                break
            cameras = cameras.resized(width, height)
            full = each(full, partial(_smaller, width=width, height=height))
            counted = None if counted is None else each(counted, partial(_halved, width=width, height=height))
            self._levels.insert(0, full)
            self._cameras.insert(0, cameras)
            self._counted.insert(0, counted)

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def levels(self) -> int:
        """Sizes there are, the coarsest being level 0."""
        return len(self._levels)

    def level(self, level: int) -> Tensor | LazyPlane:
        """(N, H, W, 4) uint8 straight RGBA, of which some are made when they are asked for."""
        return self._levels[level]

    def counted(self, level: int, index: int) -> Tensor | None:
        """(H, W) bool: the pixels of a picture that are compared; None: all."""
        counted = self._counted[level]
        return None if counted is None else counted[index]

    def cameras(self, level: int) -> Cameras:
        """The N cameras at the size of that level."""
        return self._cameras[level]


class MixedPictures(Pictures):
    """Pictures of two kinds in one: a fit goes through all of them, and sees the second kind more often, or less.

    Photographs are opaque beside pictures with alpha. Beside pictures that were composited on one colour, those with
    alpha are composited on it too.

    Args:
        first, second: of one size, in as many levels.
        weight: pictures of the second kind for each of the first, as near as a ratio of at most 64 whose smaller part
            is at most 4 comes by repeating whole kinds.

    Raises:
        ValueError: their sizes differ.
    """

    def __init__(self, first: Pictures, second: Pictures, weight: float) -> None:
        self.has_alpha = any(part.has_alpha for part in (first, second)) and all(
            part.has_alpha or part.are_photographs for part in (first, second)
        )
        self.background = None if self.has_alpha else (second if first.has_alpha else first).background
        self.are_photographs = first.are_photographs and second.are_photographs
        share = weight * len(first) / len(second)
        times = Fraction(min(max(share, 1 / share), _MOST_TIMES)).limit_denominator(_OF_THE_RARER)
        of_first, of_second = times.as_integer_ratio()[::-1] if share >= 1 else times.as_integer_ratio()
        parts = [first] * of_first + [second] * of_second
        self._places = [(part, index) for part in parts for index in range(len(part))]
        self._cameras = [join_cameras(*(part.cameras(level) for part in parts)) for level in range(first.levels)]
        self._levels = [
            LazyPlane(partial(self._picture, level), (len(self._places), cameras.height, cameras.width, 4))
            for level, cameras in enumerate(self._cameras)
        ]

    def counted(self, level: int, index: int) -> Tensor | None:
        """(H, W) bool: the pixels of a picture that are compared; None: all."""
        part, own = self._places[index]
        return part.counted(level, own)

    def _picture(self, level: int, index: int) -> Tensor:
        part, own = self._places[index]
        rgba = part.level(level)[own]
        return _flat(rgba, self.background) if part.has_alpha and not self.has_alpha else rgba


def _flat(rgba: Tensor, background: Color) -> Tensor:
    """(H, W, 4) uint8 straight RGBA on a background, opaque."""
    alpha = rgba[..., 3:].float() / 255
    color = rgba[..., :3] * alpha + (1 - alpha) * 255 * alpha.new_tensor(background)
    return torch.cat([color.round().to(torch.uint8), torch.full_like(rgba[..., 3:], 255)], dim=-1)


def _chosen(plane: Tensor | LazyPlane, frames: Tensor) -> LazyPlane:
    return LazyPlane(lambda i: plane[int(frames[i])], (len(frames), *plane.shape[1:]))


@one_torch_thread()
def _each(pictures: Tensor | LazyPlane, change: Callable[[Tensor], Tensor]) -> Tensor:
    """All pictures changed."""
    count, changed = len(pictures), None
    made = parallel_map(lambda i: change(pictures[i]), count)
    for i, picture in enumerate(late_bar(made, "smaller pictures", count, " picture")):
        if changed is None:
            changed = torch.empty(count, *picture.shape, dtype=picture.dtype)
        changed[i] = picture
    return changed


def _each_when_asked(pictures: LazyPlane, change: Callable[[Tensor], Tensor]) -> LazyPlane:
    """Each changed when it is asked for, as it is decoded or drawn then."""
    return LazyPlane(lambda i: change(pictures[i]), (len(pictures), *change(pictures[0]).shape))


def _smaller(picture: Tensor, width: int, height: int) -> Tensor:
    return torch.from_numpy(resize_rgba(picture.numpy(), width, height))


def _halved(counted: Tensor, width: int, height: int) -> Tensor:
    """(height, width) bool: the pixels that are made of counted ones alone."""
    return torch.from_numpy(resize_area(counted.numpy().astype(np.float32), width, height) >= 1 - 1e-4)
