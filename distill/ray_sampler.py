"""Random training rays and what the teacher shows along them."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses import RayBatch
from distill.renderer import RenderSettings, clip_to_box
from scene.errors import InputError
from scene.rays import SceneBox, pixel_rays
from teacher.views import TeacherViews


class RaySampler:
    """Draws pixels uniformly from the views that are not held out.

    Args:
        views: the teacher.
        box, settings: clip the rays.
        background: (3,) behind the student, and behind a teacher with alpha when ``random_background`` is off.
        random_background: a random colour per ray; only a teacher with alpha allows it.
        device: where the pixels are kept and the batches made.

    Raises:
        InputError: every view is held out.
    """

    def __init__(
        self,
        views: TeacherViews,
        box: SceneBox,
        settings: RenderSettings,
        background: tuple[float, float, float],
        random_background: bool,
        device: torch.device,
    ) -> None:
        self.box, self.settings, self.device = box, settings, device
        train = (~views.holdout).nonzero()[:, 0]
        if not len(train):
            expected = "at least one frame to train on"
            hint = "Use more frames, or data.holdout_every: 0."
            raise InputError("config", "data.holdout_every", f"all {len(views)} frames held out", expected, hint)
        self.cameras = views.cameras[train].to(device)
        self.rgb = views.rgb[train].reshape(-1, 3).to(device)
        self.alpha = None if views.alpha is None else views.alpha[train].reshape(-1).to(device)
        self.coverage = views.coverage[train].reshape(-1).to(device)
        self.distance = None if views.distance is None else views.distance[train].reshape(-1).to(device)
        fixed = background if views.background is None else views.background
        self.background = torch.tensor(fixed, dtype=torch.float32, device=device)
        self.random_background = random_background and self.alpha is not None

    @property
    def pixels(self) -> int:
        """Training rays there are."""
        return len(self.rgb)

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        """``count`` random rays; the same for the same generator state on any device."""
        pixel = torch.randint(self.pixels, (count,), generator=generator).to(self.device)
        per_frame = self.cameras.width * self.cameras.height
        frame, rest = pixel // per_frame, pixel % per_frame
        row, col = rest // self.cameras.width, rest % self.cameras.width
        rays = clip_to_box(*pixel_rays(self.cameras, frame, row, col), self.box, self.settings)
        if self.random_background:
            background = torch.rand((count, 3), generator=generator).to(self.device)
        else:
            background = self.background.expand(count, 3)
        rgb = _unit(self.rgb[pixel])
        if self.alpha is not None:
            alpha = _unit(self.alpha[pixel])
            rgb = rgb * alpha[:, None] + (1 - alpha)[:, None] * background
        return RayBatch(
            rays=rays,
            rgb=rgb,
            background=background,
            coverage=_unit(self.coverage[pixel]),
            distance=None if self.distance is None else self.distance[pixel],
        )


def _unit(values: Tensor) -> Tensor:
    return values.float() / 255
