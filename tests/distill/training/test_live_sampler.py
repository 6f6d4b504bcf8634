"""The ring of a live teacher's views: which view is where, when the next one comes, what waiting for it costs."""

from __future__ import annotations

import pytest
import torch

from distill.rendering.renderer import RenderSettings
from distill.training.live_sampler import LiveRaySampler
from distill.training.ray_source import Sampling
from scene.rays import SceneBox, pixel_rays
from settings.teacher import LiveConfig
from teacher.sources.live_producers import InlineProducer, LiveView
from teacher.views.rasterized import View

CPU = torch.device("cpu")
HEIGHT, WIDTH, SLOTS = 3, 4, 5
PIXELS = HEIGHT * WIDTH


@pytest.fixture
def cameras(look_at):
    """40 of them, each at a height of its own."""
    return look_at([(3.0, 1.0, 0.1 * i) for i in range(40)], width=WIDTH, height=HEIGHT, focal=4.0)


@pytest.fixture
def render(cameras):
    """View k: red is k, alpha 100 + k, the distance k plus the pixel's number as a fraction."""

    def view(index: int) -> LiveView:
        rgb = torch.zeros((HEIGHT, WIDTH, 3), dtype=torch.uint8)
        rgb[..., 0] = index
        alpha = torch.full((HEIGHT, WIDTH), 100 + index, dtype=torch.uint8)
        distance = index + torch.arange(1.0, 1 + PIXELS).view(HEIGHT, WIDTH) / 100
        return LiveView(cameras[index], View(rgb, alpha, alpha, distance))

    return view


@pytest.fixture
def make(render, cameras):
    def build(reuse: float = 2.0, random_background: bool = False) -> LiveRaySampler:
        live = LiveConfig(buffer=SLOTS, reuse=reuse)
        box, settings = SceneBox((-1, -1, -1), (1, 1, 1)), RenderSettings(0.01, 100, 0.0, 1024, near=0.1, far=50.0)
        sampling = Sampling(box, settings, (0.0, 0.0, 0.0), random_background, CPU)
        return LiveRaySampler(InlineProducer(render), cameras[0], live, sampling)

    return build


def views_in(sampler: LiveRaySampler) -> list[int]:
    """The view in each slot."""
    views = sampler.rgb[:, 0].view(SLOTS, PIXELS)
    assert (views == views[:, :1]).all()
    assert torch.equal(sampler.alpha.view(SLOTS, PIXELS), views + 100)
    assert torch.equal(sampler.distance.floor().view(SLOTS, PIXELS), views.float())
    return views[:, 0].tolist()


def test_the_oldest_view_makes_way_when_as_many_rays_are_drawn(make) -> None:
    sampler = make(reuse=2.0)
    with sampler:
        assert views_in(sampler) == [0, 1, 2, 3, 4]
        sampler.advance(2 * PIXELS - 1)
        assert views_in(sampler) == [0, 1, 2, 3, 4]
        sampler.advance(1)
        assert views_in(sampler) == [5, 1, 2, 3, 4]
        sampler.advance(7 * PIXELS)  # three views and a half
        assert views_in(sampler) == [5, 6, 7, 8, 4]
        sampler.advance(PIXELS)
        assert views_in(sampler) == [5, 6, 7, 8, 9]


def test_a_fraction_of_a_view_brings_the_next(make) -> None:
    with make(reuse=0.25) as sampler:
        sampler.advance(PIXELS)
        assert views_in(sampler) == [5, 6, 7, 8, 4]


def test_rays_are_those_of_the_view_in_the_slot(make, cameras) -> None:
    with make() as sampler:
        sampler.advance(6 * PIXELS)
        batch = sampler.draw(400, torch.Generator().manual_seed(0))
    view = batch.distance.long()
    assert set(view.tolist()) == {3, 4, 5, 6, 7}
    pixel = ((batch.distance - view) * 100).round().long() - 1
    origins, directions = pixel_rays(cameras, view, pixel // WIDTH, pixel % WIDTH)
    torch.testing.assert_close(batch.rays.origins, origins)
    torch.testing.assert_close(batch.rays.directions, directions)
    alpha = (100 + view) / 255
    torch.testing.assert_close(batch.coverage, alpha)
    torch.testing.assert_close(batch.rgb[:, 0], view / 255 * alpha)
    assert sampler.pixels == SLOTS * PIXELS


def test_a_random_background_is_under_the_views(make) -> None:
    with make(random_background=True) as sampler:
        batch = sampler.draw(100, torch.Generator().manual_seed(0))
    torch.testing.assert_close(batch.rgb[:, 1:], (1 - batch.coverage[:, None]) * batch.background[:, 1:])


@pytest.mark.parametrize("advanced", [0, 1, 2 * PIXELS, 19 * PIXELS])
def test_restoring_renders_the_same_ring(make, advanced: int) -> None:
    with make() as first:
        first.advance(advanced)
        state = first.state()
        second = make()
        second.restore(state)
        with second:
            for rays in (0, PIXELS // 2, 3 * PIXELS):
                first.advance(rays)
                second.advance(rays)
                assert views_in(first) == views_in(second)
                assert (first.taken, first.drawn) == (second.taken, second.drawn)


def test_waiting_is_counted_and_shown(make, monkeypatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("distill.training.live_sampler.time.perf_counter", lambda: clock[0])
    sampler = make()
    take = sampler.producer.take

    def slow() -> LiveView:
        clock[0] += 1.5
        return take()

    sampler.producer.take = slow
    with sampler:
        assert sampler.figures() == {"live_views": 5, "live_views_per_s": 0.0, "live_starved_s": 0.0}
        sampler.advance(4 * PIXELS)
        clock[0] += 1.0  # a step takes time too
        assert sampler.figures() == {"live_views": 7, "live_views_per_s": 0.5, "live_starved_s": 3.0}
        clock[0] += 1.0
        assert sampler.figures() == {"live_views": 7, "live_views_per_s": 0.0, "live_starved_s": 3.0}
    assert sampler.summary() == "live teacher: 7 views rendered; training waited 3.0 s for them"
