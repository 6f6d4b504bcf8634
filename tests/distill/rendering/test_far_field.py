"""What is outside the box: known media, whose pictures do not depend on where the box ends."""

import math

import pytest
import torch

from distill.rendering.far_field import CUBE, Around, FarField, Segment
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import FrameRenderer, RenderSettings
from kernels.marching.contraction import expand, radius_of
from scene.rays import Rays, SceneBox, intersect_box
from settings.far_field import FarFieldConfig
from settings.rendering import OccupancyConfig

SMALL, LARGE = (SceneBox((-side,) * 3, (side,) * 3) for side in (1, 3))
SETTINGS = RenderSettings(
    step=0.01, max_samples_per_ray=2000, termination=0.0, max_batch_samples=1 << 20, near=0.05, far=20.0
)
TINY = {"levels": 1, "table_size": 8, "occupancy_resolution": 8, "hidden_width": 8}


def far_field_of(field, density, box=SMALL, step=0.01, reach=8.0):
    """A far field of a known density: a function of the place in the world, 1 / world unit."""
    far = FarField(box, FarFieldConfig(kind="contracted", step=step, reach=reach, **TINY), OccupancyConfig())
    middle = torch.tensor(far.middle)

    def relative(contracted):
        offsets = expand(contracted)
        return density(middle + far.half * offsets) * far.half * radius_of(offsets)[:, 0]

    far.field = field(relative, box=(CUBE.lower, CUBE.upper))
    return far


def ball(positions):
    """Fog of radius 2.2 about (0.3, 0, 0)."""
    return 0.8 * ((positions - torch.tensor([0.3, 0, 0])).norm(dim=1) < 2.2)


def test_parts_are_composited_front_to_back():
    def part(rgb, alpha, distance):
        return Segment(torch.tensor([[rgb] * 3]), torch.tensor([alpha]), torch.tensor([distance]))

    whole = Around(part(0.1, 0.2, 0.4), part(0.3, 0.5, 9.0), 0).composite(part(0.25, 0.5, 2.0))
    # 0.8 of the light reaches the box, 0.4 what is behind it.
    assert whole.rgb[0].tolist() == pytest.approx([0.1 + 0.8 * 0.25 + 0.4 * 0.3] * 3)
    assert whole.alpha.item() == pytest.approx(1 - 0.8 * 0.5 * 0.5)
    assert whole.distance.item() == pytest.approx(0.4 + 0.8 * 2.0 + 0.4 * 9.0)


