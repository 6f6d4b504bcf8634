"""Rays of pictures that come and go beside training."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.rendering.renderer import RenderSettings
from distill.training import lazy_sampler
from distill.training.lazy_sampler import LazyRaySampler
from distill.training.mixed_sampler import MixedRaySampler
from distill.training.ray_sampler import RaySampler
from distill.training.ray_source import Sampling
from scene.cells import CellGrid
from scene.images import write_image
from scene.rays import SceneBox
from settings.data import DataConfig
from settings.errors import InputError
from teacher.views import teacher_views
from teacher.views.sight import sight_of_depth
from tests.teacher.views.test_lazy_pictures import WHITE, views_of, write_dataset

BOX = SceneBox((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
CPU = torch.device("cpu")


SETTINGS = RenderSettings(0.01, 100, 0.0, 1024, near=0.1, far=50.0, implementation="torch")
SAMPLING = Sampling(BOX, SETTINGS, WHITE, False, CPU)


def lazily(views, budget, seed=0, settings=SETTINGS, guided_by=None):
    return LazyRaySampler(views, Sampling(BOX, settings, WHITE, False, CPU), budget, seed, guided_by)


def settle(sampler, turns=40):
    """Lets the thread decode, and takes in what it has."""
    for _ in range(turns):
        event = threading.Event()
        while not sampler._producer.is_ready():
            event.wait(0.001)
        sampler.advance(lazy_sampler._RAYS_PER_PICTURE)


@pytest.mark.parametrize(("channels", "masked"), [(3, False), (4, True)])
def test_rays_are_those_of_the_pictures_in_memory(tmp_path, channels, masked):
    path = write_dataset(tmp_path, channels, masked=masked)
    views = views_of(path)
    whole = RaySampler(views, SAMPLING)
    pixels = whole._batch_torch(torch.arange(whole.pixels), whole.background.expand(whole.pixels, 3))
    known = {tuple(ray): color for ray, color in zip(_rays(pixels), pixels.rgb.tolist(), strict=True)}
    with lazily(views_of(path, 1e-6), 10**6) as sampler:
        assert sampler.slots == sampler.resident == 4, "all there are, the held-out ones apart"
        batch = sampler.draw(500, torch.Generator().manual_seed(0))
    assert all(known[tuple(ray)] == color for ray, color in zip(_rays(batch), batch.rgb.tolist(), strict=True))
    assert len({tuple(ray) for ray in _rays(batch)}) > 0.9 * 36 * (3.5 if masked else 4)
    assert sampler.nbytes < 4 * 36 * 10


def _rays(batch):
    return torch.cat([batch.rays.origins, batch.rays.directions], dim=1).tolist()


@pytest.fixture
def depth_of(monkeypatch):
    """Views of a dataset with depth: the k-th of the 36 pixels of frame i is ``1 + i + k / 100`` away, the first is not
    known.
    """

    def distance(index):
        pixels = torch.arange(36).view(6, 6) / 100
        far = torch.where(pixels > 0, 1 + index + pixels, 0.0)
        return far.repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()  # at the pictures' own size

    def views(path, gib=None):
        data = DataConfig(memory_gib=gib, depth=path.parent)
        return teacher_views.views_from_images(path, width=6, background=WHITE, holdout_every=3, data=data)

    monkeypatch.setattr(teacher_views, "distance_reader", lambda *_: distance)
    return views


@pytest.mark.parametrize("implementation", ["torch", "numba"])
@pytest.mark.parametrize(("channels", "masked"), [(3, False), (4, False), (3, True)])
def test_depth_is_that_of_the_picture_in_the_slot(tmp_path, depth_of, implementation, channels, masked):
    path = write_dataset(tmp_path, channels, frames=12, masked=masked)
    whole = RaySampler(views := depth_of(path), SAMPLING)
    pixels = whole._batch_torch(torch.arange(whole.pixels), whole.background.expand(whole.pixels, 3))
    frames, numbers = (~views.holdout).nonzero(), torch.arange(36) / 100
    expected = torch.where(numbers > 0, 1 + frames + numbers, 0.0).flatten()
    torch.testing.assert_close(pixels.distance, expected)
    bytes_each = 36 * (3 + 1 + 4 + 4 * masked)
    sampler = lazily(depth_of(path, 1e-6), 3 * bytes_each, settings=replace(SETTINGS, implementation=implementation))
    with sampler:
        assert sampler.slots == 3 and sampler.nbytes == 3 * bytes_each and len(sampler.distance) == 3 * 36
        for _ in range(4):
            batch = sampler.draw(400, torch.Generator().manual_seed(0))
            # The nearest is the same: the twins' directions may differ in the last bit.
            same = torch.cdist(torch.tensor(_rays(batch)), torch.tensor(_rays(pixels))).argmin(1)
            torch.testing.assert_close(batch.distance, expected[same])
            settle(sampler, 2)
    assert sampler.taken > 3, "pictures have given way to others"


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_rays_end_where_those_of_pictures_that_are_all_in_memory_do(tmp_path, depth_of, implementation):
    path, grid = write_dataset(tmp_path, 4, frames=12), CellGrid(BOX, 64)
    for index in range(12):  # opaque
        write_image(tmp_path / f"r_{index}.png", np.full((12, 12, 4), 255, np.uint8))
    views, settings = depth_of(path), replace(SETTINGS, implementation=implementation)
    reach = sight_of_depth(views, (~views.holdout).nonzero()[:, 0].tolist(), grid).reach
    whole = RaySampler(views, Sampling(BOX, settings, WHITE, False, CPU), reach)
    pixels = whole._batch_torch(torch.arange(whole.pixels), whole.background.expand(whole.pixels, 3))
    assert pixels.reach.isfinite().any() and not pixels.reach.isfinite().all()
    sampler = lazily(depth_of(path, 1e-6), 3 * 36 * 10, settings=settings, guided_by=grid.cell_size)
    assert sampler.slots == 3 and sampler.nbytes <= 3 * 36 * 10
    with sampler:
        for _ in range(3):
            batch = sampler.draw(400, torch.Generator().manual_seed(0))
            same = torch.cdist(torch.tensor(_rays(batch)), torch.tensor(_rays(pixels))).argmin(1)
            assert torch.equal(batch.reach, pixels.reach[same])
            settle(sampler, 2)
    assert sampler.taken > 3 and lazily(depth_of(path, 1e-6), 10**6).reach is None


def test_every_picture_has_its_turn_within_the_budget(tmp_path):
    path = write_dataset(tmp_path, frames=12)
    views = views_of(path, 1e-6)
    train = {tuple(row) for row in views.cameras[~views.holdout].centers.tolist()}
    sampler, seen = lazily(views, 3 * 36 * 4), set()
    assert sampler.slots == 3 and len(train) == 8
    with sampler:
        for _ in range(8):
            settle(sampler, 1)
            seen |= {tuple(row) for row in sampler.draw(100, torch.Generator()).rays.origins.tolist()}
            assert sampler.resident == 3 and len(sampler.rgb) == 3 * 36 and views.store.nbytes <= 1100
    assert seen == train
    assert "11 pictures decoded; of 8 there were 3 in memory" in sampler.summary()


def test_nothing_waits_and_nothing_comes_before_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy_sampler, "_BEFORE", 1)
    views, gate = views_of(write_dataset(tmp_path, frames=12), 1e-6), threading.Event()
    sampler = lazily(views, 3 * 36 * 4)
    decode = views.store.decode
    with sampler:
        settle(sampler, 4)
        assert sampler.resident == 3, "the first came before training, the others beside it"
        taken = sampler.taken
        sampler.advance(lazy_sampler._RAYS_PER_PICTURE - 1)
        assert sampler.taken == taken
        views.store.decode = lambda index: gate.wait() and decode(index)
        for _ in range(10):
            sampler.advance(lazy_sampler._RAYS_PER_PICTURE)
        assert sampler.taken <= taken + 3, "those that were decoded already"
        gate.set()
    resumed = lazily(views, 3 * 36 * 4)
    resumed.restore(sampler.state())
    with resumed:
        assert resumed.taken == sampler.taken + 1 and resumed.resident == 1


def test_a_damaged_picture_ends_training_with_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy_sampler, "_BEFORE", 1)
    views = views_of(write_dataset(tmp_path, frames=12), 1e-6)
    (tmp_path / "r_4.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(InputError, match="r_4.png: image"), lazily(views, 3 * 36 * 4) as sampler:
        settle(sampler, 12)


def test_images_beside_a_teacher_come_and_go_too(tmp_path):
    path = write_dataset(tmp_path)
    views = views_of(path, 1e-6)
    teacher = RaySampler(replace(views_of(path)), SAMPLING)
    images = lazily(views, 2 * 36 * 4)
    mixed = MixedRaySampler(teacher, images, 1.0)
    with mixed:
        assert len(mixed.draw(10, torch.Generator()).rgb) == 10
        for _ in range(3):
            while not images._producer.is_ready():
                threading.Event().wait(0.001)
            mixed.advance(2 * lazy_sampler._RAYS_PER_PICTURE)
    assert images.taken == 5 and mixed.state() == {"images": {"taken": 5}}
    again = lazily(views, 2 * 36 * 4)
    MixedRaySampler(teacher, again, 1.0).restore(mixed.state())
    assert again.taken == 5 and np.isfinite(mixed.nbytes)
