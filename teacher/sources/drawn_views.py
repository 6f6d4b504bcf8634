"""What sources that draw their views share: Gaussians seen from given cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from machine.devices import choose_device
from scene.cameras import Cameras
from scene.formats import load_frames
from scene.frames import Frames, Size, chosen_frames, scaled_size
from settings.data import DataConfig
from teacher.gaussians import Gaussians
from teacher.sources.source import Source
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.teacher_views import TeacherViews


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
    """The Gaussians rendered here as the config says: see ``views_from_gaussians``."""
    teacher, data, device = source.config.teacher, source.config.data, choose_device(source.config)
    options = {"drawing": source.drawing(gaussians), "rasterizer": teacher.rasterizer, "device": device}
    options |= {"dataset": dataset, "ground_truth": bool(data.ground_truth), "memory_gib": data.memory_gib}
    return views_from_gaussians(gaussians, cameras, names, holdout_every=holdout_every, **options)


def working_frames(
    json: Path, frames: str | None, data: DataConfig, canvas: Size | None = None
) -> tuple[Frames, Cameras]:
    """Some frames of a dataset, and their cameras at the working size, which may be larger than its pictures."""
    dataset = chosen_frames(frames, load_frames(json, data=data).on_canvas(canvas))
    return dataset, dataset.cameras.resized(*scaled_size(dataset.cameras, data.resolution))
