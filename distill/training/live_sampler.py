"""Training rays of a live teacher: a ring of views of which the oldest is replaced again and again."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import torch

from distill.training.ray_sampler import PixelPool, RaySampler
from distill.training.ray_source import RaySource, Sampling
from kernels.threads import one_torch_thread
from machine.memory import check_pictures_fit
from machine.terminal import progress_bar
from scene.cameras import Cameras
from settings.teacher import LiveConfig
from settings.words import counted
from teacher.sources.live_producers import LiveView, ViewProducer
from teacher.views.rasterized import VIEW_BYTES
from teacher.views.teacher_views import TeacherViews

_log = logging.getLogger(__name__)


class LiveRaySampler(RaySampler):
    """Draws pixels uniformly from the latest views of a live teacher.

    View k of the sequence stands in slot k modulo ``live.buffer`` until view k + ``live.buffer`` takes its place. It
    comes when ``live.reuse`` times a view's pixels have been drawn since the one before, and training waits for it, so
    that a run is the same however fast views are made. Entering the context fills the ring.

    Args:
        producer: renders the views.
        camera: of one view, for its size.
        live: size of the ring and pace.
        sampling: how pixels become rays; where rays may end is kept if the producer's views bring it.
    """

    def __init__(
        self,
        producer: ViewProducer,
        camera: Cameras,
        live: LiveConfig,
        sampling: Sampling,
    ) -> None:
        self.producer, self.slots = producer, live.buffer
        shape = (live.buffer, camera.height, camera.width)
        check_pictures_fit((camera.width, camera.height), live.buffer, VIEW_BYTES, "data.resolution")
        alpha = torch.zeros(shape, dtype=torch.uint8)
        ring = TeacherViews(
            cameras=camera[[0] * live.buffer],
            names=tuple(str(slot) for slot in range(live.buffer)),
            rgb=torch.zeros((*shape, 3), dtype=torch.uint8),
            alpha=alpha,
            coverage=alpha,
            distance=torch.zeros(shape),
            background=None,
            ground_truth=None,
            holdout=torch.zeros(live.buffer, dtype=torch.bool),
        )
        super().__init__(ring, replace(sampling, cells=None))
        self.shares = False  # nobody else has the ring
        self.cells, device = sampling.cells, sampling.device
        if self.cells is not None:
            self.pool = PixelPool(live.buffer, self._frame_pixels, device)
        self.rays_per_view = max(1, round(live.reuse * self._frame_pixels))
        self.taken, self.drawn, self.waited = 0, 0, 0.0
        self._filled = False
        self._last_row = (0.0, 0)  # time and views taken

    def __enter__(self) -> RaySource:
        if not self._filled:
            self._fill()
        self.producer.start(self.taken)
        self._last_row = (time.perf_counter(), self.taken)
        return self

    def __exit__(self, *_: object) -> None:
        self.producer.stop()

    def advance(self, rays: int) -> None:
        self.drawn += rays
        while self.drawn >= self.rays_per_view:
            self.drawn -= self.rays_per_view
            start = time.perf_counter()
            view = self.producer.take()
            self.waited += time.perf_counter() - start
            self._place(view)

    def figures(self) -> dict[str, float]:
        now, (then, taken) = time.perf_counter(), self._last_row
        self._last_row = (now, self.taken)
        return {
            "live_views": self.taken,
            "live_views_per_s": round((self.taken - taken) / max(now - then, 1e-9), 3),
            "live_starved_s": round(self.waited, 3),
        }

    def summary(self) -> str | None:
        return f"live teacher: {counted(self.taken, 'view')} rendered; training waited {self.waited:.1f} s for them"

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken, "drawn": self.drawn, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        """The views are rendered again on entering."""
        self.taken, self.drawn, self.waited = int(state["taken"]), int(state["drawn"]), float(state["waited"])
        self._filled = False

    def _fill(self) -> None:
        """The ring as it is after ``taken`` views; the first ones where it is new."""
        self.taken, start = max(0, self.taken - self.slots), time.perf_counter()
        with one_torch_thread():
            views = self.producer.first(self.taken, self.slots)
            for view in progress_bar(views, "teacher views", self.slots, leave=False, disable=None, unit=" view"):
                self._place(view)
        self._filled = True
        views = counted(self.slots, "view")
        _log.info("live teacher: %s in %.1f s before training", views, time.perf_counter() - start)

    def _place(self, posed: LiveView) -> None:
        if self.reach is None and posed.reach is not None:
            self.reach = torch.zeros(self.slots * self._frame_pixels, dtype=torch.float16, device=self.device)
        self._put(self.taken % self.slots, posed.camera, posed.view, posed.reach)
        self.taken += 1
