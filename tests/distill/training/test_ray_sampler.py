import dataclasses

import pytest
import torch

from distill.training.ray_sampler import PixelPool, RaySampler
from distill.training.ray_source import Sampling
from kernels.marching.ray_samples import Cells
from scene.rays import pixel_rays
from settings.errors import InputError
from teacher.views.teacher_views import TeacherViews
from tests.small_views import (
    BOX,
    CPU,
    FRAMES,
    GREY,
    HEIGHT,
    HOLDOUT,
    SETTINGS,
    WIDTH,
    draw,
    make_sampler,
)
from tests.toy_scene import write_toy_scene
from tests.toy_training import trainer_of
from tests.triton_device import TRITON, device_of


def pixels_of(batch):
    """Frame, row and column of each ray."""
    number = batch.distance.long() - 1
    return number // (HEIGHT * WIDTH), number // WIDTH % HEIGHT, number % WIDTH


def test_held_out_frames_are_never_drawn_and_all_other_pixels_are(views):
    sampler = make_sampler(views)
    assert sampler.pixels == 2 * HEIGHT * WIDTH
    numbers = draw(sampler, 2000).distance.long() - 1
    frames = numbers // (HEIGHT * WIDTH)
    assert set(frames.tolist()) == {1, 3}
    counts = torch.bincount(numbers, minlength=FRAMES * HEIGHT * WIDTH).view(FRAMES, -1)[~HOLDOUT]
    assert counts.min() > 5  # 28.6 are expected of each
    assert counts.max() < 65


def test_rays_are_those_of_the_pixels_clipped_to_the_box(views):
    batch = draw(make_sampler(views))
    origins, directions = pixel_rays(views.cameras, *pixels_of(batch))
    torch.testing.assert_close(batch.rays.origins, origins)
    torch.testing.assert_close(batch.rays.directions, directions)
    hit = batch.rays.far > batch.rays.near
    assert hit.float().mean() > 0.5
    middle = origins + ((batch.rays.near + batch.rays.far) / 2)[:, None] * directions
    assert BOX.contains(middle[hit]).all()


@pytest.mark.parametrize("background", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), GREY])
def test_targets_are_the_views_pixels_on_the_background(views, background):
    batch = draw(make_sampler(views, background))
    frame, row, col = pixels_of(batch)
    images = torch.stack([views.image(i, background) for i in range(FRAMES)])
    torch.testing.assert_close(batch.rgb, images[frame, row, col])
    torch.testing.assert_close(batch.coverage, views.alpha[frame, row, col] / 255)
    torch.testing.assert_close(batch.background, torch.tensor(background).expand(500, 3))


def test_random_background_is_under_the_target_too(views):
    batch = draw(make_sampler(views, random_background=True))
    pixel = pixels_of(batch)
    expected = views.rgb[pixel] / 255 * batch.coverage[:, None] + (1 - batch.coverage[:, None]) * batch.background
    torch.testing.assert_close(batch.rgb, expected)
    assert batch.background.std(0).min() > 0.25  # of a uniform distribution: 0.289
    assert batch.background.mean().item() == pytest.approx(0.5, abs=0.05)


def test_views_without_alpha_stay_on_their_own_background(opaque_views):
    sampler = make_sampler(opaque_views, background=(1.0, 1.0, 1.0), random_background=True)
    assert not sampler.random_background
    batch = draw(sampler)
    torch.testing.assert_close(batch.background, torch.tensor(GREY).expand(500, 3))
    torch.testing.assert_close(batch.rgb, opaque_views.rgb[pixels_of(batch)] / 255)
    torch.testing.assert_close(batch.coverage, opaque_views.coverage[pixels_of(batch)] / 255)


def test_views_without_depth_have_none(views):
    flat = TeacherViews(**{**vars(views), "distance": None})
    assert draw(make_sampler(flat)).distance is None


