"""How the files of a rate study are measured: all alike, on the held-out frames, by the same clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from distill.evaluation.evaluator import background_of
from distill.evaluation.frame_metrics import References, Render
from distill.evaluation.metrics import Lpips
from distill.evaluation.speed import frames_per_second, timed
from distill.model.checkpoint import load_checkpoint
from distill.model.model import restore_model
from distill.rate_quality.rate_table import FIGURES, RatePoint
from distill.rendering.renderer import RenderedFrame
from kernels.threads import one_torch_thread
from machine.terminal import late_bar
from scene.frames import refuse_no_holdout
from settings.config import Config
from teacher.gaussians import Gaussians
from teacher.sources import Source, Teacher
from teacher.views.rasterized import blended_planes

_Draw = Callable[[int], RenderedFrame]


class FormMeasurement:
    """Draws a form on the held-out frames, and compares it with the teacher's pictures, and with ground truth if any.

    Raises:
        InputError: no frame is held out.
    """

    def __init__(self, config: Config, source: Source, teacher: Teacher, device: torch.device) -> None:
        self.source, self.device, self.cameras = source, device, teacher.views.cameras
        self.frames = teacher.views.holdout_frames.tolist()
        refuse_no_holdout(len(self.frames))
        names = ("teacher",) + (("ground_truth",) if teacher.views.ground_truth is not None else ())
        nets = {net: Lpips.load(net, device) for net in config.eval.lpips_nets if net == "vgg"}
        nets = {net: model for net, model in nets.items() if model}
        self.references = References(teacher.views, names, background_of(teacher.views, config), nets)

    def key(self) -> list:
        """What figures depend on beside what is measured: each frame's pictures, and how they are compared."""
        return [self.references.key(frame) for frame in self.frames]

    def student(self, config: Config, path: Path, words: str, size: int) -> RatePoint:
        """Of a checkpoint's or a compact file's student; ``size`` in bytes, ``words`` for the table."""
        model = restore_model(config, load_checkpoint(path, self.device), path, self.device)
        model.student.eval()
        cameras, renderer = self.cameras.to(self.device), model.renderer()

        def render(index: int) -> RenderedFrame:
            return renderer.render(cameras, index, self.references.background)

        return self._point(f"student {model.student.kind}", words, size, render)

    def gaussians(self, gaussians: Gaussians, form: str, words: str, size: int) -> RatePoint:
        """Of Gaussians as they were read from a file of ``size`` bytes."""
        return self._point(form, words, size, self._drawn(gaussians))

    def _drawn(self, gaussians: Gaussians) -> _Draw:
        rasterizer = self.source.rasterizer(gaussians)

        @one_torch_thread()  # as students are drawn: their times are compared
        def render(index: int) -> RenderedFrame:
            planes = blended_planes(rasterizer, self.cameras, index)
            alpha = planes[..., 3]
            rgb = planes[..., :3] + (1 - alpha)[..., None] * planes.new_tensor(self.references.background)
            return RenderedFrame(rgb.clamp(0, 1), alpha, torch.zeros_like(alpha))

        return render

    @torch.no_grad()
    def _point(self, form: str, words: str, size: int, render: _Draw) -> RatePoint:
        timed(render, self.frames[0], self.device)  # the first one compiles, or fills caches
        found: dict[str, list[dict[str, float | None]]] = {name: [] for name in self.references.names}
        seconds = []
        for index in late_bar(self.frames, "measure", unit=" frame"):
            frame, spent = timed(render, index, self.device)
            seconds.append(spent)
            for name, figures in self.references.measure(index, Render.of(frame, spent), None).items():
                found[name].append(figures)
        figures = {
            name: {figure: _mean([each.get(figure) for each in every]) for figure in FIGURES}
            for name, every in found.items()
        }
        return RatePoint(form, words, size, figures, frames_per_second(seconds))


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None
