"""Images of the teacher's Gaussians from the cameras of a dataset."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from kernels.gaussians.clipped_gaussians import Corners, straddling
from kernels.gaussians.rasterize import RasterOutput, View, rasterize
from kernels.gaussians.rasterize_forward_numba import DILATION
from kernels.gaussians.rasterize_gsplat import gsplat_pictures, rasterize_gsplat
from kernels.gaussians.sight import sight
from kernels.marching.ray_samples import Cells
from kernels.threads import available_threads
from machine.memory import available_bytes
from scene.cameras import Cameras, area_means
from scene.rays import SceneBox
from settings.teacher import NEAR
from teacher.gaussians import Gaussians
from teacher.gsplat_setup import ensure_gsplat, gsplat_runs

_MOST_MULTIPLE = 16
_SCREEN_BYTES = 128  # of a Gaussian while a view of it is drawn
_SIDE_BY_SIDE = 0.25  # of the memory that is free, for all views that are drawn at a time


@dataclass(frozen=True)
class Drawing:
    """At which width Gaussians are drawn, and how much each is widened there.

    3DGS adds 0.3 px^2 to the 2D covariance of every Gaussian, in pixels of the pictures it is fitted to: whatever is
    thinner than a pixel looks right at that size of a pixel alone. A view of another width is therefore drawn at the
    least multiple of it that reaches the fitted width, widened by as much as a fitted picture, and averaged by area.

    Sixteen pixels along a side of one are drawn at most: their mean is good enough whatever is asked for.

    Attributes:
        fitted_width: of the pictures that the Gaussians were fitted to, pixels; None: not known, so that every picture
            is widened by 0.3 of its own px^2.
        supersample: draw at this multiple of a view's width instead.
        near: Gaussians closer than this along the view axis are left out, world units; a scene much smaller than one
            unit wants less.
        clip: draw only what lies in this box, see ``kernels.gaussians.clipped_gaussians``, on the CPU; None: all.
        is_supposed: whether nothing tells of ``fitted_width``, which is a guess then.
    """

    fitted_width: float | None = None
    supersample: int | None = None
    near: float = NEAR
    clip: SceneBox | None = None
    is_supposed: bool = False

    @property
    def recorded_width(self) -> int | None:
        """The fitted width as far as it is known: what a file of the Gaussians may say."""
        return None if self.is_supposed else self.fitted_width

    @property
    def clip_corners(self) -> Corners | None:
        """The corners of ``clip``, as the kernel wants them."""
        return None if self.clip is None else (self.clip.lower, self.clip.upper)

    def as_for(self, width: int) -> Drawing:
        """For views of any width what views that wide show: the same Gaussians, no fatter and no thinner.

        A fitted width sees to that itself; without one it is the width that is drawn for views of ``width``.
        """
        if self.fitted_width is not None:
            return self
        return replace(self, fitted_width=self.drawn_width(width), supersample=None, is_supposed=True)

    def of_part(self, width: int, across: int) -> Drawing:
        """For ``width`` pixels that are as large as those of a view ``across`` wide: as in that."""
        fitted = None if self.fitted_width is None else self.fitted_width * width / across
        return replace(self, fitted_width=fitted, supersample=self.multiple(across))

    def of_lens(self, cameras: Cameras, index: int, focal: float) -> Drawing:
        """For camera ``index`` of any field of view: as in views of a horizontal ``focal`` length, in their widths.

        What is wider or narrower is a part of such a view, or more than one.
        """
        return self.of_part(cameras.width, max(1, round(cameras.fx[index].item() / focal)))

    def multiple(self, width: int) -> int:
        """Pixels drawn along a side of each pixel of a view that wide."""
        return self.supersample or min(_MOST_MULTIPLE, ceil((self.fitted_width or width) / width))

    def drawn_width(self, width: int) -> int:
        """Pixels across the picture that is drawn for a view that wide, before it is averaged."""
        return width * self.multiple(width)

    def fine(self, cameras: Cameras) -> Cameras:
        """The cameras at the size that is drawn."""
        return cameras.finer(self.multiple(cameras.width))

    def averaged(self, planes: Tensor, cameras: Cameras) -> Tensor:
        """(H, W, C) at the cameras' size, of what ``fine`` cameras show, by area."""
        return area_means(planes, self.multiple(cameras.width))

    def finer(self, width: int, scale: int) -> Drawing | None:
        """For views ``scale`` times as wide as those of ``width``: drawn as these are now, or more finely, and not
        thinner for it; None: these are not drawn as finely.
        """
        multiple = self.multiple(width)
        if multiple < scale:
            return None
        fitted = self.fitted_width or (multiple * width if multiple % scale else None)
        return replace(self, fitted_width=fitted, supersample=self.supersample and ceil(multiple / scale))

    def dilation(self, width: int) -> float:
        """What is added to the 2D covariances of a picture drawn that wide, px^2 of its own."""
        return DILATION * (width / (self.fitted_width or width)) ** 2


