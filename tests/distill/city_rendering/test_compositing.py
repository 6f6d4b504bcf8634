"""Blocks of known density, and one student cut into blocks, composited front to back."""

from dataclasses import replace

import pytest
import torch

from distill.city_rendering.block_order import front_to_back
from distill.city_rendering.block_rays import BlockRenderer, lattice_step, training_segment
from distill.city_rendering.compositing import CityRenderer, CitySettings, composite_segments
from distill.model.model import Model
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import FrameRenderer, RenderSettings
from kernels.compositing import compositing
from kernels.compositing.compositing import composite
from scene.rays import Rays, SceneBox, image_rays, intersect_box
from students.hash_grid import HashGridSettings, HashGridStudent

BOX = SceneBox((-1, -1, -1), (1, 1, 1))
SETTINGS = RenderSettings(
    step=0.037, max_samples_per_ray=1000, termination=0.0, max_batch_samples=4096, near=0.05, far=100.0,
    implementation="torch",
)  # fmt: skip
CITY = CitySettings(SETTINGS.near, SETTINGS.far, 0.0, "torch")
QUARTERS = [
    SceneBox((low_x, low_y, -1), (high_x, high_y, 1))
    for low_x, high_x in ((-1.0, 0.13), (0.13, 1.0))
    for low_y, high_y in ((-1.0, -0.21), (-0.21, 1.0))
]
BACKGROUND = (1.0, 0.5, 0.0)


def grid_of(box=BOX, resolution=8):
    return OccupancyGrid(box, resolution, SETTINGS.step, threshold=0.01, decay=0.95)


def city(boxes, models, opened=None, settings=CITY):
    """A renderer of some blocks' students; ``opened`` is told which are asked for."""

    def open_block(index, view):
        if opened is not None:
            opened.append(index)
        return BlockRenderer(models[index])

    return CityRenderer(boxes, BOX, open_block, settings)


@pytest.fixture
def mottled():
    """A student of varied density and colour, in a box with empty cells."""
    settings = HashGridSettings(levels=4, table_size=4096, finest_resolution=32)
    student = HashGridStudent((BOX.lower, BOX.upper), settings, "torch")
    torch.nn.init.uniform_(student.table, -1.0, 1.0)
    grid = grid_of()
    grid.bound_by_teacher(torch.rand(grid.shape) < 0.7)
    return Model(student, grid, SETTINGS)


def broken_march(model, rays, boxes):
    """The rays through one field, its intervals broken at the faces of boxes, composited in one go."""
    step = lattice_step(SETTINGS.step)
    crossings = [intersect_box(rays.origins, rays.directions, box, SETTINGS.near, SETTINGS.far) for box in boxes]
    lattice = (torch.arange(200) * step).expand(len(rays), -1)
    breaks = torch.cat([lattice, *(edge[:, None] for pair in crossings for edge in pair)], dim=1)
    breaks = breaks.clamp(min=rays.near[:, None], max=rays.far[:, None]).sort(dim=1).values
    lengths = breaks.diff(dim=1)
    t = breaks[:, :-1] + 0.5 * lengths
    positions = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    live = (lengths > 0) & model.grid.occupied_at(positions.reshape(-1, 3)).view(t.shape)
    offsets = torch.nn.functional.pad(live.sum(1).cumsum(0), (1, 0))
    density, rgb = model.student(positions[live], rays.directions, live.nonzero()[:, 0])
    return composite(density, rgb, t[live], lengths[live], offsets, implementation="torch")


def test_blocks_of_constant_density_have_the_colour_computed_by_hand(field, look_at):
    """To rounding, though the step is a third of a block: the intervals are a partition of the ray."""
    halves = [SceneBox((-1, -1, -1), (0.1, 1, 1)), SceneBox((0.1, -1, -1), (1, 1, 1))]
    densities, colors = (0.8, 2.5), ((1.0, 0.25, 0.0), (0.0, 0.5, 1.0))
    models = [
        Model(field(lambda x, d=d: torch.full((len(x),), d), color), grid_of(box), replace(SETTINGS, step=0.37))
        for box, d, color in zip(halves, densities, colors, strict=True)
    ]
    cameras = look_at([(-3.0, 0.4, 0.3), (2.5, 1.5, 2.0)])
    for frame, order in enumerate(((0, 1), (1, 0))):
        picture = city(halves, models).render(cameras, frame, BACKGROUND)
        light, rgb = torch.ones(480), torch.zeros(480, 3)
        for index in order:
            near, far = intersect_box(*image_rays(cameras, frame), halves[index], SETTINGS.near, SETTINGS.far)
            alpha = 1 - torch.exp(-densities[index] * (far - near))
            rgb += (light * alpha)[:, None] * torch.tensor(colors[index])
            light = light * (1 - alpha)
        rgb += light[:, None] * torch.tensor(BACKGROUND)
        assert (picture.rgb.view(-1, 3) - rgb).abs().max() < 1e-5
        assert (picture.alpha.view(-1) - (1 - light)).abs().max() < 1e-5
        assert (1 - light).max() > 0.9


def test_a_student_cut_into_blocks_differs_from_the_whole_by_rounding(mottled, look_at):
    cameras = look_at([(2.2, 1.4, 1.1)])
    models = [mottled] * 4
    picture = city(QUARTERS, models).render(cameras, 0, (0.0, 0.0, 0.0))
    origins, directions = image_rays(cameras, 0)
    rays = Rays(origins, directions, *intersect_box(origins, directions, BOX, SETTINGS.near, SETTINGS.far))
    with torch.no_grad():
        whole = broken_march(mottled, rays, QUARTERS)
    assert (picture.rgb.view(-1, 3) - whole.rgb).abs().max() < 1e-5
    assert (picture.alpha.view(-1) - whole.alpha).abs().max() < 1e-5
    distance = torch.where(whole.alpha > 1e-4, whole.distance / whole.alpha.clamp(min=1e-4), 0.0)
    assert (picture.distance.view(-1) - distance).abs().max() < 1e-5
    unbroken = FrameRenderer(mottled.student, mottled.grid, SETTINGS).render(cameras, 0, (0.0, 0.0, 0.0))
    assert (picture.rgb - unbroken.rgb).square().mean().sqrt() < 1e-2  # other places of samples
    assert whole.alpha.std() > 0.1


