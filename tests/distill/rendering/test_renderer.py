"""A slab and a ball of constant density, whose transmittance is known, rendered and compared."""

import logging
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
    renders_fused,
)
from kernels import dispatch
from kernels.rendering import fused_render
from scene.rays import Rays, SceneBox, camera_rays, image_rays
from students.hash_grid import HashGridSettings, HashGridStudent
from students.kilo_uniform import KiloUniformSettings, KiloUniformStudent
from tests.triton_device import DEVICE, TRITON, device_of, needs_triton

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


def hash_grid():
    settings = HashGridSettings(
        levels=2, features=2, table_size=64, base_resolution=3, finest_resolution=9,
        hidden_width=16, density_layers=1, color_layers=1, geo_features=3, direction_degree=1,
    )  # fmt: skip
    student = HashGridStudent((BOX.lower, BOX.upper), settings)
    with torch.no_grad():
        student.table.uniform_(-1, 1)
        student.density_weights[-1][0] *= 6
    return student


def kilo_uniform():
    settings = KiloUniformSettings(
        grid=(1, 2, 1), frequencies=1, hidden_width=16, density_layers=1, color_layers=1,
        geo_features=3, direction_degree=1, blend=0.0,
    )  # fmt: skip
    student = KiloUniformStudent((BOX.lower, BOX.upper), settings)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    return student


@pytest.mark.parametrize("implementation", ["numba", TRITON])
@pytest.mark.parametrize("make", [hash_grid, kilo_uniform])
def test_fused_pictures_are_those_of_the_waves(make, implementation, look_at, monkeypatch):
    device = device_of(implementation)
    student, grid = make().to(device), make_grid()
    grid.bound_by_teacher((torch.rand(8, 8, 8) < 0.5).byte())
    grid, cameras = grid.to(device), look_at([(0.5, -0.4, 3.0)], width=9, height=7, focal=8.0).to(device)
    settings = replace(SETTINGS, step=0.4, picture_step=0.5, termination=1e-4)
    waves = picture_of(student, grid, cameras, 0, replace(settings, fused=False), BACKGROUND)
    assert waves.alpha.max() > 0.9 and (waves.alpha == 0).any()
    monkeypatch.setattr("distill.rendering.renderer._render_waves", None)
    fused = picture_of(student, grid, cameras, 0, replace(settings, implementation=implementation), BACKGROUND)
    assert (fused.rgb - waves.rgb).abs().max() < 1 / 2550
    assert (fused.alpha - waves.alpha).abs().max() < 1 / 2550
    solid = waves.alpha > 0.1
    assert (fused.distance - waves.distance)[solid].abs().max() < 0.01
    assert torch.equal(fused.distance == 0, waves.distance == 0)


@needs_triton
def test_a_student_the_fused_renderer_does_not_know_is_rendered_in_waves_and_that_is_said_once(
    field, look_at, caplog, monkeypatch
):
    monkeypatch.setattr("distill.rendering.renderer._told", set())
    student, cameras = (
        field(ball(), box=(BOX.lower, BOX.upper)).to(DEVICE),
        look_at([(0.0, -3.0, 0.0)], width=3, height=2).to(DEVICE),
    )
    settings = replace(SETTINGS, step=0.2, implementation="triton")
    with caplog.at_level(logging.WARNING):
        frames = [picture_of(student, make_grid().to(DEVICE), cameras, 0, settings, BACKGROUND) for _ in range(2)]
    assert [record.message for record in caplog.records if "waves" in record.message] == [
        "pictures are rendered in waves of samples, not by the fused renderer: it does not know this kind of student"
    ]
    waves = picture_of(student, make_grid().to(DEVICE), cameras, 0, replace(settings, fused=False), BACKGROUND)
    assert torch.equal(frames[0].rgb, waves.rgb) and student.batches
    with pytest.raises(ValueError, match="it does not know this kind of student"):
        picture_of(student, make_grid().to(DEVICE), cameras, 0, replace(settings, fused=True), BACKGROUND)


def test_on_a_gpu_pictures_are_fused_unless_the_kernels_or_the_config_are_others(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cuda, student = torch.device("cuda", 0), hash_grid()
    for module in (dispatch, fused_render):
        monkeypatch.setattr(module, "triton_refusal", lambda device: None)
    assert renders_fused(student, SETTINGS, cuda)
    assert not renders_fused(student, replace(SETTINGS, implementation="torch"), cuda)
    assert not renders_fused(student, replace(SETTINGS, fused=False), cuda)
    assert renders_fused(student, replace(SETTINGS, implementation="torch", fused=True), cuda)
    for module in (dispatch, fused_render):
        monkeypatch.setattr(module, "triton_refusal", lambda device: "no triton")
    assert not renders_fused(student, SETTINGS, cuda)
    with pytest.raises(ValueError, match="no triton"):
        renders_fused(student, replace(SETTINGS, fused=True), cuda)


def test_on_a_cpu_pictures_are_fused_unless_the_kernels_are_torchs(caplog):
    cpu = torch.device("cpu")
    assert renders_fused(hash_grid(), SETTINGS, cpu)
    assert not renders_fused(hash_grid(), replace(SETTINGS, implementation="torch"), cpu)
    assert renders_fused(hash_grid(), replace(SETTINGS, implementation="torch", fused=True), cpu)
    assert renders_fused(hash_grid(), replace(SETTINGS, precision="float16"), cpu)
    assert not caplog.records


def test_while_numba_renders_torch_keeps_off_the_cores(look_at, monkeypatch):
    """Its pool would wait for cores that numba's threads are on: three quarters of the frame rate."""
    before, seen = torch.get_num_threads(), []
    monkeypatch.setattr(
        "distill.rendering.renderer.camera_rays",
        lambda *arguments: seen.append(torch.get_num_threads()) or camera_rays(*arguments),
    )
    torch.set_num_threads(3)
    try:
        for implementation in ("numba", "torch"):
            settings = replace(SETTINGS, step=0.2, implementation=implementation)
            cameras = look_at([(0.0, -3.0, 0.0)], width=3, height=2)
            picture_of(hash_grid(), make_grid(), cameras, 0, settings, BACKGROUND)
        assert seen == [1, 3] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


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


def test_a_picture_step_is_of_pictures_alone(look_at):
    student, grid, cameras = hash_grid(), make_grid(), look_at([(0.5, -0.4, 3.0)])
    ways = [replace(SETTINGS, step=step, picture_step=part) for step, part in ((0.2, 0.5), (0.1, 1.0), (0.2, 1.0))]
    closer, fine, coarse = (picture_of(student, grid, cameras, 0, way, BACKGROUND).rgb for way in ways)
    assert torch.equal(closer, fine) and (closer - coarse).abs().max() > 0.01
    rays = clip_to_box(*image_rays(cameras, 0), BOX, SETTINGS)
    assert torch.equal(*(render_rays(student, grid, rays, way, seed=1).field.positions for way in ways[::2]))
