"""A student beside the pictures it should equal: what every hypothesis about a mistake is tried on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill.evaluation.frame_metrics import CountedPixels
from distill.evaluation.metrics import psnr_blank
from distill.model.model import RestoredRun
from distill.model.other_config import drawn_as_trained
from distill.model.view_renderers import Rendering, RenderView, gaussians_renderer, student_renderer
from machine.devices import choose_device
from scene.cameras import Cameras
from scene.dataset_pictures import ALL
from scene.frames import spread
from scene.images import psnr, resize_area, to_uint8
from settings.config import Config
from settings.errors import InputError
from settings.sections import Color
from teacher.depth import DepthKind
from teacher.rasterizer import Drawing, Rasterizer
from teacher.sources import Teacher, load_teacher, source_of
from teacher.sources.box import stray_note
from teacher.views.output_folder import OutputFiles, find_outputs
from teacher.views.teacher_views import TeacherViews

_log = logging.getLogger(__name__)

DEPTH_FIELDS = frozenset(("depth", "depth kind"))
"""Fields of the errors about depth that wrong poses can cause."""
_DEPTH_WIDTH, _MOST_SUPERSAMPLE = 100, 8


@dataclass(frozen=True)
class StoredDepth:
    """The teacher's depth files of V of N views as they are, a pixel taken here and there.

    Attributes:
        values: (V, H, W) >= 0, 0 where there is nothing.
        alpha: (V, H, W) in [0, 1], or None where the pictures have none.
        cameras: those of all N views, with these pixels.
        kind: what the program reads them as.
        frames: V views, of N.
        names: N frame names.
        diagonal: of the scene box, world units.
    """

    values: Tensor
    alpha: Tensor | None
    cameras: Cameras
    kind: DepthKind
    frames: tuple[int, ...]
    names: tuple[str, ...]
    diagonal: float


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
        counted: (N, H, W) bool, pixels of the pictures that are compared: the student never learnt the others, which a
            mask leaves out or which are beyond a picture's own size. None: all are.
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
    counted: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, frame: int) -> CountedPixels:
        """Those of picture ``frame`` that are compared."""
        return CountedPixels(None if self.counted is None else self.counted[frame])

    def shrunk(self, width: int) -> Comparison:
        """The same at most ``width`` pixels wide, by area; depth as it is."""
        native = self.cameras
        if native.width <= width:
            return self
        height = max(1, round(native.height * width / native.width))

        counts = [None] * len(self) if self.counted is None else self.counted
        pictures = [shrunk_picture(*both, width, height) for both in zip(self.pictures, counts, strict=True)]
        return replace(
            self,
            cameras=native.resized(width, height),
            **stacked_pictures(pictures),
            coverage=torch.stack([shrunk_plane(plane, width, height) for plane in self.coverage]),
        )

    def some_frames(self, count: int) -> Comparison:
        """The same with at most ``count`` of the compared frames, evenly spread."""
        return replace(self, frames=tuple(spread(self.frames, count)))


def shrunk_plane(plane: Tensor, width: int, height: int) -> Tensor:
    """(H, W) or (H, W, 3) float32 by area."""
    return torch.from_numpy(resize_area(plane.numpy(), width, height))


def shrunk_picture(picture: Tensor, counted: Tensor | None, width: int, height: int) -> tuple[Tensor, Tensor | None]:
    """A (H, W, 3) picture by the area of those pixels that count, and which of the small ones do."""
    if counted is None:
        return shrunk_plane(picture, width, height), None
    share = shrunk_plane(counted.float(), width, height)
    small = shrunk_plane(picture * counted[..., None], width, height) / share.clamp(min=1e-6)[..., None]
    return small, share >= min(share.max().item(), ALL)  # a fine mask leaves none whole: those that it leaves most of


def stacked_pictures(pictures: Sequence[tuple[Tensor, Tensor | None]]) -> dict[str, Tensor | None]:
    """The fields of a ``Comparison`` that hold pictures and which of their pixels count."""
    planes, counts = zip(*pictures, strict=True)
    return {"pictures": torch.stack(planes), "counted": None if counts[0] is None else torch.stack(counts)}


class Gate(NamedTuple):
    """Means over the compared frames' pixels that count, pictures as 8-bit PNGs hold them: PSNR of the renders and of
    the best blank picture in dB, and alpha of the renders and coverage of the teacher in [0, 1]."""

    psnr: float
    psnr_blank: float
    alpha_mean: float
    coverage_mean: float


def measure(comparison: Comparison) -> Gate:
    """The figures of the gate, at the size of the pictures."""
    rows = []
    for frame in comparison.frames:
        rendering = comparison.render(comparison.cameras, frame)
        planes = rendering.over(comparison.background), comparison.pictures[frame], rendering.alpha
        image, picture, alpha, coverage = map(comparison.pixels(frame).listed, (*planes, comparison.coverage[frame]))
        image, picture = to_uint8(image.numpy()) / 255.0, picture.numpy()
        rows.append((psnr(image, picture), psnr_blank(picture), alpha.mean().item(), coverage.mean().item()))
    return Gate(*np.mean(rows, axis=0).tolist())


def compare_with(
    views: TeacherViews, render: RenderView, background: Color, count: int, depth: StoredDepth | None = None
) -> Comparison:
    """A comparison with ``count`` views, held-out ones where there are any.

    Of pictures that are not all in memory it has these alone.

    Args:
        background: for views with alpha; others are on the one they have.
    """
    background = background if views.alpha is not None else views.background
    chosen = chosen_views(views, count)
    taken = [*range(len(views))] if views.store is None else chosen
    return Comparison(
        render=render,
        cameras=views.cameras[taken],
        pictures=torch.stack([views.image(index, background) for index in taken]),
        coverage=views.coverage[taken].float() / 255,
        background=background,
        names=tuple(views.names[index] for index in taken),
        frames=tuple(taken.index(index) for index in chosen),
        has_alpha=views.alpha is not None,
        depth=depth,
        counted=None if views.counted is None else views.counted[taken],
    )


def chosen_views(views: TeacherViews, count: int) -> list[int]:
    """At most ``count`` evenly spread views, held-out ones where there are any."""
    held_out = views.holdout_frames.tolist()
    return spread(held_out or range(len(views)), count)


def sampled_depth(depth: StoredDepth, width: int) -> StoredDepth:
    """Depth at every k-th pixel, about ``width`` of them a row: averaging would mix surfaces."""
    cameras, alpha = depth.cameras, depth.alpha
    stride = max(1, cameras.width // width)
    first = stride // 2
    picked = depth.values[:, first::stride, first::stride]

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
    alpha = None if alpha is None else alpha[:, first::stride, first::stride]
    return replace(depth, values=picked, alpha=alpha, cameras=small)


class Loaded(NamedTuple):
    """A comparison, and what is known besides.

    Attributes:
        witness: the teacher's Gaussians as a renderer where another program drew the pictures.
        is_drawn: whether the pictures were drawn here, from Gaussians.
        strays: what is to be said of Gaussians that widen the box, see ``stray_note``.
        outliers: likewise of those that may hide the scene, see ``Source.outlier_note``.
    """

    comparison: Comparison
    witness: RenderView | None = None
    is_drawn: bool = False
    strays: str = ""
    outliers: str = ""


def load_comparison(config: Config, run: RestoredRun | None, count: int) -> Loaded:
    """The student of a run beside ``count`` of its teacher's views; without a run, the teacher's own Gaussians.

    Depth that lands nowhere is no obstacle: wrong poses and a wrong kind, which are looked for, are causes of that.

    Raises:
        InputError: an asset is missing, damaged or does not fit the others; ``count`` is not positive; there is no run
            and no Gaussians that another program drew the pictures of.
    """
    if count < 1:
        raise InputError("--views", "views", count, "at least 1")
    drawn_as = None if run is None else drawn_as_trained(config, run.own)
    try:
        teacher = load_teacher(config, drawn_as)
        kind = teacher.views.depth_kind
    except InputError as error:
        if error.field not in DEPTH_FIELDS:
            raise
        _log.warning("without depth: %s", error)
        teacher, kind = load_teacher(without_depth(config), drawn_as), DepthKind.parse(config.teacher.depth_kind)
    views = teacher.views
    files = stored_files(config, teacher, depth=kind is not None)
    has_witness = teacher.gaussians is not None and files is not None
    witness = witness_of(config, teacher, files.cameras.width) if has_witness else None
    if run is None and witness is None:
        found, expected = "none, and no Gaussians of stored renders", "a checkpoint to look at"
        raise InputError(config.run, "checkpoint", found, expected, "Train first, or use --checkpoint.")
    comparison = compare_with(
        views,
        witness if run is None else student_renderer(run.model, run.device),
        config.render.background_rgb,
        count,
        stored_depth(files, kind, teacher, chosen_views(views, count)) if files and files.depths else None,
    )
    is_drawn = teacher.gaussians is not None and files is None
    strays = stray_note(config, teacher.gaussians, teacher.box)
    outliers = source_of(config).outlier_note(teacher.gaussians)
    return Loaded(comparison, None if run is None else witness, is_drawn, strays, outliers)


def without_depth(config: Config) -> Config:
    """The same with the depth files left alone."""
    return config.model_copy(update={"teacher": config.teacher.model_copy(update={"depth_kind": "none"})})


def stored_files(config: Config, teacher: Teacher, depth: bool) -> OutputFiles | None:
    """The files that the teacher's views were read from, with or without depth; None where they were made here."""
    if teacher.stored_renders is None:
        return None
    data, empty = config.data, config.teacher.depth_empty
    files = find_outputs(
        teacher.stored_renders, data.transforms, data.frames, depth=depth, truth=False, data=data,
        depth_empty=empty,
    )  # fmt: skip
    if len(files) == len(teacher.views):
        return files
    place = {name: index for index, name in enumerate(files.dataset.names)}
    return files[[place[name] for name in teacher.views.names]]  # others have no image, and were left out


