"""From a config to what a run works with: teacher, student, occupancy, renderer settings."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from machine.devices import choose_device
from scene.cameras import Cameras
from scene.formats.transforms_json import load_transforms
from scene.frames import chosen_frames, working_size
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from settings.config import Config
from settings.errors import InputError
from teacher.bricks.scene import build_bricks, orbit_cameras
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians, read_ply, write_ply
from teacher.sources.box import check_box_holds, scene_box
from teacher.sources.training_views import held_out_views, live_poses, training_images, views_of_two_splits
from teacher.views.teacher_views import TeacherViews, views_from_gaussians, views_from_images, views_from_outputs


@dataclass
class Teacher:
    """What is distilled, and the box it is in.

    Attributes:
        views: what the student is measured on, and without ``poses`` also, but for the held-out ones, trained on.
        gaussians: the teacher's, where there is a PLY.
        poses: where a live teacher renders; None where the views are fixed.
        images: the dataset's own images as a second source of rays, or None.
    """

    views: TeacherViews
    gaussians: Gaussians | None
    box: SceneBox
    poses: PoseSampler | None = None
    images: TeacherViews | None = None

    @property
    def training_cameras(self) -> Cameras:
        """The cameras that views are trained on, or that live ones are near to."""
        return self.views.cameras[~self.views.holdout] if self.poses is None else self.poses.cameras


def load_teacher(config: Config) -> Teacher:
    """Reads or makes the teacher.

    Raises:
        InputError: an asset is missing, damaged or does not fit the others.
    """
    data, teacher = config.data, config.teacher
    gaussians = None if teacher.kind == "images" else load_gaussians(config)
    box = None
    if data.box != "auto" or gaussians is not None:
        box, _ = scene_box(config, gaussians, None)
    if data.box != "auto" and gaussians is not None:
        check_box_holds(box, gaussians)
    views = _load_views(config, gaussians, box)
    if box is None:
        box, _ = scene_box(config, None, views.cameras)
    poses = live_poses(config, views) if config.live else None
    return Teacher(views, gaussians, box, poses, training_images(config))


def load_gaussians(config: Config) -> Gaussians | None:
    """The Gaussians of ``teacher.ply``, or of the built-in scene; None when there are neither.

    Raises:
        InputError: the file is missing or damaged.
    """
    if config.teacher.kind == "bricks":
        return _bricks_through_ply(config.seed)
    return None if config.teacher.ply is None else read_gaussians(config.teacher.ply)


def _load_views(config: Config, gaussians: Gaussians | None, box: SceneBox | None) -> TeacherViews:
    data, teacher = config.data, config.teacher
    if config.training_json is not None:
        if config.live:
            return held_out_views(config, gaussians, box, choose_device(config))
        return views_of_two_splits(config, gaussians, choose_device(config))
    if teacher.kind == "views":
        return views_from_outputs(
            teacher.outputs,
            data.transforms,
            width=data.resolution,
            box=box,
            background=teacher.background_rgb,
            depth_kind=teacher.depth_kind,
            holdout_every=data.holdout_every,
            ground_truth=bool(data.ground_truth),
            frames=data.frames,
        )
    if teacher.kind == "images":
        return views_from_images(
            data.transforms,
            width=data.resolution,
            background=teacher.background_rgb,
            holdout_every=data.holdout_every,
            frames=data.frames,
        )
    if teacher.kind == "bricks":
        cameras = orbit_cameras(teacher.frames, data.resolution, data.resolution, config.seed)
        names, truth = [f"orbit_{index:03d}" for index in range(len(cameras))], None
    else:
        dataset = chosen_frames(data.frames, load_transforms(data.transforms))
        cameras = dataset.cameras.resized(*working_size(dataset.cameras, data.resolution, data.transforms))
        names, truth = dataset.names, dataset.image_paths if data.ground_truth else None
    return views_from_gaussians(
        gaussians,
        cameras,
        names,
        supersample=teacher.supersample,
        rasterizer=teacher.rasterizer,
        device=choose_device(config),
        holdout_every=data.holdout_every,
        ground_truth_paths=truth,
    )


def _bricks_through_ply(seed: int) -> Gaussians:
    """The built-in scene by way of a file, so that it takes the same path as a user's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "point_cloud.ply"
        write_ply(path, build_bricks(seed))
        return read_ply(path)


def check_assets(config: Config) -> None:
    """Checks that the files the teacher's kind needs are there, and that nothing measured is trained on.

    Raises:
        InputError: one is missing, or is a folder where a file is needed or the reverse; the JSON to train on is the
            one that is held out.
    """
    data, teacher = config.data, config.teacher
    measured = "views gaussians" if config.live else "views"
    assets = {
        "data.transforms": (data.transforms, Path.is_file, "a transforms_*.json", "views images gaussians"),
        "data.train_transforms": (config.training_json, Path.is_file, "the JSON of the training poses", "all"),
        "data.ground_truth": (config.image_json, Path.is_file, "the JSON of the split's images", "all"),
        "teacher.outputs": (teacher.outputs, Path.is_dir, "a folder with renders/ and depth/", measured),
        "teacher.ply": (teacher.ply, Path.is_file, "a 3DGS point_cloud.ply", "views gaussians"),
    }
    for field, (path, is_there, expected, kinds) in assets.items():
        if path is None or not (kinds == "all" or teacher.kind in kinds.split()) or is_there(path):
            continue
        hint = f"Put it there, say where it is with `--set {field}=PATH`, or name another root with --assets."
        if field == "data.ground_truth":
            hint = "Name another split, or set data.ground_truth: true to train on the teacher alone."
        if field == "teacher.ply" and teacher.kind == "views":
            hint += f" Or do without: `--set {field}=null` takes the first occupancy from the views."
        if field == "teacher.outputs" and teacher.kind == "gaussians":
            hint += f" Or do without: `--set {field}=null` measures against renders made here."
        found = "something of another type" if path.exists() else "nothing"
        raise InputError(path, field, found, expected, hint)
    if config.training_json is None:
        return
    for field, path in (("data.train_transforms", config.training_json), ("data.ground_truth", config.image_json)):
        if path is not None and path.samefile(data.transforms):
            found, expected = "the file of data.transforms, all of which is held out", "another one"
            raise InputError(path, field, found, expected, "Set data.transforms to the poses to measure on.")
