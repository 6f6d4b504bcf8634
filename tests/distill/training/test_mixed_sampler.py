import dataclasses

import pytest
import torch

from distill.training.mixed_sampler import MixedRaySampler
from distill.training.ray_sampler import RaySampler
from distill.training.ray_source import RaySource, Sampling
from teacher.views.teacher_views import TeacherViews
from tests.small_views import (
    BOX,
    CPU,
    FRAMES,
    HEIGHT,
    SETTINGS,
    WIDTH,
    draw,
    make_sampler,
)


@pytest.fixture
def images(views):
    """Like the views but without depth, and green where they are anything."""
    rgb = torch.zeros_like(views.rgb)
    rgb[..., 1] = 200
    return TeacherViews(
        **{**vars(views), "rgb": rgb, "distance": None, "holdout": torch.zeros(FRAMES, dtype=torch.bool)}
    )


@pytest.mark.parametrize(("weight", "count", "of_images"), [(1.0, 10, 5), (0.25, 10, 2), (3.0, 10, 8), (1e-4, 10, 0)])
def test_the_weight_says_how_many_rays_are_of_images(views, images, weight, count, of_images):
    mixed = MixedRaySampler(make_sampler(views), make_sampler(images), weight)
    batch = draw(mixed, count)
    assert len(batch.rays) == len(batch.rgb) == len(batch.background) == len(batch.coverage) == count
    # The teacher's know their distance, those of images do not.
    assert (batch.distance == 0).sum() == of_images
    assert mixed.pixels == (2 + 4) * HEIGHT * WIDTH


def test_a_mixed_batch_is_a_batch_of_each(views, images):
    teacher, photos = make_sampler(views, random_background=True), make_sampler(images, random_background=True)
    batch = draw(MixedRaySampler(teacher, photos, 1.0), 40)
    generator = torch.Generator().manual_seed(0)
    for part, places in (
        (teacher.draw(20, generator), slice(0, None, 2)),
        (photos.draw(20, generator), slice(1, None, 2)),
    ):
        for name in ("rgb", "background", "coverage"):
            assert torch.equal(getattr(batch, name)[places], getattr(part, name))
        for name in ("origins", "directions", "near", "far"):
            assert torch.equal(getattr(batch.rays, name)[places], getattr(part.rays, name))
    photo = batch[torch.arange(1, 40, 2)]
    torch.testing.assert_close(
        photo.rgb[:, 1], 200 / 255 * photo.coverage + (1 - photo.coverage) * photo.background[:, 1]
    )


def test_without_any_depth_a_mixed_batch_has_none(views, images):
    flat = TeacherViews(**{**vars(views), "distance": None})
    assert draw(MixedRaySampler(make_sampler(flat), make_sampler(images), 1.0)).distance is None


class _Recorder(RaySource):
    """A live teacher's sampler, but for the views."""

    def __init__(self):
        self.calls = []

    def __enter__(self):
        self.calls.append("enter")
        return self

    def __exit__(self, kind, error, trace):
        self.calls.append("exit")

    def advance(self, rays):
        self.calls.append(rays)

    def figures(self):
        return {"live_views": 3}

    def summary(self):
        return "three views"

    def state(self):
        return {"taken": 3}

    def restore(self, state):
        self.calls.append(state)


def test_a_live_teacher_and_images_that_change_count_their_own_rays_alone(images):
    live, changing = _Recorder(), _Recorder()
    mixed = MixedRaySampler(live, changing, 0.25)
    with mixed:
        mixed.advance(10)
    assert mixed.figures() == {"live_views": 3} and mixed.summary() == "three views. three views"
    mixed.restore(mixed.state())
    assert live.calls[:3] == ["enter", 8, "exit"] and live.calls[3]["taken"] == 3
    assert changing.calls == ["enter", 2, "exit", {"taken": 3}]
    assert MixedRaySampler(live, make_sampler(images), 0.25).state() == {"taken": 3}


def test_rays_of_images_are_sampled_to_their_end(views, opaque_views):
    reach = torch.full((2, HEIGHT, WIDTH), 2.5, dtype=torch.float16)
    guided = RaySampler(views, Sampling(BOX, SETTINGS, (1.0, 1.0, 1.0), False, CPU), reach)
    batch = draw(MixedRaySampler(guided, make_sampler(opaque_views), 1.0), 20)
    assert (batch.reach[::2] == 2.5).all() and (batch.reach[1::2] == torch.inf).all()
    assert torch.equal(batch.sampled.far[1::2], batch.rays.far[1::2])


def test_both_kinds_take_memory(views, opaque_views):
    copying = dataclasses.replace(SETTINGS, implementation="triton")
    teacher, photos = (make_sampler(of, settings=copying) for of in (views, opaque_views))
    assert MixedRaySampler(teacher, photos, 0.5).nbytes == 2 * HEIGHT * WIDTH * (8 + 8)