@pytest.mark.parametrize("random_background", [False, True])
def test_the_same_generator_state_gives_the_same_batch(views, random_background):
    sampler = make_sampler(views, random_background=random_background)
    first, again, other = (draw(sampler, seed=seed) for seed in (1, 1, 2))
    for name in ("rgb", "background", "distance"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert not torch.equal(first.distance, other.distance)
    # And a generator that goes on gives another.
    generator = torch.Generator().manual_seed(1)
    sampler.draw(500, generator)
    assert not torch.equal(sampler.draw(500, generator).distance, first.distance)


def test_all_frames_held_out_is_said(views):
    everything = TeacherViews(**{**vars(views), "holdout": torch.ones(FRAMES, dtype=torch.bool)})
    with pytest.raises(InputError, match="data.holdout_every: found all 4 frames held out.*at least one"):
        make_sampler(everything)


def test_fixed_views_have_nothing_to_say(views):
    with make_sampler(views) as sampler:
        sampler.advance(100)
        assert (sampler.figures(), sampler.summary(), sampler.state()) == ({}, None, {})


def test_pixels_stay_as_many_bytes_as_they_are_stored_in(views, opaque_views):
    pixels = 2 * HEIGHT * WIDTH
    sampler = make_sampler(views)
    assert sampler.rgb.dtype == sampler.alpha.dtype == sampler.coverage.dtype == torch.uint8
    # Colour and alpha in bytes, which are the coverage as well, distance in float32, where a GPU would have copies.
    copying = dataclasses.replace(SETTINGS, implementation="triton")
    assert make_sampler(views, settings=copying).nbytes == pixels * (3 + 1 + 4)
    assert make_sampler(opaque_views, settings=copying).nbytes == pixels * (3 + 1 + 4)
    other = TeacherViews(**{**vars(views), "coverage": 255 - views.alpha})
    assert make_sampler(other, settings=copying).nbytes == pixels * (3 + 1 + 1 + 4)
    batch = draw(make_sampler(other))
    torch.testing.assert_close(batch.coverage, 1 - draw(sampler).coverage)


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_on_the_cpu_pictures_are_not_copied(views, implementation):
    """With held-out ones among them, and what is drawn is what copies of the others would give."""
    settings = dataclasses.replace(SETTINGS, implementation=implementation)
    sampler = make_sampler(views, settings=settings)
    for own, theirs in ((sampler.rgb, views.rgb), (sampler.alpha, views.alpha), (sampler.distance, views.distance)):
        assert own.data_ptr() == theirs.data_ptr()
    assert sampler.nbytes == 0 and sampler.pixels == 2 * HEIGHT * WIDTH
    planes = {name: getattr(views, name)[~HOLDOUT] for name in ("rgb", "alpha", "coverage", "distance")}
    trained = {"cameras": views.cameras[~HOLDOUT], "holdout": HOLDOUT[~HOLDOUT], **planes}
    found, alone = draw(sampler), draw(make_sampler(TeacherViews(**{**vars(views), **trained}), settings=settings))
    for name in ("rgb", "coverage", "distance"):
        assert torch.equal(getattr(found, name), getattr(alone, name))
    assert torch.equal(found.rays.origins, alone.rays.origins)


def test_rays_that_meet_no_cell_are_not_drawn(views):
    occupied = torch.zeros((4, 4, 4), dtype=torch.uint8)
    occupied[3, 3, 3] = 1
    cells = Cells(BOX.lower, 0.5, occupied)
    sampler = RaySampler(views, Sampling(BOX, SETTINGS, (1.0, 1.0, 1.0), False, CPU, cells))
    drawn = set((draw(sampler, 3000).distance.long() - 1).tolist())
    crossing, missing = set(), set()
    for number in [*range(35, 70), *range(105, 140)]:
        row, col = torch.tensor([number // WIDTH % HEIGHT]), torch.tensor([number % WIDTH])
        origin, direction = pixel_rays(views.cameras, number // (HEIGHT * WIDTH), row, col)
        points = origin + torch.linspace(0, 6, 4000)[:, None] * direction
        if ((points > 0.5) & (points < 1)).all(-1).sum() > 20:
            crossing.add(number)
        elif not ((points > 0.49) & (points < 1.001)).all(-1).any():
            missing.add(number)
    # A cell is looked at by a few pixels too many.
    assert crossing <= drawn and len(crossing) > 2
    assert len(missing & drawn) < len(missing) / 2


def test_a_ray_is_sampled_as_far_as_its_view_sees(views):
    reach = torch.full((2, HEIGHT, WIDTH), torch.inf, dtype=torch.float16)
    reach[1] = 2.5  # of frame 3, the second one that is not held out
    sampler = RaySampler(views, Sampling(BOX, SETTINGS, (1.0, 1.0, 1.0), False, CPU), reach)
    batch = draw(sampler)
    last = pixels_of(batch)[0] == 3
    assert torch.equal(batch.sampled.far[~last], batch.rays.far[~last])
    assert torch.equal(batch.sampled.far[last], batch.rays.far[last].clamp(max=2.5))
    assert (batch.sampled.far < batch.rays.far)[last].any() and batch.rays.far.max() > 2.5


def test_views_of_which_no_pixel_is_worth_drawing_are_refused(views):
    counted = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    sampler = make_sampler(TeacherViews(**{**vars(views), "counted": counted}))
    with pytest.raises(InputError, match=r"none of [\d,]+ pixels .*expected views that show the scene.*masks"):
        sampler.draw(8, torch.Generator())


def test_the_pool_is_replaced_view_by_view():
    pool = PixelPool(3, 10, CPU)
    pool.set_frame(0, torch.tensor([0, 1, 0, 0, 0, 0, 0, 0, 0, 1]).bool())
    pool.set_frame(2, torch.tensor([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).bool())
    assert pool.count == 3
    assert pool.pixels(torch.arange(3)).tolist() == [1, 9, 23]
    pool.set_frame(0, torch.zeros(10, dtype=torch.bool))
    pool.set_frame(1, torch.ones(10, dtype=torch.bool))
    assert pool.pixels(torch.arange(pool.count)).tolist() == [*range(10, 20), 23]


@pytest.mark.parametrize("twin", ["numba", TRITON])
@pytest.mark.parametrize("random_background", [False, True])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("what", ["all", "opaque", "flat", "guided"])
def test_twins_draw_what_torch_draws(views, opaque_views, what, pooled, random_background, twin):
    given = {"opaque": opaque_views, "flat": TeacherViews(**{**vars(views), "distance": None})}.get(what, views)
    occupied = torch.zeros((4, 4, 4), dtype=torch.uint8)
    occupied[1:3, 1:3, 2:] = 1
    cells = Cells(BOX.lower, 0.5, occupied) if pooled else None
    reach = torch.rand(2, HEIGHT, WIDTH).half() * 3 if what == "guided" else None
    batches = []
    for implementation, device in (("torch", CPU), (twin, device_of(twin))):
        settings = dataclasses.replace(SETTINGS, implementation=implementation)
        sampler = RaySampler(given, Sampling(BOX, settings, GREY, random_background, device, cells), reach)
        if pooled:
            sampler.pool.set_frame(0, sampler.pool.table.new_zeros(HEIGHT * WIDTH).bool())  # a view without any
        batches.append(sampler.draw(300, torch.Generator().manual_seed(4)))
    expected, found = batches
    for name in ("rgb", "background", "coverage", "distance", "reach"):
        one, two = getattr(found, name), getattr(expected, name)
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one.cpu(), two, rtol=1e-6, atol=1e-6)
    for name in ("origins", "directions", "near", "far"):
        torch.testing.assert_close(getattr(found.rays, name).cpu(), getattr(expected.rays, name), rtol=1e-5, atol=1e-5)


def test_pixels_that_do_not_count_are_not_drawn(views):
    counted = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    counted[:, 2:4, 1:3] = True
    masked = TeacherViews(**{**vars(views), "counted": counted})
    frame, row, col = pixels_of(draw(make_sampler(masked)))
    assert set(row.tolist()) == {2, 3} and set(col.tolist()) == {1, 2} and not HOLDOUT[frame].any()
    assert len(set(zip(frame.tolist(), row.tolist(), col.tolist(), strict=True))) == 4 * int((~HOLDOUT).sum())


def test_pixels_beside_all_cells_are_not_drawn_though_nothing_guides_rays(tmp_path):
    """The block fills a third of each picture and an eighth of the box."""
    box = "data.box={lower: [-1, -1, -1], upper: [1, 1, 1]}"
    overrides = "teacher.kind=gaussians", "teacher.outputs=null", "render.sampling=occupancy", "occupancy.resolution=64"
    sampler = trainer_of(write_toy_scene(tmp_path), *overrides, box).step.sampler
    pixels = sampler.pool.pixels(torch.arange(sampler.pool.count))
    shown = (sampler.coverage.view(-1, sampler.pool.table.shape[1])[sampler.frames].flatten() > 0).nonzero()[:, 0]
    assert torch.isin(shown, pixels).all() and len(shown) < len(pixels) < 0.8 * sampler.pixels


def test_where_all_cells_may_hold_something_all_pixels_are_drawn(tmp_path):
    inside = "data.box={lower: [-0.4, -0.25, -0.3], upper: [0.4, 0.25, 0.3]}"
    overrides = "teacher.kind=gaussians", "teacher.outputs=null", "render.sampling=occupancy", inside
    assert trainer_of(write_toy_scene(tmp_path), *overrides).step.sampler.pool is None
