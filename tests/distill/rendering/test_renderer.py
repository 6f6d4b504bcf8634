"""A slab and a ball of constant density, whose transmittance is known, rendered and compared."""

import math
from dataclasses import replace

import pytest
import torch

from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import (
    LEAST_SHARE,
    FrameRenderer,
    RenderSettings,
    clip_to_box,
    render_rays,
)
from scene.rays import Rays, SceneBox, image_rays
from settings.rendering import MOST_SAMPLES

BOX = SceneBox((-1, -1, -1), (1, 1, 1))
COLOR = torch.tensor([0.25, 0.5, 1.0])
SETTINGS = RenderSettings(
    step=0.01, max_samples_per_ray=1000, termination=0.0, max_batch_samples=4096, near=0.05, far=100.0
)
BACKGROUND = (1.0, 0.5, 0.0)


def picture_of(student, grid, cameras, frame, settings, background):
    return FrameRenderer(student, grid, settings).render(cameras, frame, background)


def slab(density=3.0):
    """|z| < 1/2."""
    return lambda positions: density * (positions[:, 2].abs() < 0.5)


def ball(density=3.0):
    """Radius 0.6."""
    return lambda positions: density * (positions.norm(dim=1) < 0.6)


def make_grid(resolution=8):
    return OccupancyGrid(BOX, resolution, SETTINGS.step, threshold=0.01, decay=0.95)


def chord_of_slab(origins, directions):
    """Entry and length; only for rays whose way through it lies in the box."""
    entry = (0.5 - origins[:, 2]) / directions[:, 2]
    return entry, 1 / directions[:, 2].abs()


def chord_of_ball(origins, directions):
    middle = -(origins * directions).sum(1)
    half = (0.36 - (origins + middle[:, None] * directions).square().sum(1)).clamp(min=0).sqrt()
    return middle - half, 2 * half


def test_pictures_have_steps_of_their_own_and_samples_for_rays_as_long():
    fine = replace(SETTINGS, step=0.1, max_samples_per_ray=99, picture_step=0.4).of_pictures()
    assert (fine.step, fine.max_samples_per_ray, fine.picture_step) == (pytest.approx(0.04), 248, 1.0)
    assert replace(SETTINGS, max_samples_per_ray=MOST_SAMPLES, picture_step=0.5).of_pictures().max_samples_per_ray == (
        MOST_SAMPLES
    )


def test_samples_of_less_than_a_fiftieth_of_the_mean_weight_are_not_taught(field):
    """Of four samples, together opaque, the mean weighs 0.25: the first has 0.05 of that, the second 0.01."""
    density = torch.tensor([0.02516, 0.00507, 2.0, 40.0], requires_grad=True)
    student = field(lambda positions: density)
    rays = Rays(torch.tensor([[0.1, 0.1, -3.0]]), torch.eye(3)[2:], torch.tensor([2.0]), torch.tensor([4.0]))
    rendered = render_rays(student, make_grid(), rays, replace(SETTINGS, step=0.5), seed=0)
    assert rendered.composite.weights.tolist() == pytest.approx([0.0125, 0.0025, 0.622, 0.362], rel=0.02)
    rendered.composite.distance.sum().backward()
    assert density.grad.ne(0).tolist() == [True, False, True, True]


def test_padding_is_no_sample(field):
    rays = Rays(torch.tensor([[0.1, 0.1, -3.0]]), torch.eye(3)[2:], torch.tensor([2.0]), torch.tensor([4.0]))
    rendered = render_rays(field(ball()), make_grid(), rays, replace(SETTINGS, step=0.5), seed=0, capacity=7)
    assert rendered.field.real.tolist() == [True] * 4 + [False] * 3 and rendered.samples == 4


@pytest.mark.parametrize(("shape", "chord"), [(slab, chord_of_slab), (ball, chord_of_ball)])
def test_constant_density_has_the_analytic_transmittance_and_distance(field, look_at, shape, chord):
    cameras = look_at([(0.3, -0.4, 3.0)], focal=60.0)
    sigma = 3.0
    frame = picture_of(field(shape(sigma)), make_grid(), cameras, 0, SETTINGS, BACKGROUND)
    entry, length = (part.view(20, 24) for part in chord(*image_rays(cameras, 0)))
    alpha = 1 - torch.exp(-sigma * length)
    # Each end of the chord is off by at most half a step.
    assert (frame.alpha - alpha).abs().max() < sigma * 0.01 * 1.01
    expected = alpha[..., None] * COLOR + (1 - alpha)[..., None] * torch.tensor(BACKGROUND)
    assert (frame.rgb - expected).abs().max() < sigma * 0.01 * 1.01
    # Mean of the exponential distribution cut off at the chord's length.
    mean = entry + 1 / sigma - length * (1 - alpha) / alpha
    solid = length > 0.2
    assert (frame.distance - mean)[solid].abs().max() < 0.01
    assert solid.float().mean() > 0.4
    assert frame.rgb.shape == (20, 24, 3)


