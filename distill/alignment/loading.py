"""From a config and a checkpoint to a comparison: the views, the depth files, and who else can bear witness."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from distill.alignment.comparison import Comparison, StoredDepth, chosen_views, compare_with, sampled_depth
from distill.model.restored_run import RestoredRun
from distill.model.view_renderers import RenderView, gaussians_renderer, student_renderer
from settings.config import Config
from settings.errors import InputError
from teacher.depth import DepthKind
from teacher.rasterizer import Rasterizer
from teacher.sources import load_teacher
from teacher.views.output_folder import OutputFiles, find_outputs

_DEPTH_WIDTH, _MOST_SUPERSAMPLE = 100, 8


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
        depth = views.depth_kind is not None
        data = config.data
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
    rasterizer = Rasterizer(teacher.gaussians, config.teacher.rasterizer, device=run.device)
    # The pictures were drawn at their own size and then reduced; 3DGS drawn small is not the same.
    reduced = round(files.cameras.width / views.cameras.width)
    return Loaded(comparison, gaussians_renderer(rasterizer, min(_MOST_SUPERSAMPLE, max(1, reduced))))


def _stored_depth(files: OutputFiles, kind: DepthKind, chosen: list[int]) -> StoredDepth:
    pictures, depths = zip(*(files.load(index) for index in chosen), strict=True)
    alpha = None
    if files.has_alpha:
        alpha = torch.from_numpy(np.stack([picture[..., 3] for picture in pictures]) / np.float32(255))
    return sampled_depth(torch.stack(depths), alpha, files.cameras[chosen], kind, _DEPTH_WIDTH)
