"""What the viewer can show of a student, of its teacher's Gaussians, or of both, from any camera."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from distill.evaluation.comparison_pictures import ERROR_SCALE, contact_sheet, error_map, heat
from distill.model.model import Model
from distill.model.view_renderers import Rendering, RenderPart, RenderView, student_renderer
from distill.viewer.ray_pictures import occupied_faces, samples_per_ray
from distill.viewer.render_worker import Parts
from scene.cameras import Cameras
from scene.images import to_uint8
from scene.rays import Rays, SceneBox, camera_rays
from settings.sections import Color

MOST_SAMPLES = 64
"""Samples per ray that get the brightest colour."""
_ALONE = ("depth", "alpha")
_OF_STUDENT = ("student", *_ALONE, "samples per ray", "occupancy")
_OF_BOTH = ("student", "teacher", "side by side", "error", *_OF_STUDENT[1:])
MODES = {
    "student": "",
    "teacher": "",
    "side by side": "left half: teacher, right half: student, each the middle of the view",
    "error": f"RMS difference of student and teacher, from 0 (black) to {ERROR_SCALE:g} (yellow)",
    "depth": "near is bright, over the scene box",
    "alpha": "0 is black, 1 is white",
    "samples per ray": f"from 0 (black) to {MOST_SAMPLES} or more (yellow), until the ray ends",
    "occupancy": "the first occupied cell that each ray meets",
}
"""Every mode, and what its colours mean."""


class Pictures:
    """Draws a model, Gaussians, or both; whichever is there. ``teacher`` may come later.

    Args:
        model: the student.
        teacher: the Gaussians, as ``gaussians_renderer`` draws them.
        box: the scene's.
        device: where the student is.
        background: what is behind the scene.
    """

    def __init__(
        self, model: Model | None, teacher: RenderPart | None, box: SceneBox, device: torch.device, background: Color
    ) -> None:
        self.model, self.teacher, self.box = model, teacher, box
        self._device, self._background = device, background
        self._student: RenderView | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        """What can be shown now."""
        if self.model is None:
            return ("teacher", *_ALONE)
        return _OF_STUDENT if self.teacher is None else _OF_BOTH

    def renew(self) -> None:
        """The student has other weights now."""
        self._student = None

    def __call__(self, mode: str, cameras: Cameras) -> tuple[np.ndarray, Parts]:
        """The one camera's picture, (H, W, 3) uint8, and how long each part took: see ``MODES``.

        Each row is the same whatever rows are drawn with it.
        """
        watch = _Stopwatch()
        if mode in ("samples per ray", "occupancy"):
            asked = samples_per_ray if mode == "samples per ray" else occupied_faces
            planes = {mode: watch.timed(mode, lambda: self._along_rays(asked, cameras))}
        elif mode == "side by side":
            left, right = _halves(cameras)
            planes = {"teacher": watch.timed("teacher", lambda: self.teacher(left, 0, cameras.width))}
            planes["student"] = watch.timed("student", lambda: self._of_student(right))
        else:
            names = ("student", "teacher") if mode == "error" else (self._shown_as(mode),)
            render = {"student": self._of_student, "teacher": lambda asked: self.teacher(asked, 0)}
            planes = {name: watch.timed(name, lambda name=name: render[name](cameras)) for name in names}
        image = watch.timed("colours", lambda: self._coloured(mode, cameras, planes))
        return image, watch.parts

    def sheet(self, cameras: Cameras) -> np.ndarray:
        """The one camera's picture in every mode, named, in rows of four: (h, w, 3) uint8."""
        return contact_sheet([self(mode, cameras)[0] / 255 for mode in self.modes], self.modes, 4)

    def _shown_as(self, mode: str) -> str:
        """Of a mode that shows one of the two, which."""
        return mode if mode in ("student", "teacher") else "teacher" if self.model is None else "student"

    def _of_student(self, cameras: Cameras) -> Rendering:
        if self._student is None:
            self._student = student_renderer(self.model, self._device)
        return self._student(cameras, 0)

    def _along_rays(self, asked: Callable[[Model, Rays], Tensor], cameras: Cameras) -> Tensor:
        """(H, W) of what ``asked`` says of each ray, on the CPU."""
        ends = self.model.settings.near, self.model.settings.far
        rays = camera_rays(cameras.to(self._device), 0, self.model.grid.box, *ends, "torch")
        return asked(self.model, rays).view(cameras.height, cameras.width).cpu()

    def _coloured(self, mode: str, cameras: Cameras, planes: dict) -> np.ndarray:
        def over(name: str) -> np.ndarray:
            return planes[name].over(self._background).numpy()

        if mode == "side by side":
            return to_uint8(np.concatenate([over("teacher"), over("student")], axis=1))
        if mode == "error":
            return error_map(over("student"), over("teacher"))
        if mode == "samples per ray":
            return heat(planes[mode].numpy() / MOST_SAMPLES)
        if mode == "occupancy":
            faces = planes[mode][..., None]
            return to_uint8(torch.where(faces > 0, faces, faces.new_tensor(self._background)).numpy())
        shown = planes[self._shown_as(mode)]
        if mode == "depth":
            nearness = heat(1 - self._share_of_box(cameras, shown.distance).numpy())
            return np.where(shown.alpha.numpy()[..., None] > 0.5, nearness, to_uint8(np.array(self._background)))
        if mode == "alpha":
            return to_uint8(shown.alpha.numpy()[..., None].repeat(3, axis=-1))
        return to_uint8(shown.over(self._background).numpy())

    def _share_of_box(self, cameras: Cameras, distance: Tensor) -> Tensor:
        """Where distances are between the ends of the sphere about the scene box, 0 to 1."""
        centre = torch.tensor(self.box.centre)
        away, radius = (cameras.centers[0].cpu() - centre).norm().item(), math.hypot(*self.box.extent) / 2
        near = max(0.0, away - radius)
        return ((distance - near) / (away + radius - near)).clamp(0, 1)


class _Stopwatch:
    """Seconds by name."""

    def __init__(self) -> None:
        self.parts: Parts = {}

    def timed(self, name: str, work: Callable):
        """What ``work`` gives; its time is added to the name's."""
        start = time.perf_counter()
        result = work()
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - start
        return result


def _halves(cameras: Cameras) -> tuple[Cameras, Cameras]:
    """The middle of the view at half its width, and at what is left of it."""
    left = cameras.width // 2
    shift = cameras.width / 4
    parts = left, cameras.width - left
    return tuple(replace(cameras, cx=cameras.cx - shift, width=width) for width in parts)