def test_missed_rays_give_exactly_the_background(field, look_at):
    student = field(ball())
    away = look_at([(0.0, -3.0, 0.0)], target=(0.0, -9.0, 0.0))
    frame = picture_of(student, make_grid(), away, 0, SETTINGS, (0.1, 0.7, 0.3))
    assert torch.equal(frame.rgb, torch.tensor([0.1, 0.7, 0.3]).expand(20, 24, 3))
    assert not frame.alpha.any()
    assert not frame.distance.any()
    assert student.batches == []


def test_empty_cells_are_never_asked_about(field, look_at):
    grid, student = make_grid(), field(lambda positions: torch.full((len(positions),), 50.0))
    mask = torch.zeros(8, 8, 8, dtype=torch.uint8)
    mask[4:] = 1
    grid.bound_by_teacher(mask)
    frame = picture_of(student, grid, look_at([(0.0, -4.0, 0.0)]), 0, SETTINGS, (0.0, 0.0, 0.0))
    assert (frame.alpha[:, 12:][4:-4, :4] > 0.99).all()  # x > 0 is on the right
    assert not frame.alpha[:, :12].any()


def test_the_batch_size_bounds_memory_and_leaves_the_picture(field, look_at):
    cameras, frames, most = look_at([(1.0, -3.0, 1.0)], width=40, height=40), [], []
    for batch in (64, 1000, 10**9):
        student = field(ball())
        settings = replace(SETTINGS, max_batch_samples=batch)
        frames.append(picture_of(student, make_grid(), cameras, 0, settings, BACKGROUND))
        most.append(max(student.batches))
        assert max(student.batches) <= batch
    assert most[0] < most[1] < most[2]
    for frame in frames[1:]:
        assert all(torch.equal(one, other) for one, other in zip(frames[0], frame, strict=True))


@pytest.mark.parametrize("termination", [0.1, 1e-3])
def test_early_termination_stays_within_its_threshold(field, look_at, termination):
    cameras = look_at([(1.0, -3.0, 1.0)])
    whole, early = (field(lambda positions: torch.full((len(positions),), 20.0)) for _ in range(2))
    exact = picture_of(whole, make_grid(), cameras, 0, SETTINGS, BACKGROUND)
    short = picture_of(early, make_grid(), cameras, 0, replace(SETTINGS, termination=termination), BACKGROUND)
    assert (exact.rgb - short.rgb).abs().max() <= termination
    assert (exact.alpha - short.alpha).abs().max() <= termination
    # An ended ray is opaque, and its colour is that of what it met, without any of the background.
    ended = 1 - exact.alpha < termination / 2
    assert ended.any() and (short.alpha[ended] - 1).abs().max() < 1e-6
    assert torch.allclose(short.rgb[ended], early.color.expand(int(ended.sum()), 3), atol=1e-6)
    assert sum(early.batches) < 0.6 * sum(whole.batches)


@pytest.mark.parametrize("most", [5, 8, 21])
def test_the_sample_limit_of_a_ray_holds_in_evaluation_and_training(field, look_at, most):
    settings = replace(SETTINGS, max_samples_per_ray=most)
    cameras = look_at([(0.0, -3.0, 0.0)], width=3, height=3)
    student = field(lambda positions: torch.full((len(positions),), 2.0))
    frame = picture_of(student, make_grid(), cameras, 0, settings, BACKGROUND)
    expected = 1 - math.exp(-2.0 * 0.01 * most)
    assert frame.alpha.flatten().tolist() == pytest.approx([expected] * 9, abs=1e-5)
    rays = clip_to_box(*image_rays(cameras, 0), BOX, settings)
    rendered = render_rays(student, make_grid(), rays, settings, seed=1)
    assert rendered.samples == 9 * most
    assert rendered.composite.alpha.tolist() == pytest.approx([expected] * 9, abs=1e-5)


def test_a_camera_inside_the_box_sees_what_is_in_front_of_it(field, look_at):
    cameras = look_at([(0.0, 0.0, 0.0)], target=(0.0, 1.0, 0.0), width=1, height=1)
    student = field(lambda positions: torch.full((len(positions),), 2.0))
    alpha = picture_of(student, make_grid(), cameras, 0, SETTINGS, BACKGROUND).alpha.item()
    assert alpha == pytest.approx(1 - math.exp(-2.0 * (1 - 0.05)), abs=0.01)  # from near to the wall


def test_clip_to_box_intersects_the_configured_range():
    settings = replace(SETTINGS, near=2.5, far=3.25)
    rays = clip_to_box(torch.tensor([[0.0, 0, 3], [5, 0, 3]]), torch.tensor([[0.0, 0, -1], [0, 0, -1]]), BOX, settings)
    assert rays.near.tolist() == [2.5, 2.5]
    assert rays.far.tolist() == [3.25, 2.5]


def test_training_rays_are_a_function_of_the_seed(field, look_at):
    rays = clip_to_box(*image_rays(look_at([(0.3, -0.4, 3.0)]), 0), BOX, SETTINGS)
    student = field(ball())
    first, again, other = (render_rays(student, make_grid(), rays, SETTINGS, seed).composite for seed in (3, 3, 4))
    assert torch.equal(first.rgb, again.rgb)
    assert not torch.equal(first.rgb, other.rgb)
    _, length = chord_of_ball(rays.origins, rays.directions)
    assert (first.alpha - (1 - torch.exp(-3.0 * length))).abs().max() < 3.0 * 0.02 * 1.01
    assert first.alpha.mean() == pytest.approx((1 - torch.exp(-3.0 * length)).mean().item(), abs=2e-3)


