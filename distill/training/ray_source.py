"""What gives training rays, and how the pixels of views become them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from distill.losses.pictures import RayBatch
from distill.rendering.renderer import RenderSettings
from kernels.marching.ray_samples import Cells
from scene.rays import SceneBox
from settings.sections import Color


class RaySource:
    """Gives training rays. Training goes on within ``with source:`` and calls ``advance`` after each step."""

    @property
    def pixels(self) -> int:
        """How many training rays there are."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Memory of the pixels on the device where batches are made, beside what the views have there themselves."""
        raise NotImplementedError

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        """``count`` random rays; the same for the same generator state on any device.

        Numbers are drawn where the generator is: with one on the device of the batch nothing waits for it.
        """
        raise NotImplementedError

    def __enter__(self) -> RaySource:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def advance(self, rays: int) -> None:
        """Says that a step has used a draw of ``rays``."""

    def figures(self) -> dict[str, float]:
        """Columns of training_metrics.csv about a live teacher: views so far, views a second since the last call,
        seconds that training has waited for them. Empty for fixed views.
        """
        return {}

    def summary(self) -> str | None:
        """What there is to say about the views after training, in one sentence."""
        return None

    def state(self) -> dict[str, Any]:
        """What ``restore`` needs to go on from here; plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores what another source's ``state`` gave."""


@dataclass(frozen=True)
class Sampling:
    """How the pixels of views become training rays.

    Attributes:
        box, settings: clip the rays.
        background: sRGB in [0, 1], behind the student, and behind a teacher with alpha unless ``random_background``.
        random_background: a random colour per ray; only a teacher with alpha allows it.
        device: where the pixels are kept and the batches made. Colour, alpha and coverage stay 8-bit, as stored; a
            drawn ray's become float32.
        cells: that rays must meet, on the CPU; None: all are drawn.
    """

    box: SceneBox
    settings: RenderSettings
    background: Color
    random_background: bool
    device: torch.device
    cells: Cells | None = None
