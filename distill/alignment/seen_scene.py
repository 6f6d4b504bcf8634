"""What the cameras see of the scene box, and its cells of what the pictures show."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from distill.alignment.hypotheses import pose_hypotheses
from distill.model.model import Model
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderSettings, clip_to_box
from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells
from scene.cameras import Cameras
from scene.frames import spread
from scene.rays import SceneBox, image_rays, intersect_box
from settings.config import Config
from settings.data import DataConfig
from settings.errors import InputError
from teacher.sources import Teacher, source_of
from teacher.sources.box import box_of_gaussians, find_strays, stray_note
from teacher.views.teacher_views import TeacherViews

_log = logging.getLogger(__name__)

CHECK = (
    "tools/check_alignment.py with the same options says more; if the Gaussians draw all the pictures, only after a "
    "student is trained."
)
TURNING = 3
"""First pose hypotheses: the usual ones that turn cameras away."""
_FRAMES, _PIXELS = 4, 4096  # looked at, and pixels of each
# Shares of the cameras that see the scene box: fewer is said, hardly any is refused; a mistake explains it if so many
# see it once it is undone.
_MOST_CAMERAS, _NO_CAMERAS, _EXPLAINED = 0.5, 0.05, 0.9
_SIGHT = 9  # rays along each side of a picture that tell whether a camera sees the box
# Shares of the teacher's covered pixels behind which some cell can hold something: likewise.
_MOST_PIXELS, _NO_PIXELS = 0.8, 0.1
_MOST_STEP = 0.25  # of the scene's width
_LEAST_REACH, _NO_REACH = 0.5, 0.05  # of it, that all samples of a ray take one after another


def check_looking(config: Config, cameras: Cameras, box: SceneBox) -> None:
    """Whether cameras look at the scene box, and have samples in it between ``data.near`` and ``data.far``.

    Raises:
        InputError: hardly any does; a warning says so of fewer than half.
    """
    seen = seeing(cameras, box, 0.0, torch.inf)
    count, share = len(cameras), seen.float().mean().item()
    if share < _MOST_CAMERAS:
        corners = " to ".join(str([round(value, 3) for value in corner]) for corner in (box.lower, box.upper))
        words = f"{count - int(seen.sum())} of {count} cameras look away from the scene box, {corners}"
        advice = f"Bring the poses, teacher.ply and data.box into one world. {CHECK}"
        for one in pose_hypotheses()[:TURNING]:
            then = seeing(one.cameras(cameras), box, 0.0, torch.inf).float().mean().item()
            if then >= _EXPLAINED:
                words, advice = f"{words}; supposing that {one.name}, {then:.0%} see it", one.advice
                break
        source = config.data.transforms or "config"
        refuse_or_warn(share < _NO_CAMERAS, source, "transform_matrix", words, "cameras that look at the scene", advice)
    near = config.data.nearest(max(box.extent))
    within = seeing(cameras, box, near, config.data.far)
    if within.sum() < _MOST_CAMERAS * seen.sum():
        first, last = _distances(cameras, box)
        empty = f"no sample in {count - int(within.sum())} of {count} views"
        words = f"{near:g}, and far {config.data.far:g}: {empty}"
        expected = f"a range that holds the scene box, {first:.3g} to {last:.3g} from the cameras"
        advice = _range_advice(config, last)
        refuse_or_warn(within.float().mean() < _NO_CAMERAS, "config", "data.near", words, expected, advice)


def seeing(cameras: Cameras, box: SceneBox, near: float, far: float) -> Tensor:
    """(N,) bool: cameras of whose picture some ray of a coarse grid crosses the box between near and far."""
    coarse = cameras.resized(_SIGHT, _SIGHT)
    found = []
    for frame in range(len(cameras)):
        first, last = intersect_box(*image_rays(coarse, frame), box, near, far)
        found.append((last > first).any())
    return torch.stack(found)


def _distances(cameras: Cameras, box: SceneBox) -> tuple[float, float]:
    """The nearest and farthest corner of the box from any camera."""
    corners = torch.cartesian_prod(*torch.tensor([box.lower, box.upper]).T)
    apart = torch.cdist(cameras.centers, corners)
    return apart.min().item(), apart.max().item()


def _range_advice(config: Config, last: float) -> str:
    """What to do about a range of distances that leaves out the scene, which ends ``last`` away."""
    if config.data.far == DataConfig.model_fields["far"].default and config.data.far < last:
        return f"The scene is large for data.far: set it to {2 * last:.1g}."
    return "Leave out data.near and data.far."


def check_step(config: Config, teacher: Teacher, model: Model) -> bool:
    """Whether samples lie close together beside what they are to show, and a ray has enough of them to cross it.

    A warning says it where they do not.

    Raises:
        InputError: they are farther apart than that is wide, or end a ray at its beginning.
    """
    step, width = model.settings.step, _width_of(config, teacher, model.grid)
    if step <= _MOST_STEP * width:
        return _crosses(config, model, width)
    if config.render.step_size != "auto":
        field, advice = "render.step_size", "Leave out render.step_size."
    elif note := stray_note(config, teacher.gaussians, teacher.box):
        field, advice = "data.box", note
    elif config.data.box != "auto":
        field, advice = "data.box", "Leave out data.box, or give it in the units of poses and Gaussians."
    else:
        field, advice = "render.step_pixels", "Leave out render.step_pixels, or set a larger data.resolution."
    apart = f"samples {step:.3g} apart, in a scene {width:.3g} wide"
    refuse_or_warn(step > width, "config", field, apart, "many samples across it", advice)
    return False


def _crosses(config: Config, model: Model, width: float) -> bool:
    """Whether a ray's samples reach through most of what there is to show, were all of it occupied."""
    most, step = model.settings.max_samples_per_ray, model.settings.step
    if (reach := most * step) >= _LEAST_REACH * width:
        return True
    if config.render.step_size == "auto":
        field, advice = "render.max_samples_per_ray", "Leave out render.max_samples_per_ray."
    else:
        field, advice = "render.step_size", "Leave out render.step_size, or raise render.max_samples_per_ray."
    found = f"at most {most:,} samples on a ray, {step:.3g} apart: {reach:.3g} in all, in a scene {width:.3g} wide"
    expected = "as many as it takes to see what lies behind"
    refuse_or_warn(reach < _NO_REACH * width, "config", field, found, expected, advice)
    return False


