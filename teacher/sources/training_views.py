"""What a run trains on besides a share of the views it is measured on: poses of another JSON, live poses, images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from scene.cameras import Cameras
from scene.formats.transforms_json import load_transforms
from scene.frames import Frames, chosen_frames, working_size
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from settings.config import Config
from teacher.gaussians import Gaussians
from teacher.views.teacher_views import (
    TeacherViews,
    join_views,
    views_from_gaussians,
    views_from_images,
    views_from_outputs,
)


def views_of_two_splits(config: Config, gaussians: Gaussians | None, device: torch.device) -> TeacherViews:
    """The views of ``data.train_transforms``, then those of ``data.transforms``, which are all held out.

    Their names are the frames' after ``train_`` and ``holdout_``. ``device`` is where Gaussians are rendered.

    Raises:
        InputError: a file is missing or damaged; the two differ in image size, alpha or ground truth.
    """
    data, json = config.data, config.training_json
    train = _fixed_views(config, gaussians, device, json, data.train_frames, holdout_every=0)
    measured = _fixed_views(config, gaussians, device, data.transforms, data.frames, holdout_every=1)
    return join_views(_prefixed(train, "train_"), _prefixed(measured, "holdout_"), json)


def held_out_views(config: Config, gaussians: Gaussians, box: SceneBox | None, device: torch.device) -> TeacherViews:
    """What a student of a live PLY is measured on: stored renders of ``data.transforms``, or renders made here.

    Raises:
        InputError: a file is missing or damaged.
    """
    data, teacher = config.data, config.teacher
    if teacher.outputs is None:
        return _fixed_views(config, gaussians, device, data.transforms, data.frames, holdout_every=1)
    return views_from_outputs(
        teacher.outputs,
        data.transforms,
        width=data.resolution,
        box=box,
        background=teacher.background_rgb,
        holdout_every=1,
        ground_truth=bool(data.ground_truth),
        use_depth=False,
        frames=data.frames,
    )


def live_poses(config: Config, views: TeacherViews) -> PoseSampler:
    """The poses that a live teacher renders: near those of the training JSON, or the built-in scene's that are not
    held out.

    Raises:
        InputError: the training JSON is damaged.
    """
    live = config.live
    if config.training_json is None:
        cameras = views.cameras[~views.holdout]
    else:
        _, cameras = _frames(config.training_json, config.data.train_frames, config.data.resolution)
    settings = {"own_share": live.own_share, "angle": live.angle, "distance": live.distance}
    return PoseSampler(cameras, seed=config.seed, **settings)


def training_images(config: Config) -> TeacherViews | None:
    """The dataset's own images that are a second source of rays; None where the config wants none.

    Of the JSON that is measured on, only the frames that are not held out are trained on.

    Raises:
        InputError: an image is missing or damaged.
    """
    data, path = config.data, config.image_json
    if path is None:
        return None
    measured = path.samefile(data.transforms)
    return views_from_images(
        path,
        width=data.resolution,
        background=config.teacher.background_rgb,
        holdout_every=data.holdout_every if measured else 0,
        frames=data.frames if measured else data.train_frames,
    )


def _fixed_views(
    config: Config,
    gaussians: Gaussians | None,
    device: torch.device,
    json: Path,
    frames: str | None,
    holdout_every: int,
) -> TeacherViews:
    """The teacher at the poses of a JSON, or the images there."""
    data, teacher = config.data, config.teacher
    if teacher.kind == "images":
        return views_from_images(
            json,
            width=data.resolution,
            background=teacher.background_rgb,
            holdout_every=holdout_every,
            frames=frames,
        )
    dataset, cameras = _frames(json, frames, data.resolution)
    return views_from_gaussians(
        gaussians,
        cameras,
        dataset.names,
        supersample=teacher.supersample,
        rasterizer=teacher.rasterizer,
        device=device,
        holdout_every=holdout_every,
        ground_truth_paths=dataset.image_paths if data.ground_truth else None,
    )


def _prefixed(views: TeacherViews, prefix: str) -> TeacherViews:
    return replace(views, names=tuple(prefix + name for name in views.names))


def _frames(json: Path, frames: str | None, width: int | None) -> tuple[Frames, Cameras]:
    dataset = chosen_frames(frames, load_transforms(json))
    return dataset, dataset.cameras.resized(*working_size(dataset.cameras, width, json))
