"""A student beside the pictures it should equal: what every hypothesis about a mistake is tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.evaluation.metrics import psnr_blank
from distill.model.model import RestoredRun
from distill.model.view_renderers import Color, RenderView, gaussians_renderer, student_renderer
from scene.cameras import Cameras
from scene.frames import spread
from scene.images import psnr, resize_area, to_uint8
from settings.config import Config
from settings.errors import InputError
from teacher.depth import DepthKind
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources import load_teacher
from teacher.views.output_folder import OutputFiles, find_outputs
from teacher.views.teacher_views import TeacherViews

_DEPTH_WIDTH, _MOST_SUPERSAMPLE = 100, 8


@dataclass(frozen=True)
class StoredDepth:
    """The teacher's depth files of V views as they are, a pixel taken here and there.

    Attributes:
        values: (V, H, W) >= 0, 0 where there is nothing.
        alpha: (V, H, W) in [0, 1], or None where the pictures have none.
        cameras: V cameras whose pixels these are.
        kind: what the program reads them as.
    """

    values: Tensor
    alpha: Tensor | None
    cameras: Cameras
    kind: DepthKind


@dataclass(frozen=True)
class Comparison:
    """Renders of a student against the pictures of N views.

    Attributes:
        render: the student.
        cameras: N, at the size of the pictures.
        pictures: (N, H, W, 3) float32 in [0, 1], on ``background``.
        coverage: (N, H, W) float32 in [0, 1], the part of a pixel that the scene covers; the pictures' alpha if
            ``has_alpha``.
        background: sRGB in [0, 1] that the student is put on.
        names: N frame names.
        frames: the views that are rendered and compared.
        has_alpha: whether the pictures came with alpha.
        depth: the depth files of ``frames``; None where there are none.
    """

    render: RenderView
    cameras: Cameras
    pictures: Tensor
    coverage: Tensor
    background: Color
    names: tuple[str, ...]
    frames: tuple[int, ...]
    has_alpha: bool = False
    depth: StoredDepth | None = None

    def __len__(self) -> int:
        return len(self.names)

    def shrunk(self, width: int) -> Comparison:
        """The same at most ``width`` pixels wide, by area; depth as it is."""
        native = self.cameras
        if native.width <= width:
            return self
        height = max(1, round(native.height * width / native.width))

        def small(planes: Tensor) -> Tensor:
            return torch.from_numpy(np.stack([resize_area(plane.numpy(), width, height) for plane in planes]))

        cameras = native.resized(width, height)
        return replace(self, cameras=cameras, pictures=small(self.pictures), coverage=small(self.coverage))

    def some_frames(self, count: int) -> Comparison:
        """The same with at most ``count`` of the compared frames, evenly spread."""
        return replace(self, frames=tuple(spread(self.frames, count)))


class Gate(NamedTuple):
    """Means over the compared frames, pictures as 8-bit PNGs hold them: PSNR of the renders and of the best blank
    picture in dB, and alpha of the renders and coverage of the teacher in [0, 1]."""

    psnr: float
    psnr_blank: float
    alpha_mean: float
    coverage_mean: float


def measure(comparison: Comparison) -> Gate:
    """The figures of the gate, at the size of the pictures."""
    rows = []
    for frame in comparison.frames:
        rendering = comparison.render(comparison.cameras, frame)
        image = to_uint8(rendering.over(comparison.background).numpy()) / 255.0
        picture = comparison.pictures[frame].numpy()
        coverage = comparison.coverage[frame].mean().item()
        rows.append((psnr(image, picture), psnr_blank(picture), rendering.alpha.mean().item(), coverage))
    return Gate(*np.mean(rows, axis=0).tolist())


def compare_with(
    views: TeacherViews, render: RenderView, background: Color, count: int, depth: StoredDepth | None = None
) -> Comparison:
    """A comparison with ``count`` views, held-out ones where there are any.

    Args:
        background: for views with alpha; others are on the one they have.
    """
    background = background if views.alpha is not None else views.background
    return Comparison(
        render=render,
        cameras=views.cameras,
        pictures=torch.stack([views.image(index, background) for index in range(len(views))]),
        coverage=views.coverage.float() / 255,
        background=background,
        names=views.names,
        frames=tuple(chosen_views(views, count)),
        has_alpha=views.alpha is not None,
        depth=depth,
    )


def chosen_views(views: TeacherViews, count: int) -> list[int]:
    """At most ``count`` evenly spread views, held-out ones where there are any."""
    held_out = views.holdout.nonzero().flatten().tolist()
    return spread(held_out or range(len(views)), count)


def sampled_depth(values: Tensor, alpha: Tensor | None, cameras: Cameras, kind: DepthKind, width: int) -> StoredDepth:
    """Depth at every k-th pixel, about ``width`` of them a row: averaging would mix surfaces."""
    stride = max(1, cameras.width // width)
    first = stride // 2
    picked = values[:, first::stride, first::stride]

    def scaled(principal: Tensor) -> Tensor:
        return (principal - first - 0.5) / stride + 0.5

    small = replace(
        cameras,
        fx=cameras.fx / stride,
        fy=cameras.fy / stride,
        cx=scaled(cameras.cx),
        cy=scaled(cameras.cy),
        width=picked.shape[2],
        height=picked.shape[1],
    )
    return StoredDepth(picked, None if alpha is None else alpha[:, first::stride, first::stride], small, kind)


class Loaded(NamedTuple):
    """A student's comparison, and the teacher's Gaussians as a renderer where another program drew the pictures."""

    comparison: Comparison
    witness: RenderView | None


def load_comparison(config: Config, run: RestoredRun, count: int) -> Loaded:
    """The student of a run beside ``count`` of its teacher's views.

    Raises:
        InputError: an asset is missing, damaged or does not fit the others; ``count`` is not positive.
    """
    if count < 1:
        raise InputError("--views", "views", count, "at least 1")
    teacher = load_teacher(config)
    views = teacher.views
    files = None
    if teacher.stored_renders is not None:
        data, depth = config.data, views.depth_kind is not None
        files = find_outputs(teacher.stored_renders, data.transforms, data.frames, depth=depth, truth=False)
    comparison = compare_with(
        views,
        student_renderer(run.model, run.device),
        config.render.background_rgb,
        count,
        _stored_depth(files, views.depth_kind, chosen_views(views, count)) if files and files.depths else None,
    )
    if teacher.gaussians is None or files is None:
        return Loaded(comparison, None)
    # The pictures were drawn at their own size and then reduced; 3DGS drawn small is not the same.
    reduced = round(files.cameras.width / views.cameras.width)
    drawing = Drawing(files.cameras.width, min(_MOST_SUPERSAMPLE, max(1, reduced)))
    rasterizer = Rasterizer(teacher.gaussians, config.teacher.rasterizer, device=run.device, drawing=drawing)
    return Loaded(comparison, gaussians_renderer(rasterizer))


def _stored_depth(files: OutputFiles, kind: DepthKind, chosen: list[int]) -> StoredDepth:
    pictures, depths = zip(*(files.load(index) for index in chosen), strict=True)
    alpha = None
    if files.has_alpha:
        alpha = torch.from_numpy(np.stack([picture[..., 3] for picture in pictures]) / np.float32(255))
    return sampled_depth(torch.stack(depths), alpha, files.cameras[chosen], kind, _DEPTH_WIDTH)
