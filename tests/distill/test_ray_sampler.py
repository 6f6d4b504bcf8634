import pytest
import torch

from distill.ray_sampler import RaySampler
from distill.renderer import RenderSettings
from scene.errors import InputError
from scene.rays import SceneBox, pixel_rays
from teacher.views import TeacherViews

CPU = torch.device("cpu")
BOX = SceneBox((-1, -1, -1), (1, 1, 1))
SETTINGS = RenderSettings(0.01, 100, 0.0, 1024, near=0.1, far=50.0)
FRAMES, HEIGHT, WIDTH = 4, 5, 7
HOLDOUT = torch.tensor([True, False, True, False])
GREY = (0.2, 0.4, 0.6)


@pytest.fixture
def views(look_at):
    """Random colours and alpha; the distance of a pixel is its number plus 1, by which it is found again."""
    cameras = look_at([(3.0, 0, 0), (0, 3, 0), (0, 0, 3), (-3, 0, 1)], width=WIDTH, height=HEIGHT, focal=9.0)
    shape = (FRAMES, HEIGHT, WIDTH)
    alpha = torch.randint(256, shape, dtype=torch.uint8)
    return TeacherViews(
        cameras=cameras,
        names=tuple("abcd"),
        rgb=torch.randint(256, (*shape, 3), dtype=torch.uint8),
        alpha=alpha,
        coverage=alpha,
        distance=torch.arange(1.0, 1 + alpha.numel()).view(shape),
        background=None,
        ground_truth=None,
        holdout=HOLDOUT,
    )


@pytest.fixture
def opaque_views(views):
    """Without alpha, rendered on grey."""
    return TeacherViews(**{**vars(views), "alpha": None, "background": GREY})


def make_sampler(views, background=(1.0, 1.0, 1.0), random_background=False):
    return RaySampler(views, BOX, SETTINGS, background, random_background, CPU)


def draw(sampler, count=500, seed=0):
    return sampler.draw(count, torch.Generator().manual_seed(seed))


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