def _width_of(config: Config, teacher: Teacher, grid: OccupancyGrid) -> float:
    """The longest side of what there is to show, as far as it is known."""
    if config.data.box == "auto":
        strays = None if teacher.gaussians is None else find_strays(teacher.gaussians, teacher.box)
        return max(teacher.box.extent if strays is None else strays.box.extent)
    if teacher.gaussians is not None:
        return max(box_of_gaussians(teacher.gaussians).extent)
    cells = grid.teacher.nonzero()
    return grid.cell_size * (cells.amax(0) - cells.amin(0) + 1).max().item() if len(cells) else math.inf


def check_cells(config: Config, teacher: Teacher, model: Model) -> None:
    """How much of what the views show lies behind rays that cross cells in which the student may put something.

    Raises:
        InputError: hardly any of it; a warning says so of less than most.
    """
    share = _share_met(teacher.views, model, model.settings)
    if share >= _MOST_PIXELS:
        return
    if teacher.gaussians is not None:
        field, of = "teacher.ply", config.teacher.ply or "the Gaussians"
        where = f"the cells of {of} within data.near and data.far"
        advice = "Use the PLY and the poses of one export, or --set teacher.ply=null."
    else:
        field, where = "data.box", "what the silhouettes of all views leave of data.box"
        advice = (
            "Do pictures and poses belong together (order of the frames, axes, camera-to-world), and does data.box?"
        )
    if note := stray_note(config, teacher.gaussians, teacher.box):
        field, advice = "data.box", note
    elif _share_met(teacher.views, model, replace(model.settings, near=0.0, far=torch.inf)) >= _MOST_PIXELS:
        field, where = "data.far", f"{model.settings.near:g} (data.near) to {config.data.far:g} from the cameras"
        advice = _range_advice(config, _distances(teacher.views.cameras, teacher.box)[1])
    elif note := source_of(config).outlier_note(teacher.gaussians):
        advice = note
    words = f"only {share:.1%} of what the teacher's pictures show in {where}"
    refuse_or_warn(share < _NO_PIXELS, "config", field, words, "nearly all of it", f"{advice} {CHECK}")


def _share_met(views: TeacherViews, model: Model, settings: RenderSettings) -> float:
    """Of the pixels that views show, those whose ray crosses a cell of the teacher; 1 if they show none.

    Views that are trained on, where there are some: what others alone see is in no cell of guided sampling.
    """
    frames = views.training_frames.tolist() or range(len(views))
    grid = model.grid
    cells = Cells(grid.box.lower, grid.cell_size, grid.teacher)
    device = grid.teacher.device
    met = shown = 0
    for frame in spread(frames, _FRAMES):
        covered = views.coverage[frame] >= 128
        if views.counted is not None:  # what does not count is covered too, and nothing may be behind it
            covered &= views.counted[frame]
        pixels = covered.flatten().nonzero()[:, 0]
        pixels = pixels[:: max(1, len(pixels) // _PIXELS)]
        origins, directions = (part[pixels].to(device) for part in image_rays(views.cameras, frame))
        rays = clip_to_box(origins, directions, grid.box, settings)
        samples = march(*vars(rays).values(), cells, step=settings.step, limit=1)
        met += int((samples.offsets.diff() > 0).sum())
        shown += len(pixels)
    return met / shown if shown else 1.0


def refuse_or_warn(refuse: bool, source: str | Path, field: str, found: str, expected: str, advice: str) -> None:
    """Refuses in the form of all errors, or warns in the same words."""
    error = InputError(source, field, found, expected, advice)
    if refuse:
        raise error
    _log.warning("%s", error)