def test_the_gradient_of_blocks_is_that_of_the_whole(mottled, look_at):
    origins, directions = image_rays(look_at([(2.2, 1.4, 1.1)]), 0)
    rays = Rays(origins, directions, *intersect_box(origins, directions, BOX, SETTINGS.near, SETTINGS.far))
    pull = torch.randn(len(rays), 5)

    def gradients(planes):
        value = (torch.cat([planes[0], planes[1][:, None], planes[2][:, None]], dim=1) * pull).sum()
        return torch.autograd.grad(value, list(mottled.student.parameters()))

    # One eye: the order of all rays is one.
    order = front_to_back(QUARTERS, tuple(origins[0].tolist()))
    segments = []
    for index in order:
        near, far = intersect_box(origins, directions, QUARTERS[index], SETTINGS.near, SETTINGS.far)
        segments.append(training_segment(mottled, Rays(origins, directions, near, far), None)[0])
    for cut, whole in zip(
        gradients(composite_segments(segments)), gradients(broken_march(mottled, rays, QUARTERS)), strict=True
    ):
        assert (cut - whole).abs().max() < 1e-4 * whole.abs().max()


@pytest.mark.parametrize("kernels", ["torch", "numba"])
def test_the_kernels_that_were_asked_for_finish_a_picture(mottled, look_at, monkeypatch, kernels):
    finished = []

    def finish(*planes, implementation):
        finished.append(implementation)
        return compositing.finish(*planes, implementation=implementation)

    monkeypatch.setattr("distill.rendering.renderer.finish", finish)
    cameras = look_at([(2.2, 1.4, 1.1)])
    picture = city(QUARTERS, [mottled] * 4, settings=replace(CITY, implementation=kernels))
    expected = city(QUARTERS, [mottled] * 4).render(cameras, 0, BACKGROUND)
    finished.clear()
    for found, plane in zip(picture.render(cameras, 0, BACKGROUND), expected, strict=True):
        torch.testing.assert_close(found, plane)
    assert finished == [kernels]


def test_random_places_take_as_much_of_a_ray_as_middles(field):
    """The mean over rays of a linear density's thickness, to the error of the mean."""
    model = Model(field(lambda x: 1 + x[:, 0]), grid_of(), SETTINGS)
    origins, directions = (torch.tensor(row).expand(200, 3) for row in ((-3.0, 0.2, 0.1), (1.0, 0.0, 0.0)))
    rays = Rays(origins, directions, torch.full((200,), 2.11), torch.full((200,), 3.3))
    alpha = training_segment(model, rays, 7)[0].alpha
    thickness = -torch.log1p(-alpha.double())
    length, middle = 1.19, 1 - 0.295
    assert abs(thickness.mean() - length * middle) < 4 * thickness.std() / 200**0.5
    assert thickness.std() > 0


def test_blocks_behind_an_opaque_one_and_beside_the_picture_are_not_opened(field, look_at):
    models = [Model(field(lambda x: torch.full((len(x),), 500.0)), grid_of(box), SETTINGS) for box in QUARTERS]
    opened = []
    renderer = city(QUARTERS, models, opened, replace(CITY, termination=1e-3))
    # From +x, all of the picture within the face of block 3 (x > 0.13, y > -0.21).
    picture = renderer.render(look_at([(3.0, 0.4, 0.0)], (0.0, 0.4, 0.0), focal=120.0), 0, BACKGROUND)
    assert opened == [3]
    assert picture.alpha.min() == 1
    renderer.render(look_at([(3.0, 0.4, 0.0)], (6.0, 0.4, 0.0)), 0, BACKGROUND)
    assert opened == [3]


def test_a_city_s_supersampled_pixels_are_means_of_rays_through_all_blocks(mottled, look_at):
    cameras = look_at([(0.3, -0.4, 3.0), (2.0, 1.0, 2.0)], focal=60.0)
    models = [mottled] * len(QUARTERS)
    fine = city(QUARTERS, models).render(cameras.finer(2), 1, BACKGROUND)
    coarse = city(QUARTERS, models, settings=replace(CITY, supersample=2)).render(cameras, 1, BACKGROUND)
    torch.testing.assert_close(coarse.rgb, fine.rgb.view(20, 2, 24, 2, 3).mean((1, 3)), atol=1e-6, rtol=0)
    assert 0.05 < coarse.alpha.mean() < 1


def test_samples_of_a_blocks_pictures_are_closer_than_those_of_training(mottled, look_at):
    halved = replace(mottled, settings=replace(SETTINGS, step=0.08, picture_step=0.5))
    fine = replace(mottled, settings=replace(SETTINGS, step=0.04))
    interval = torch.full((30,), 1.9), torch.full((30,), 3.7)
    rays = Rays(*image_rays(look_at([(0.3, -0.4, 3.0)], width=6, height=5), 0), *interval)
    one, two = (BlockRenderer(model).segment(rays, 6) for model in (halved, fine))
    assert one.alpha.max() > 0.1 and torch.equal(one.rgb, two.rgb)
    other, _ = training_segment(halved, rays, None)
    assert (other.rgb - one.rgb).abs().max() > 1e-3
