"""Random training rays and what the teacher shows along them."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.losses.pictures import RayBatch
from distill.rendering.renderer import clip_to_box
from distill.training.ray_source import RaySource, Sampling
from kernels.dispatch import resolve
from kernels.rays.cell_projection import pixels_of_cells
from kernels.rays.training_rays_numba import Pixels
from kernels.rays.training_rays_numba import draw as draw_numba
from machine.terminal import late_bar
from scene.cameras import Cameras
from scene.frames import refuse_only_holdout
from scene.rays import Rays, pixel_rays
from settings.errors import InputError
from teacher.rasterizer import camera_view
from teacher.views.rasterized import View
from teacher.views.teacher_views import TeacherViews


class RaySampler(RaySource):
    """Draws pixels uniformly from those of the views that are not held out.

    Rays that meet no occupied cell tell a student nothing: with ``cells`` hardly any of them is drawn. Of the pixels
    that do not count (``TeacherViews.counted``) none is.

    Args:
        views: the teacher, whose pictures are not to change while this draws from them.
        reach: (N, H, W) float16 of the N views that are not held out: how far rays are sampled, see
            ``teacher.views.sight.Sight``; None: to the end.

    Raises:
        InputError: every view is held out.
    """

    def __init__(self, views: TeacherViews, sampling: Sampling, reach: Tensor | None = None) -> None:
        self.box, self.settings, self.cells = sampling.box, sampling.settings, sampling.cells
        self.device = device = sampling.device
        train = views.training_frames
        refuse_only_holdout(len(train), len(views))
        self.cameras = views.cameras[train].to(device)
        # On the CPU all pictures, those that are held out too, stay where they are: copies would double what they take.
        self.shares = device.type == "cpu" and self.settings.implementation != "triton"
        self.frames = train if self.shares and len(train) < len(views) else None
        copied = slice(None) if self.shares else train
        self.rgb = views.rgb[copied].reshape(-1, 3).to(device)
        self.alpha = None if views.alpha is None else views.alpha[copied].reshape(-1).to(device)
        # Of views with alpha the two are the same picture: one copy of it on the device is enough.
        same = views.alpha is not None and torch.equal(views.coverage, views.alpha)
        self.coverage = self.alpha if same else views.coverage[copied].reshape(-1).to(device)
        self.distance = None if views.distance is None else views.distance[copied].reshape(-1).to(device)
        fixed = sampling.background if views.background is None else views.background
        self.background = torch.tensor(fixed, dtype=torch.float32, device=device)
        self.random_background = sampling.random_background and self.alpha is not None
        self.reach = None if reach is None else reach.reshape(-1).to(device)
        counted = None if views.counted is None else views.counted[train]
        self.pool = None
        if self.cells is not None or counted is not None:
            self.pool = PixelPool(len(train), self._frame_pixels, device)
            for frame in late_bar(range(len(train)), "pixels worth drawing", unit=" view"):
                self._find_pixels(frame, None if counted is None else counted[frame])

    @property
    def pixels(self) -> int:
        return len(self.cameras) * self._frame_pixels

    @property
    def nbytes(self) -> int:
        kept = [self.reach, None if self.pool is None else self.pool.table]
        if not self.shares:
            kept += [self.rgb, self.alpha, self.distance]
            kept += [] if self.coverage is self.alpha else [self.coverage]
        return sum(part.nbytes for part in kept if part is not None)

    def draw(self, count: int, generator: torch.Generator) -> RayBatch:
        total = self._drawable()
        chosen = torch.randint(total, (count,), generator=generator, device=generator.device).to(self.device)
        if self.random_background:
            background = torch.rand((count, 3), generator=generator, device=generator.device).to(self.device)
        else:
            background = self.background.expand(count, 3)
        twins = ("torch", "numba", "triton")
        name = resolve("training_rays", self.settings.implementation, self.device, twins)
        if name != "torch":
            return self._batch_of_twin(name, chosen, background)
        return self._batch_torch(chosen if self.pool is None else self.pool.pixels(chosen), background)

    def _drawable(self) -> int:
        if self.pool is None:
            return self.pixels
        if not self.pool.count:
            found = f"none of {self.pixels:,} pixels of the training views looks at an occupied cell and counts"
            hint = "Do the views see the scene, and do masks leave anything of it? tools/check_alignment.py shows it."
            raise InputError("config", "teacher's views", found, "views that show the scene", hint)
        return self.pool.count

    def _batch_torch(self, pixel: Tensor, background: Tensor) -> RayBatch:
        frame, rest = pixel // self._frame_pixels, pixel % self._frame_pixels
        row, col = rest // self.cameras.width, rest % self.cameras.width
        rays = clip_to_box(*pixel_rays(self.cameras, frame, row, col), self.box, self.settings)
        stored = pixel if self.frames is None else self.frames[frame] * self._frame_pixels + rest
        rgb = _unit(self.rgb[stored])
        if self.alpha is not None:
            alpha = _unit(self.alpha[stored])
            rgb = rgb * alpha[:, None] + (1 - alpha)[:, None] * background
        return RayBatch(
            rays=rays,
            rgb=rgb,
            background=background,
            coverage=_unit(self.coverage[stored]),
            distance=None if self.distance is None else self.distance[stored],
            reach=None if self.reach is None else self.reach[pixel].float(),
        )

    def _batch_of_twin(self, name: str, chosen: Tensor, background: Tensor) -> RayBatch:
        """As ``_batch_torch``, of pixels of the pool, by "numba" or "triton"."""
        if name == "triton":
            from kernels.rays.training_rays_triton import draw
        else:
            draw = draw_numba
        cameras, pool = self.cameras, self.pool
        pixels = Pixels(
            cameras.c2w, (cameras.fx, cameras.fy, cameras.cx, cameras.cy), (cameras.width, cameras.height),
            self.rgb, self.alpha, self.coverage, self.distance, self.reach, pool and (pool.table, pool.ends),
            self.frames,
        )  # fmt: skip
        ends = self.box.lower, self.box.upper, self.settings.near, self.settings.far
        *rays, rgb, coverage, distance, reach = draw(chosen, background, pixels, *ends)
        return RayBatch(Rays(*rays), rgb, background, coverage, distance, reach)

    @property
    def _frame_pixels(self) -> int:
        return self.cameras.width * self.cameras.height

    def _put(self, slot: int, camera: Cameras, view: View, reach: Tensor | None, counted: Tensor | None = None) -> None:
        """Puts another view, as a set of one camera has it, in the place of one.

        Args:
            reach, counted: (H, W) of it, see ``Sight`` and ``TeacherViews``.
        """
        pixels = slice(slot * self._frame_pixels, (slot + 1) * self._frame_pixels)
        self.rgb[pixels] = view.rgb.reshape(-1, 3).to(self.device)
        planes = [(self.alpha, view.alpha), (self.distance, view.distance), (self.reach, reach)]
        planes += [] if self.coverage is self.alpha else [(self.coverage, view.coverage)]
        for kept, plane in planes:
            if kept is not None:
                kept[pixels] = plane.reshape(-1).to(self.device)
        for name, values in camera.tensors().items():
            getattr(self.cameras, name)[slot] = values[0].to(self.device)
        if self.pool is not None:
            self._find_pixels(slot, counted)

    def _find_pixels(self, frame: int, counted: Tensor | None = None) -> None:
        """Puts the pixels of a view that count, and look at an occupied cell, into the pool."""
        wanted = counted
        if self.cells is not None:
            wanted = pixels_of_cells(self.cells, camera_view(self.cameras, frame))
            wanted = wanted if counted is None else wanted & counted.to(wanted.device)
        self.pool.set_frame(frame, wanted.flatten().to(self.device))


class PixelPool:
    """The pixels of some views that are worth drawing.

    Args:
        views: number of views.
        frame_pixels: pixels of a view.
        device: where the table is.
    """

    def __init__(self, views: int, frame_pixels: int, device: torch.device) -> None:
        self.table = torch.zeros(views, frame_pixels, dtype=torch.int32, device=device)
        self._counts = torch.zeros(views, dtype=torch.int64)
        self.count = 0  # of all views: a number, as each draw asks for it
        self._starts = self.ends = torch.zeros(views, dtype=torch.int64, device=device)
        """Of each view, pixels of it and of those before it."""

    def set_frame(self, view: int, wanted: Tensor) -> None:
        """Replaces a view's pixels by those that a (H * W,) bool mask holds."""
        places = wanted.nonzero()[:, 0]
        self.table[view, : len(places)] = places.int()
        self._counts[view] = len(places)
        self.count = int(self._counts.sum())
        counts = self._counts.to(self.ends.device)
        self.ends = counts.cumsum(0)
        self._starts = self.ends - counts

    def pixels(self, chosen: Tensor) -> Tensor:
        """(R,) int64 indices among all pixels of the views, from (R,) indices into the pool."""
        view = torch.searchsorted(self.ends, chosen, right=True)
        return view * self.table.shape[1] + self.table[view, chosen - self._starts[view]]


def _unit(values: Tensor) -> Tensor:
    return values.float() / 255
