"""Training rays of more pictures than memory holds: some at a time, replaced one by one beside training."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from distill.training.ray_sampler import PixelPool, RaySampler
from distill.training.ray_source import RaySource, Sampling
from kernels.threads import one_torch_thread
from settings.words import counted
from teacher.sources.live_producers import ThreadedProducer
from teacher.views.lazy_pictures import Picture
from teacher.views.sight import depth_reach
from teacher.views.teacher_views import TeacherViews

_RAYS_PER_PICTURE = 16384  # drawn between two exchanges: a small part of what decoding a picture takes
_BEFORE = 32  # pictures that training waits for; the others come beside it
_AHEAD = 2  # decoded pictures that may wait for their turn
_log = logging.getLogger(__name__)


class LazyRaySampler(RaySampler):
    """Draws pixels uniformly from the pictures that are in memory, of all of a dataset's that are not held out.

    The oldest gives way to another one, in a random order in which each has its turn, whenever that is decoded already
    and ``_RAYS_PER_PICTURE`` rays have been drawn since the last: no step waits, so that two runs differ. Entering the
    context decodes the first ones.

    Args:
        views: with a ``store``.
        budget: bytes of the pictures in memory; one is there in any case.
        seed: of the order.
        guided_by: side of the cells by which the reach of pictures with distances is measured, see ``depth_reach``;
            None: rays end with the box.
    """

    def __init__(
        self,
        views: TeacherViews,
        sampling: Sampling,
        budget: int,
        seed: int,
        guided_by: float | None = None,
    ) -> None:
        super().__init__(_blank(views), replace(sampling, cells=None))
        self._views, self._train, self._seed = views, views.training_frames, seed
        self.cells, device = sampling.cells, sampling.device
        pooled = self.cells is not None or views.counted is not None
        shared = views.alpha is not None and views.counted is None  # alpha is coverage
        has_depth = views.distance is not None
        self._guided_by = guided_by if has_depth else None
        guided = self._guided_by is not None
        pixel_bytes = 3 + (views.alpha is not None) + (not shared) + 4 * pooled + 4 * has_depth + 2 * guided
        self.slots = min(len(self._train), max(1, budget // (pixel_bytes * self._frame_pixels)))
        self.cameras = views.cameras[[0] * self.slots].to(device)

        def plane(*channels: int, dtype: torch.dtype = torch.uint8) -> Tensor:
            return torch.empty(self.slots * self._frame_pixels, *channels, dtype=dtype, device=device)

        self.shares = False
        self.rgb, self.alpha = plane(3), None if views.alpha is None else plane()
        self.coverage = self.alpha if shared else plane()
        self.distance = plane(dtype=torch.float32) if has_depth else None
        self.reach = plane(dtype=torch.float16) if guided else None
        self.pool = PixelPool(self.slots, self._frame_pixels, device) if pooled else None
        self._producer = ThreadedProducer(self._decode, _AHEAD)
        self.taken, self._placed, self._drawn = 0, 0, 0

    @property
    def pixels(self) -> int:
        return self.resident * self._frame_pixels

    @property
    def resident(self) -> int:
        """Pictures that are in memory."""
        return min(self._placed, self.slots)

    def __enter__(self) -> RaySource:
        start, before = time.perf_counter(), min(self.slots, _BEFORE)
        if not self._placed:
            with one_torch_thread():
                for picture in self._producer.first(self.taken, before):
                    self._place(picture)
            _log.info(
                "%d of %d pictures decoded in %.1f s; at most %d are in memory, the others come beside training",
                before, len(self._train), time.perf_counter() - start, self.slots,
            )  # fmt: skip
        self._producer.start(self.taken)
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.stop()

    def advance(self, rays: int) -> None:
        """Takes in what has been decoded.

        Raises:
            InputError: a picture is damaged.
        """
        self._drawn += rays
        while self._has_room() and self._producer.is_ready():
            self._drawn = 0
            self._place(self._producer.take())

    def _has_room(self) -> bool:
        if self.resident < self.slots:
            return True
        return self.slots < len(self._train) and self._drawn >= _RAYS_PER_PICTURE

    def summary(self) -> str:
        taken = counted(self.taken, "picture")
        return f"{taken} decoded; of {len(self._train)} there were {self.resident} in memory at a time"

    def state(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on with the pictures whose turn it was; those that were in memory have to wait for theirs."""
        self.taken = int(state["taken"])

    def _decode(self, turn: int) -> tuple[int, Picture, Tensor | None]:
        """The frame whose turn it is, its picture, and how far that sees where rays are guided."""
        lap, place = divmod(turn, len(self._train))
        order = torch.randperm(len(self._train), generator=torch.Generator().manual_seed(self._seed + lap))
        frame = int(self._train[order[place]])
        picture = self._views.store.decode(frame)
        if self._guided_by is None:
            return frame, picture, None
        return frame, picture, depth_reach(picture.view.distance, picture.view.coverage, self._guided_by)

    def _place(self, decoded: tuple[int, Picture, Tensor | None]) -> None:
        frame, picture, reach = decoded
        self._put(self._placed % self.slots, self._views.cameras[frame], picture.view, reach, picture.counted)
        self.taken, self._placed = self.taken + 1, self._placed + 1


def _blank(views: TeacherViews) -> TeacherViews:
    """One view without anything in it: the planes of all slots are made afterwards."""
    plane = torch.zeros(1, views.cameras.height, views.cameras.width, dtype=torch.uint8)
    return replace(
        views,
        cameras=views.cameras[0],
        names=views.names[:1],
        rgb=plane[..., None].expand(*plane.shape, 3),
        alpha=None if views.alpha is None else plane,
        coverage=plane,
        distance=None,
        ground_truth=None,
        holdout=torch.zeros(1, dtype=torch.bool),
        counted=None,
        store=None,
    )