def witness_of(config: Config, teacher: Teacher, drawn: int) -> RenderView:
    """Renders the teacher's Gaussians as pictures of ``drawn`` pixels width that are reduced: 3DGS drawn small is not
    the same."""
    rasterizer = Rasterizer(teacher.gaussians, config.teacher.rasterizer, device=choose_device(config))

    def render(cameras: Cameras, index: int) -> Rendering:
        reduced = min(_MOST_SUPERSAMPLE, max(1, round(drawn / cameras.width)))
        drawing = Drawing(drawn, reduced, near=config.teacher.near_plane)
        return gaussians_renderer(rasterizer.redrawn(drawing))(cameras, index)

    return render


def stored_depth(files: OutputFiles, kind: DepthKind, teacher: Teacher, chosen: list[int]) -> StoredDepth:
    """Depth of the chosen views, as if nothing were where no pixel counts."""
    names, counted = teacher.views.names, teacher.views.counted
    pictures, depths = zip(*(files.load(index) for index in chosen), strict=True)
    depths = torch.stack(depths)
    if counted is not None:
        depths = depths * F.interpolate(counted[chosen][:, None].float(), depths.shape[1:])[:, 0]
    alpha = None
    if files.has_alpha:
        alpha = torch.from_numpy(np.stack([picture[..., 3] for picture in pictures]) / np.float32(255))
    whole = StoredDepth(depths, alpha, files.cameras, kind, tuple(chosen), names, math.hypot(*teacher.box.extent))
    return sampled_depth(whole, _DEPTH_WIDTH)
