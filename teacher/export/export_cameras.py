"""Which cameras an export renders: a split of the dataset, a camera path, or an orbit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from machine.memory import check_pictures_fit
from scene.camera_paths import middle_of, orbit_path, spiral_path
from scene.cameras import Cameras
from scene.dataset_pictures import all_count
from scene.formats import load_frames, other_split
from scene.formats.nerfstudio_json import world_fields
from scene.formats.run_cameras import run_cameras
from scene.frames import Frames, frame_slice
from scene.rays import Vector
from settings.config import Config
from settings.data import DataConfig
from settings.errors import InputError
from teacher.gaussians import Gaussians
from teacher.sources import Source, source_of
from teacher.views.rasterized import DRAWN_BYTES


@dataclass(frozen=True)
class ExportViews:
    """What to render.

    Attributes:
        cameras: V cameras at the size of the export.
        names: V unique names.
        dataset: V frames, whose images are the ground truth, at their own size.
        source: where the cameras are from, in words.
        world: what a file of the cameras says of the world that they are in, see ``world_fields``.
    """

    cameras: Cameras
    names: tuple[str, ...]
    dataset: Frames
    source: str
    world: dict[str, Any]

    @property
    def has_truth(self) -> bool:
        """Whether every view has an image that is large enough; where sizes differ, in the top left corner."""
        own = self.dataset.cameras
        is_large = self.cameras.width <= own.width and self.cameras.height <= own.height
        return is_large and all(path is not None for path in self.dataset.image_paths)

    @property
    def has_masks(self) -> bool:
        """Whether masks say which pixels of the images count: not those beyond an image that is smaller than others."""
        return self.has_truth and not all_count(self.dataset)


def views_to_export(
    config: Config,
    gaussians: Gaussians | None,
    *,
    split: str | None = None,
    path: Path | None = None,
    orbit: int | None = None,
    spiral: int | None = None,
    frames: str | None = None,
    resolution: int | None = None,
    width_option: str = "--resolution",
) -> ExportViews:
    """The cameras asked for; with none of ``split``, ``path``, ``orbit`` and ``spiral`` the config's own.

    Args:
        gaussians: the teacher's, where there is a PLY: they bound the scene.
        split: ``transforms_<split>.json`` beside ``data.transforms``.
        path: a transforms JSON of poses, images or not, a dataset, or the folder of a run, which names one; where
            nothing says their size, not the config's dataset either, they are squares of ``resolution``.
        orbit, spiral: number of frames of one round about the scene, or of rounds that rise and sink again.
        frames: ``"START:STOP:STEP"`` of those.
        resolution: width in pixels, height follows; None: the dataset's own, for bricks ``data.resolution``.
        width_option: what errors call it.

    Raises:
        InputError: no cameras to be had, the files they are in are missing or damaged, or a picture of that width is
            more than the memory can hold.
    """
    if resolution is not None and resolution < 1:
        raise InputError(width_option, "width", resolution, "at least 1 pixel")
    dataset, source, data = _named_cameras(config, split, path, resolution)
    for name, make, count in (("orbit", orbit_path, orbit), ("spiral", spiral_path, spiral)):
        if count is not None:
            dataset, source = _around(config, gaussians, dataset, name, make, count)
    chosen = dataset[frame_slice(frames, len(dataset), "--frames", "frames")]
    native = (dataset.cameras.width, dataset.cameras.height)
    size = native
    if resolution is not None:
        size = (resolution, max(1, round(native[1] * resolution / native[0])))
    check_pictures_fit(size, 1, DRAWN_BYTES, "width", width_option)
    return ExportViews(chosen.cameras.resized(*size), chosen.names, chosen, source, world_fields(data))


def training_cameras(source: Source) -> tuple[Cameras, str]:
    """The cameras of the dataset's split ``train`` if there is one, else of the frames, and where they are from.

    Raises:
        InputError: the file is damaged.
    """
    transforms = source.config.data.transforms if source.has_dataset else None
    beside = None if transforms is None else other_split(transforms, "train")
    frames, where = source.frames("train" if beside is not None and beside.is_file() else None)
    return frames.cameras, where


def _around(
    config: Config,
    gaussians: Gaussians | None,
    dataset: Frames,
    name: str,
    make: Callable[[Cameras, Vector, int, Vector | None], Cameras],
    count: int,
) -> tuple[Frames, str]:
    """``count`` views about the middle of the scene, and in words where they are."""
    if count < 1:
        raise InputError(f"--{name}", "frames", count, "at least 1")
    box, _ = source_of(config).box(gaussians, dataset.cameras)
    own = dataset.cameras
    if dataset.sizes is not None:  # whose principal points are of pictures in a corner of the cameras'
        cx, cy = (torch.full_like(own.cx, side / 2) for side in (own.width, own.height))
        own = replace(own, cx=cx, cy=cy)
    centre = middle_of(own, box)
    try:
        cameras = make(own, centre, count, config.teacher.orbit.known_up)
    except ValueError as error:
        hint = "Say what is up with --up, or use --path."
        raise InputError(dataset.source, name, error, "cameras around the scene", hint) from error
    names = tuple(f"{name}_{index:03d}" for index in range(count))
    about = ", ".join(f"{value:.4g}" for value in centre)
    return Frames(cameras, names, (None,) * count, dataset.source), f"the {name} about ({about})"


def _named_cameras(
    config: Config, split: str | None, path: Path | None, resolution: int | None
) -> tuple[Frames, str, DataConfig]:
    """Frames, in words where they are from, and how they were read."""
    if path is None:
        return *source_of(config).frames(split), config.data
    size, transforms = None if resolution is None else (resolution, resolution), config.data.transforms
    if transforms is not None and transforms.is_file():
        cameras = load_frames(transforms, data=config.data).cameras
        size = (cameras.width, cameras.height)
    if (own := run_cameras(path)) is not None:  # in the world of these Gaussians, which the config may have moved
        data = own.model_copy(update={"offset": config.data.offset})
        return load_frames(own.transforms, image_size=size, data=data), str(own.transforms), data
    return load_frames(path, image_size=size, data=config.data), str(path), config.data
