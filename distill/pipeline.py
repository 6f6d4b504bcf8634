"""From a config to what a run works with: teacher, student, occupancy, renderer settings."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.checkpoint import restore_box, restore_student
from distill.occupancy import OccupancyGrid
from distill.occupancy_init import cells_of_gaussians, cells_of_views
from distill.renderer import RenderSettings
from distill.scene_box import check_box_holds, scene_box
from distill.schema import Config
from distill.training_views import held_out_views, live_poses, training_images, views_of_two_splits
from kernels.fused_render import fused_refusal
from kernels.triton_support import triton_refusal
from scene.blender import load_transforms
from scene.cameras import Cameras
from scene.errors import InputError
from scene.pose_sampling import PoseSampler
from scene.rays import SceneBox
from students import build_student
from students.base import Student
from teacher.bricks import build_bricks, orbit_cameras
from teacher.gaussian_files import read_gaussians
from teacher.gaussians import Gaussians, read_ply, write_ply
from teacher.views import (
    TeacherViews,
    chosen_frames,
    views_from_gaussians,
    views_from_images,
    views_from_outputs,
    working_size,
)

_PIXELS_PER_STEP = 0.5
_MOST_STEPS = 1024  # per box diagonal


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


@dataclass
class Model:
    """The student with what it takes to render it."""

    student: Student
    grid: OccupancyGrid
    settings: RenderSettings


def choose_device(config: Config) -> torch.device:
    """The device of a run.

    Raises:
        InputError: CUDA is asked for and absent, has no such index, or cannot run the kernels asked for.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.kernels != "numba" else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and config.kernels == "numba":
        raise InputError("config", "kernels", f"numba on {name}", "auto or torch", "numba's kernels run on the CPU.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError("--device", "device", name, f"one of {count} CUDA devices", "Use --device cpu.")
    refusal = triton_refusal(device) if config.kernels == "triton" else None
    if refusal is not None:
        raise InputError("config", "kernels", f"triton on {name}", "auto or torch", f"Here {refusal}.")
    return device


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


def sample_step(config: Config, box: SceneBox, views: TeacherViews) -> float:
    """Distance between samples in world units.

    auto: half a pixel's width at the box's centre, but no finer than the box's diagonal / 1024: finer detail than
    the images hold cannot be learnt from them.
    """
    if config.render.step_size != "auto":
        return config.render.step_size
    centre = torch.tensor([(low + high) / 2 for low, high in zip(box.lower, box.upper, strict=True)])
    distance = (views.cameras.centers - centre).norm(dim=-1)
    pixel = (distance / views.cameras.fx).median().item()
    return max(math.hypot(*box.extent) / _MOST_STEPS, _PIXELS_PER_STEP * pixel)


def build_model(config: Config, teacher: Teacher, device: torch.device) -> Model:
    """A fresh student in the space its teacher occupies; the same for the same seed."""
    step = sample_step(config, teacher.box, teacher.views)
    torch.manual_seed(config.seed)
    settings = config.student.model_dump(exclude={"kind"})
    student = build_student(config.student.kind, (teacher.box.lower, teacher.box.upper), settings, config.kernels)
    grid = _grid(config, teacher.box, config.occupancy.resolution, step)
    if teacher.gaussians is not None and config.teacher.kind != "images":
        mask = cells_of_gaussians(teacher.gaussians, grid)
    else:
        mask = cells_of_views(teacher.views, grid)
    if not mask.any():
        raise InputError(
            "config",
            "data.box",
            f"a box {teacher.box.lower} to {teacher.box.upper} with nothing of the teacher in it",
            "the box the scene is in",
            "Set data.box, or auto when there is a PLY.",
        )
    grid.bound_by_teacher(mask)
    return Model(student.to(device), grid.to(device), _render_settings(config, step, student, device))


def restore_model(config: Config, state: dict[str, Any], path: Path, device: torch.device) -> Model:
    """The student of a checkpoint in its own box and occupancy; only render settings come from the config."""
    stored = state["occupancy"]
    grid = _grid(config, restore_box(state), stored["resolution"], stored["step"])
    grid.load_state_dict(stored["state"])
    student = restore_student(state, path, device, config.kernels)
    return Model(student, grid.to(device), _render_settings(config, stored["step"], student, device))


def _grid(config: Config, box: SceneBox, resolution: int, step: float) -> OccupancyGrid:
    return OccupancyGrid(box, resolution, step, config.occupancy.threshold, config.occupancy.decay)


def _render_settings(config: Config, step: float, student: Student, device: torch.device) -> RenderSettings:
    render = config.render
    refusal = fused_refusal(student.fused_field(), device) if render.fused is True else None
    if refusal is not None:
        raise InputError(
            "config", "render.fused", "true", "auto or false", f"The fused renderer cannot run: {refusal}."
        )
    return RenderSettings(
        step=step,
        max_samples_per_ray=render.max_samples_per_ray,
        termination=render.termination,
        max_batch_samples=render.max_batch_samples,
        near=config.data.near,
        far=config.data.far,
        implementation=config.kernels,
        fused=render.fused,
        precision=render.precision,
    )
