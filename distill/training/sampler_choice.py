"""Which sampler gives a run its rays: of fixed views, of those decoded beside training, of a live teacher, or mixed."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.model.model import Model
from distill.training.lazy_sampler import LazyRaySampler
from distill.training.live_sampler import LiveRaySampler
from distill.training.mixed_sampler import MixedRaySampler
from distill.training.ray_sampler import RaySampler
from distill.training.ray_source import RaySource, Sampling
from machine.memory import GIB
from settings.config import Config
from teacher.sources import Teacher, finer_teacher, teacher_sight
from teacher.sources.live_producers import make_producer
from teacher.views.teacher_views import STORED_SHARE, TeacherViews


def make_sampler(config: Config, teacher: Teacher, model: Model, device: torch.device) -> RaySource:
    """Training rays of the teacher's views, fixed or live, and of the dataset's images where they are wanted."""
    render, teacher = config.render, finer_teacher(config, teacher, model.settings.supersample)
    sight = teacher_sight(config, teacher, model.grid.layout)
    # With a far field every pixel tells something, whatever it meets in the box.
    is_bounded = model.far_field is None and (sight is not None or not model.grid.teacher.all())
    cells = model.grid.teacher_cells if is_bounded else None
    guided_by = None if sight is None else model.grid.cell_size
    background = render.background_rgb, render.random_background
    sampling = Sampling(teacher.box, model.settings, *background, device, cells)
    if teacher.poses is None:
        sampler = _sampler_of(config, teacher.views, sampling, sight and sight.reach, guided_by)
    else:
        brings_reach = sight is not None and model.far_field is None
        producer = make_producer(config, teacher, device, model.grid.layout if brings_reach else None)
        sampler = LiveRaySampler(producer, teacher.poses.cameras[0], teacher.live, sampling)
    if teacher.images is None:
        return sampler
    images = _sampler_of(config, teacher.images, sampling, sight and sight.image_reach, guided_by)
    return MixedRaySampler(sampler, images, config.data.ground_truth.weight, config.kernels)


def _sampler_of(
    config: Config, views: TeacherViews, sampling: Sampling, reach: Tensor | None, guided_by: float | None
) -> RaySampler:
    """Rays of fixed views; where pictures are decoded beside training, of those that are in memory."""
    if views.store is None:
        return RaySampler(views, sampling, reach)
    budget = int(config.data.memory_gib * GIB * (1 - STORED_SHARE))
    return LazyRaySampler(views, sampling, budget, config.seed, guided_by)