def test_a_density_of_one_over_the_distance_thins_by_its_logarithm(field):
    far = far_field_of(field, lambda positions: 0.7 / positions.abs().amax(1))
    origins, directions = torch.tensor([[-5.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    rays = Rays(origins, directions, *intersect_box(origins, directions, SMALL, 0.0, 15.0))
    around = far.render(rays, 0.0, 15.0)
    # From x = -5 to -1, and from 1 to 10.
    assert around.before.alpha.item() == pytest.approx(1 - 5**-0.7, abs=5e-3)
    assert around.behind.alpha.item() == pytest.approx(1 - 10**-0.7, abs=5e-3)
    closed = far.render(rays, 0.0, 15.0, torch.tensor([5.5]))
    assert not closed.behind.alpha.any() and torch.equal(closed.before.alpha, around.before.alpha)


@pytest.mark.parametrize("position", [(0.5, -6.0, 2.0), (0.2, 0.1, -0.3)], ids=["outside", "inside"])
def test_a_scene_split_at_a_box_looks_like_the_whole(field, look_at, position):
    cameras = look_at([position], target=(0.0, 0.5, 0.0), focal=16.0)
    pictures = []
    for box, far in ((LARGE, None), (SMALL, far_field_of(field, ball))):
        grid = OccupancyGrid(box, 8, SETTINGS.step, threshold=0.01, decay=0.95)
        pictures.append(FrameRenderer(field(ball), grid, SETTINGS, far).render(cameras, 0, (1.0, 0.5, 0.0)))
    whole, split = pictures
    assert 0.1 < whole.alpha.mean() < 0.9 and whole.alpha.std() > 0.01
    for expected, found in zip(whole, split, strict=True):
        assert (expected - found).abs().max() < 0.03


def test_where_a_picture_is_opaque_nothing_is_looked_for_behind(field):
    far = far_field_of(field, lambda positions: torch.ones(len(positions)))
    rays = Rays(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([0.0]), torch.tensor([1.0]))
    inside = Segment(torch.full((1, 3), 0.4), torch.tensor([0.999]), torch.tensor([0.6]))
    for found, expected in zip(far.render_around(inside, rays, 0.0, 50.0, termination=0.01), inside, strict=True):
        assert torch.equal(found, expected)
    assert far.render_around(inside, rays, 0.0, 50.0, termination=0.0).alpha > inside.alpha


def test_training_looks_behind_a_box_that_lets_light_through(field):
    far = far_field_of(field, lambda positions: torch.ones(len(positions)))
    rays = Rays(torch.zeros(2, 3), torch.eye(3)[:2], torch.zeros(2), torch.ones(2))
    inside = Segment(torch.full((2, 3), 0.4), torch.tensor([0.9, 0.9995]), torch.full((2,), 0.6))
    whole, samples = far.render_training(inside, rays, 0.0, 50.0, None, seed=1)
    assert samples > 0 and whole.alpha[0] > 0.99 and whole.alpha[1] == inside.alpha[1]


def test_a_ray_that_would_pass_the_box_beyond_its_end_is_cut_there(field):
    far = far_field_of(field, lambda positions: 5.0 * (positions[:, 0] > -9.9))
    rays = Rays(torch.tensor([[-30.0, 5.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.zeros(1), torch.zeros(1))
    for farthest, is_met in ((20.0, False), (21.0, True)):
        around = far.render(rays, 0.0, farthest)
        assert bool(around.before.alpha > 0) == is_met and not around.behind.alpha.any()


def test_a_ray_of_a_picture_goes_on_to_its_end_in_a_new_wave(field):
    """The first wave's 24 bins end 1.1**24 - 1 = 8.85 behind the box; the next one's sample is 0.49 farther."""
    far = far_field_of(field, lambda positions: 5.0 * (positions[:, 0] > 10.0), step=0.1)
    rays = Rays(torch.zeros(1, 3), torch.eye(3)[:1], torch.zeros(1), torch.ones(1))
    nothing = Segment(torch.zeros(1, 3), torch.zeros(1), torch.zeros(1))
    for farthest, is_met in ((10.3, False), (10.7, True)):
        assert bool(far.render_around(nothing, rays, 0.0, farthest, termination=0.0).alpha > 0) == is_met


def test_cells_outside_are_empty_below_a_density_of_one_by_the_distance():
    far = FarField(SMALL, FarFieldConfig(kind="contracted", **TINY), OccupancyConfig(threshold=0.01))
    assert far.grid.density_threshold == pytest.approx(-math.log(0.99) / 0.01)


def test_the_field_is_asked_as_far_as_it_reaches(field):
    far = far_field_of(field, lambda positions: torch.ones(len(positions)), reach=2.0)
    assert far.edges[-2] < 4.0 <= far.edges[-1]  # two sides of the box
    assert len(far.edges) == 2 + math.floor(math.log(5.0) / math.log(1.01))


def test_where_nothing_is_outside_rays_stay_as_they_are():
    far = FarField(SMALL, FarFieldConfig(kind="contracted", **TINY), OccupancyConfig())
    far.grid.bound_by_teacher(torch.zeros(far.grid.shape, dtype=torch.uint8))
    far.grid.refresh(far.field, torch.Generator())
    rays = Rays(torch.zeros(2, 3), torch.eye(3)[:2], torch.zeros(2), torch.ones(2))
    inside = Segment(torch.rand(2, 3, requires_grad=True), torch.tensor([0.3, 1.0]), torch.rand(2))
    whole, samples = far.render_training(inside, rays, 0.0, 50.0, None, seed=1)
    whole.rgb.sum().backward()
    assert samples == 0
    for found, expected in zip(whole, inside, strict=True):
        assert torch.equal(found, expected)