def raster_implementation(name: str, device: torch.device) -> str:
    """``Rasterizer``'s ``implementation``, or what ``"auto"`` stands for on a device.

    Where the device is CUDA and gsplat does not run, ``"auto"`` is the CPU's, and a warning says so.

    Raises:
        InputError: gsplat is named and cannot run on the device; what is missing.
    """
    if name == "auto":
        return "gsplat" if device.type == "cuda" and gsplat_runs(device) else "cpu"
    if name == "gsplat":
        ensure_gsplat(device)
    return name


class Rasterizer:
    """Renders a fixed set of Gaussians, what does not depend on the view computed once.

    Args:
        gaussians: the teacher.
        implementation: ``"auto"``: gsplat on a CUDA device on which it runs, else as ``"cpu"``; ``"gsplat"``;
            ``"cpu"``: the fastest of the kernel ``rasterize`` on the CPU, whatever the device; ``"numba"`` or
            ``"torch"``: that one.
        threads: CPU threads; None is all. The images do not depend on it.
        device: where the program computes; None is the CPU.
        drawing: how much Gaussians are widened, and from where on they are drawn; whoever averages also asks it for the
            size to draw at.

    Raises:
        InputError: gsplat is chosen and cannot run on the device; what is missing.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        implementation: str = "auto",
        *,
        threads: int | None = None,
        device: torch.device | str | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        self.drawing = drawing or Drawing()
        device = torch.device(device or "cpu")
        clipped = self.drawing.clip is not None and implementation == "auto"
        self.implementation = raster_implementation("cpu" if clipped else implementation, device)
        self.device = device if self.implementation == "gsplat" else torch.device("cpu")
        """Where the images are."""
        tensors = gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.sh
        self._tensors = tuple(tensor.to(self.device) for tensor in tensors)
        self._gaussians, self._threads = gaussians, threads
        self._half_axes: Tensor | None = None
        self._lock = threading.Lock()  # threads that each look at a view ask for them at once

    def views_at_a_time(self) -> int:
        """How many views threads may draw, or look at, side by side on the CPU, within a part of the memory that is
        free: what is known of every Gaussian on the screen is in memory for each.
        """
        threads, free = available_threads(), available_bytes()
        if free is None:
            return threads
        return max(1, min(threads, int(_SIDE_BY_SIDE * free) // (_SCREEN_BYTES * max(1, len(self._gaussians)))))

    def redrawn(self, drawing: Drawing) -> Rasterizer:
        """The same Gaussians drawn another way."""
        other = copy(self)
        other.drawing = drawing
        return other

    def render(self, cameras: Cameras, index: int, channels: Tensor | None = None) -> RasterOutput:
        """The image from camera ``index``, at the cameras' size.

        Args:
            channels: (N, C) float32 further values of each Gaussian to blend.

        Raises:
            ValueError: the implementation is unknown.
        """
        if self.implementation == "gsplat":
            return RasterOutput(*(plane[0] for plane in self.render_batch(cameras[index], channels)))
        return rasterize(
            *self._tensors,
            self._view(cameras, index),
            channels=channels,
            near=self.drawing.near,
            clip=self.drawing.clip_corners,
            implementation="auto" if self.implementation == "cpu" else self.implementation,
            threads=self._threads,
        )

    def render_batch(self, cameras: Cameras, channels: Tensor | None = None) -> RasterOutput:
        """The images from all V >= 1 cameras, each field with a leading dimension V.

        On CUDA they are rendered in one call, in memory that grows with V times the number of Gaussians.

        Args, Raises: as ``render``.
        """
        if self.implementation == "gsplat":
            views = [self._view(cameras, index) for index in range(len(cameras))]
            channels = None if channels is None else channels.to(self.device)
            return rasterize_gsplat(*self._tensors, views, channels=channels, near=self.drawing.near)[0]
        single = [self.render(cameras, index, channels) for index in range(len(cameras))]
        return RasterOutput(*(torch.stack(planes) for planes in zip(*single, strict=True)))

    def sight(
        self, cameras: Cameras, index: int, *, blocked: float, seen: Cells | None = None, least_weight: float = 0.0
    ) -> Tensor:
        """Where the rays of the pixels of ``render`` are blocked: see ``kernels.gaussians.sight``; on the CPU.

        With a clip, by Gaussians that are whole in the box: what is in it of others may be little.
        """
        means, covariances, opacities = self._on_cpu
        if self.drawing.clip is not None:
            opacities = opacities.masked_fill(self.straddles, 0.0)
        return sight(
            means,
            self.half_axes,
            covariances,
            opacities,
            self._view(cameras, index),
            blocked=blocked,
            seen=seen,
            least_weight=least_weight,
            near=self.drawing.near,
            implementation="torch" if self.implementation == "torch" else "auto",
            threads=self._threads,
        )

    @property
    def half_axes(self) -> Tensor:
        """Of the Gaussians; of no use to pictures, and most of what making a rasterizer would take."""
        with self._lock:
            if self._half_axes is None:
                self._half_axes = self._gaussians.half_axes()
            return self._half_axes

    @cached_property
    def _on_cpu(self) -> tuple[Tensor, Tensor, Tensor]:
        means, covariances, opacities = (tensor.cpu() for tensor in self._tensors[:3])
        return means, covariances, opacities

    @cached_property
    def straddles(self) -> Tensor:
        """(N,) bool: with a clip, the Gaussians that are not whole in it."""
        return straddling(*self._on_cpu[:2], self.drawing.clip_corners)

    def _view(self, cameras: Cameras, index: int) -> View:
        return camera_view(cameras, index, self.drawing.dilation(cameras.width))


def picture_renderer(
    gaussians: Gaussians, implementation: str, cameras: Cameras, device: torch.device, near: float = NEAR
) -> Callable[[int], object]:
    """What draws camera ``index`` at the cameras' size for a clock: colour, alpha and z.

    With gsplat nothing but that is done, and only what it needs is on the device; else it is ``Rasterizer.render``.

    Args:
        implementation: as of ``Rasterizer``, and never "auto".
        near: as of ``Drawing``.
    """
    if implementation != "gsplat":
        rasterizer = Rasterizer(gaussians, implementation, device=device, drawing=Drawing(near=near))
        return lambda index: rasterizer.render(cameras, index)
    tensors = gaussians.means, gaussians.rotations, gaussians.scales, gaussians.opacities, gaussians.sh
    views = [camera_view(cameras, index) for index in range(len(cameras))]
    return gsplat_pictures(*(tensor.to(device) for tensor in tensors), views, near=near)


def camera_view(cameras: Cameras, index: int, dilation: float = DILATION) -> View:
    """Camera ``index`` as the kernel wants it, at the cameras' size; ``dilation`` as ``Drawing`` says it, px^2."""
    camera = cameras[index].to("cpu")
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return View(camera.world_to_camera()[0], fx, fy, cx, cy, camera.width, camera.height, dilation)
