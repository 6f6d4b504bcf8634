"""Views of a student and of its teacher's Gaussians in one form, from any camera."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distill.model.model import Model
from kernels.threads import one_torch_thread
from scene.cameras import Cameras
from settings.errors import InputError
from settings.sections import Color
from teacher.rasterizer import Rasterizer
from teacher.views.rasterized import FAINT, blended_planes

_BLACK: Color = (0.0, 0.0, 0.0)


class Rendering(NamedTuple):
    """A view without a background: rgb (H, W, 3) premultiplied, alpha (H, W), distance (H, W), 0 where empty."""

    rgb: Tensor
    alpha: Tensor
    distance: Tensor

    def over(self, background: Color) -> Tensor:
        """(H, W, 3) in [0, 1], before a colour.

        Raises:
            InputError: the background is no colour: red, green and blue in [0, 1].
        """
        try:
            color = [float(value) for value in background]
        except (TypeError, ValueError):
            color = []
        if len(color) != 3 or not all(0 <= value <= 1 for value in color):
            raise InputError("over", "background", background, "red, green and blue, each from 0 to 1")
        return (self.rgb + (1 - self.alpha)[..., None] * self.rgb.new_tensor(color)).clamp(0, 1)


RenderView = Callable[[Cameras, int], Rendering]
"""Renders one of some cameras at their size, on the CPU."""


class RenderPart(Protocol):
    """A ``RenderView`` that can also render a part of a view as the whole would show it."""

    def __call__(self, cameras: Cameras, index: int, across: int | None = None) -> Rendering:
        """``across``: pixels of the whole view's width; None: the cameras' own."""


def student_renderer(model: Model, device: torch.device) -> RenderView:
    """Renders a student that is on ``device``; values that are not finite come out as 0."""

    renderer = model.renderer()

    def render(cameras: Cameras, index: int) -> Rendering:
        frame = renderer.render(cameras.to(device), index, _BLACK)
        return Rendering(*(plane.cpu().nan_to_num(0.0, 0.0, 0.0) for plane in frame))

    return render


def gaussians_renderer(rasterizer: Rasterizer, focal: float | None = None) -> RenderPart:
    """Renders a teacher's Gaussians.

    Args:
        focal: of the views that the rasterizer's ``Drawing`` is of, see ``Drawing.of_lens``; None: all are like them.
    """

    @one_torch_thread()
    def render(cameras: Cameras, index: int, across: int | None = None) -> Rendering:
        drawing = rasterizer.drawing.of_part(cameras.width, across or cameras.width)
        if focal is not None:
            drawing = rasterizer.drawing.of_lens(cameras, index, focal)
        planes = blended_planes(rasterizer.redrawn(drawing), cameras, index).cpu()
        alpha = planes[..., 3]
        distance = planes[..., 4] / alpha.clamp(min=FAINT)
        return Rendering(planes[..., :3], alpha, torch.where(alpha >= FAINT, distance, 0.0))

    return render