def test_training_rays_are_differentiable_and_survive_a_batch_without_samples(field):
    scale = torch.tensor(1.0, requires_grad=True)
    student = field(lambda positions: scale * torch.ones(len(positions)))
    down = torch.tensor([[0.0, 0, -1]])
    hit = clip_to_box(torch.tensor([[0.0, 0, 3]]), down, BOX, SETTINGS)
    render_rays(student, make_grid(), hit, SETTINGS, 0).composite.alpha.sum().backward()
    assert scale.grad.item() == pytest.approx(2 * math.exp(-2.0), rel=0.01)  # d/ds (1 - exp(-2 s))

    scale.grad = None
    missed = clip_to_box(torch.tensor([[5.0, 0, 3]]), down, BOX, SETTINGS)
    rendered = render_rays(student, make_grid(), missed, SETTINGS, 0)
    assert rendered.samples == 0
    assert rendered.composite.rgb.tolist() == [[0, 0, 0]]
    (rendered.composite.rgb.sum() + rendered.composite.alpha.sum()).backward()
    assert scale.grad.item() == 0


def test_rays_teach_no_sample_of_little_weight_and_other_losses_all(field, look_at):
    rays = clip_to_box(*image_rays(look_at([(0.3, -0.4, 3.0)]), 0), BOX, SETTINGS)
    scale = torch.tensor(1.0, requires_grad=True)
    student = field(lambda positions: scale * ball(200.0)(positions))
    rendered = render_rays(student, make_grid(), rays, SETTINGS, 3)
    density, counts = rendered.field.density, rendered.field.ray_index.bincount(minlength=len(rays))
    mean = torch.repeat_interleave(rendered.composite.alpha / counts, counts)
    little = rendered.composite.weights < LEAST_SHARE * mean
    inside = density > 0
    assert (little & inside).sum() > 0.5 * inside.sum()  # behind the surface
    composite = rendered.composite
    seen = composite.rgb.sum() + composite.alpha.sum() + composite.distance.sum()
    (taught,) = torch.autograd.grad(seen, density, retain_graph=True)
    assert not taught[little].any() and (taught[~little] != 0).any()
    (taught,) = torch.autograd.grad(seen + density.sum(), density)
    assert (taught[little] == 1).all()


def test_rays_teach_the_samples_of_nearly_empty_space_however_fine_the_steps(field, look_at):
    """As a student is at first: a sample weighs a hundredth of a grey level, and must be able to grow."""
    rays = clip_to_box(*image_rays(look_at([(0.3, -0.4, 3.0)]), 0), BOX, SETTINGS)
    scale = torch.tensor(1.0, requires_grad=True)
    student = field(lambda positions: scale * ball(0.02)(positions))
    rendered = render_rays(student, make_grid(), rays, replace(SETTINGS, step=0.002, max_samples_per_ray=4000), 3)
    density, weights = rendered.field.density, rendered.composite.weights
    inside = density > 0
    assert inside.sum() > 500 and weights.max() < 1e-4
    (taught,) = torch.autograd.grad(rendered.composite.alpha.sum(), density)
    assert (taught[inside] != 0).all()


def test_no_rays_at_all(field):
    empty = torch.zeros(0, 3)
    rays = Rays(empty, empty, torch.zeros(0), torch.zeros(0))
    rendered = render_rays(field(ball()), make_grid(), rays, SETTINGS, 0)
    assert rendered.samples == 0
    assert rendered.composite.rgb.shape == (0, 3)


def test_a_supersampled_pixel_is_the_mean_of_its_rays(field, look_at):
    cameras, student = look_at([(0.3, -0.4, 3.0), (2.0, 1.0, 2.0)], focal=60.0), field(ball())
    fine = picture_of(student, make_grid(), cameras.finer(2), 1, SETTINGS, BACKGROUND)
    coarse = picture_of(student, make_grid(), cameras, 1, replace(SETTINGS, supersample=2), BACKGROUND)
    blocks = [plane.view(20, 2, 24, 2, -1).permute(0, 2, 1, 3, 4).reshape(20, 24, 4, -1) for plane in fine]
    torch.testing.assert_close(coarse.rgb, blocks[0].mean(2))
    torch.testing.assert_close(coarse.alpha, blocks[1].mean(2)[..., 0])
    # A pixel at the ball's edge: of its four rays those that miss have no say in how far away it is.
    weights = blocks[1] / blocks[1].sum(2, keepdim=True).clamp(min=1e-9)
    torch.testing.assert_close(coarse.distance, (weights * blocks[2]).sum(2)[..., 0])
    edge = (blocks[1].amin(2) == 0) & (blocks[1].amax(2) > 0)
    assert edge.any() and (coarse.distance[edge[..., 0]] > 1).all()
