"""What sources that draw their views share: Gaussians seen from given cameras."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from machine.devices import choose_device
from machine.memory import check_pictures_fit
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import Frames, Size, chosen_frames, scaled_size
from settings.data import DataConfig
from settings.errors import InputError
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources.source import Source
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.teacher_views import TeacherViews

FINER_BYTES = 20
"""Of a pixel of finer pictures: of the view, ground truth, reach, and place among those that rays are drawn of."""


def named_orbit(cameras: Cameras, source: Path) -> Frames:
    """The frames of cameras that no dataset names."""
    names = tuple(f"orbit_{index:03d}" for index in range(len(cameras)))
    return Frames(cameras, names, (None,) * len(cameras), source)


def rasterized(
    source: Source,
    gaussians: Gaussians,
    cameras: Cameras,
    names: Sequence[str],
    holdout_every: int,
    dataset: Frames | None = None,
) -> TeacherViews:
    """The Gaussians rendered here as the config says: see ``views_from_gaussians``.

    Finer pictures of what is trained on, where ``Source.finer`` asks for them, are made of the same drawings, unless
    these are not as fine, or half of the memory that is free does not hold them: then they are not made.
    """
    teacher, data, device = source.config.teacher, source.config.data, choose_device(source.config)
    drawing = source.drawing(gaussians)
    options = {"drawing": drawing, "rasterizer": teacher.rasterizer, "device": device}
    options |= {"dataset": dataset, "ground_truth": bool(data.ground_truth), "memory_gib": data.memory_gib}
    if data.memory_gib is None and _is_drawn_for(drawing, cameras, source.finer):
        options["finer"] = source.finer
    return views_from_gaussians(gaussians, cameras, names, holdout_every=holdout_every, **options)


def _is_drawn_for(drawing: Drawing, cameras: Cameras, scale: int) -> bool:
    """Whether what is drawn for cameras is what would be for such that are ``scale`` times as fine, and there is room
    for these.
    """
    width, finer = cameras.width, drawing.finer(cameras.width, scale)
    if scale == 1 or finer is None or finer.drawn_width(scale * width) != drawing.drawn_width(width):
        return False
    size = width * scale, cameras.height * scale
    with suppress(InputError):
        check_pictures_fit(size, 2 * len(cameras), FINER_BYTES, "data.resolution")
        return True
    return False


def working_frames(
    json: Path, frames: str | None, data: DataConfig, canvas: Size | None = None
) -> tuple[Frames, Cameras]:
    """Some frames of a dataset, and their cameras at the working size, which may be larger than its pictures."""
    dataset = chosen_frames(frames, load_frames(json, data=data).on_canvas(canvas))
    return dataset, dataset.cameras.resized(*scaled_size(dataset.cameras, data.resolution))
