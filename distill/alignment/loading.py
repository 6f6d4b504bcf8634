"""From a config and a checkpoint to a comparison: the views, the depth files, and who else can bear witness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from distill.alignment.comparison import (
    Comparison,
    StoredDepth,
    chosen_views,
    compare_with,
    sampled_depth,
)
from distill.pipeline import load_teacher
from distill.restored_run import RestoredRun
from distill.schema import Config
from distill.view_renderers import RenderView, gaussians_renderer, student_renderer
from scene.errors import InputError
from teacher.rasterizer import Rasterizer
from teacher.view_files import find_outputs
from teacher.views import TeacherViews

_DEPTH_WIDTH = 100


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
    comparison = compare_with(
        teacher.views,
        student_renderer(run.model, run.device),
        config.render.background_rgb,
        count,
        _stored_depth(config, teacher.views, count),
    )
    drawn_elsewhere = config.teacher.kind == "views" or (config.live and config.teacher.outputs is not None)
    if teacher.gaussians is None or not drawn_elsewhere:
        return Loaded(comparison, None)
    rasterizer = Rasterizer(teacher.gaussians, config.teacher.rasterizer, device=run.device)
    return Loaded(comparison, gaussians_renderer(rasterizer))


def _stored_depth(config: Config, views: TeacherViews, count: int) -> StoredDepth | None:
    if config.teacher.kind != "views" or views.depth_kind is None:
        return None
    chosen = chosen_views(views, count)
    files = find_outputs(config.teacher.outputs, config.data.transforms, config.data.frames, depth=True, truth=False)
    pictures, depths = zip(*(files.load(index) for index in chosen), strict=True)
    alpha = None
    if files.has_alpha:
        alpha = torch.from_numpy(np.stack([picture[..., 3] for picture in pictures]) / np.float32(255))
    return sampled_depth(torch.stack(depths), alpha, files.cameras[chosen], views.depth_kind, _DEPTH_WIDTH)
