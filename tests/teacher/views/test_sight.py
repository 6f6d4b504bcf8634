"""What views see: the cells that show with their neighbours, and the reach of a pixel averaged from finer ones."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch

from scene.cells import CellGrid
from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.sight import depth_reach, sight_of_depth, sight_of_gaussians
from teacher.views.teacher_views import TeacherViews

GRID = CellGrid(SceneBox((-1, -1, -1), (1, 1, 1)), 16)
CELL = 1 / 8
LEAST = 0.02


@pytest.fixture
def wall() -> Gaussians:
    """A wall in the plane x = 0 of the upper half, and one Gaussian behind it at x = -0.8."""
    y, z = torch.meshgrid(torch.linspace(-0.9, 0.9, 37), torch.linspace(0.1, 0.9, 17), indexing="ij")
    means = torch.stack([torch.zeros_like(y), y, z], dim=-1).reshape(-1, 3)
    means = torch.cat([means, torch.tensor([[-0.8, 0.0, 0.5]])])
    count = len(means)
    turned = torch.tensor([1.0, 0, 0, 0]).expand(count, 4)
    return Gaussians(means, torch.full((count, 3), -3.0), turned, torch.full((count,), 5.0), torch.zeros(count, 1, 3))


@pytest.mark.parametrize("multiple", [1, 2])
def test_a_wall_hides_what_is_behind(wall, look_at, multiple) -> None:
    cameras = look_at([(3.0, 0.0, 0.5)], target=(0.0, 0.0, 0.5), width=24, height=24, focal=30.0)
    rasterizer = Rasterizer(wall, "cpu", threads=1, drawing=Drawing(supersample=multiple))
    sight = sight_of_gaussians(rasterizer, cameras, GRID, LEAST)
    planes = sight.cells.flatten(1).any(1).nonzero()[:, 0].tolist()
    assert set(planes) <= {6, 7, 8, 9} and {7, 8} <= set(planes)
    assert sight.reach.dtype == torch.float16 and sight.reach.shape == (1, 24, 24)
    # The middle ray meets the wall after 3 units; the margin is three cells.
    assert sight.reach[0, 12, 12].item() == pytest.approx(3 + 3 * CELL, abs=0.05)
    assert sight.reach[0, -1, 12] == torch.inf  # below the wall


@pytest.mark.parametrize(("multiple", "around"), [(1, 3), (4, 1)])
def test_cells_finer_than_pixels_are_seen_between_their_rays(wall, look_at, multiple, around) -> None:
    """A pixel is 0.1 wide there, 3.2 cells; drawn four times as finely it is 0.8 cells."""
    cameras = look_at([(3.0, 0.0, 0.5)], target=(0.0, 0.0, 0.5), width=24, height=24, focal=30.0)
    grid = CellGrid(SceneBox((-1, -0.95, -1.05), (1, 1.05, 0.95)), 64)
    drawing = Drawing(supersample=multiple)
    cells = sight_of_gaussians(Rasterizer(wall, "cpu", threads=1, drawing=drawing), cameras, grid, LEAST).cells
    before = cells[32 + around + 3]
    assert not before.any()  # in front of the wall nothing shows
    assert cells[31:33, 6:54, 38:60].all()  # all of the wall does


@pytest.mark.parametrize(("least_weight", "is_seen"), [(0.05, True), (0.15, False)])
def test_a_veil_that_weighs_too_little_in_every_pixel_is_left_out(wall, look_at, least_weight, is_seen) -> None:
    """Its alpha is 0.1 in the middle."""
    parts = [getattr(wall, field.name) for field in fields(wall)]
    veil = Gaussians(*(torch.cat([part, part[-1:]]) for part in parts))
    veil.means[-1] = torch.tensor([0.6, 0.0, 0.5])
    veil.opacity_logits[-1] = math.log(0.1 / 0.9)
    cameras = look_at([(3.0, 0.0, 0.5)], target=(0.0, 0.0, 0.5), width=25, height=25, focal=30.0)
    sight = sight_of_gaussians(Rasterizer(veil, "cpu", threads=1), cameras, GRID, least_weight)
    assert bool(sight.cells[11:14].any()) == is_seen and sight.cells[7:9].any()


def balls(means: list[tuple[float, float, float]], opacity: float) -> Gaussians:
    """Round Gaussians, 0.05 wide."""
    count, turned = len(means), torch.tensor([1.0, 0, 0, 0])
    opacities = torch.full((count,), opacity).logit()
    return Gaussians(
        torch.tensor(means),
        torch.full((count, 3), 0.05).log(),
        turned.expand(count, 4),
        opacities,
        torch.zeros(count, 1, 3),
    )


@pytest.mark.parametrize(("opacity", "reach"), [(0.85, 3.8), (0.92, 3.1)])
def test_a_ray_ends_where_a_hundredth_of_it_is_left(look_at, opacity, reach) -> None:
    """Two balls leave 0.15 ** 2 = 0.0225 or 0.08 ** 2 = 0.0064 of the middle ray to the third."""
    cameras = look_at([(3.0, 0.0, 0.0)], width=25, height=25, focal=200.0)
    gaussians = balls([(0.0, 0.0, 0.0), (-0.1, 0.0, 0.0), (-0.8, 0.0, 0.0)], opacity)
    sight = sight_of_gaussians(Rasterizer(gaussians, "cpu", threads=1), cameras, GRID, 0.0)
    assert sight.reach[0, 12, 12].item() == pytest.approx(reach + 3 * CELL, abs=0.01)


def test_a_pixel_ends_behind_the_farthest_of_its_finer_ones(look_at) -> None:
    """Of 2x2 whose rays are a quarter off the axis, and 1.125 ** 0.5 long at depth 1, one meets its balls at depth 2.4,
    three at depth 2.
    """
    cameras = look_at([(3.0, 0.0, 0.0)], width=1, height=1, focal=1.0)
    depths = {(-1, -1): 2.4, (-1, 1): 2.0, (1, -1): 2.0, (1, 1): 2.0}
    means = [(3 - depth, depth * y / 4, depth * z / 4) for (y, z), depth in depths.items()]
    gaussians = balls(2 * means, 0.95)
    drawing = Drawing(supersample=2)
    sight = sight_of_gaussians(Rasterizer(gaussians, "cpu", threads=1, drawing=drawing), cameras, GRID, LEAST)
    assert sight.reach[0, 0, 0].item() == pytest.approx(2.4 * 1.125**0.5 + 3 * CELL, abs=0.01)


def test_another_view_shows_what_the_first_does_not(wall, look_at) -> None:
    cameras = look_at([(3.0, 0.0, 0.5), (-3.0, 0.0, 0.5)], target=(0.0, 0.0, 0.5), width=24, height=24, focal=30.0)
    sight = sight_of_gaussians(Rasterizer(wall, "cpu", threads=1), cameras, GRID, LEAST, keep_reach=False)
    assert sight.cells[1, 8, 12] == 1 and sight.reach is None


@pytest.mark.parametrize(
    ("distance", "cell", "reach"),
    # Float16 steps by 2 from 2048 to 4096, by 1/32 from 32 to 64, by 2**-24 below 2**-14; from 65520 on it is infinite.
    [(3000.5, 0.01, 3002.0), (50.001, 0.003, 50.03125), (1e-6, 1e-8, 18 / 2**24), (7e4, 1.0, math.inf)],
)
def test_rays_end_behind_what_they_meet_however_coarse_float16_is_there(distance, cell, reach) -> None:
    found = depth_reach(torch.full((3, 3), distance), torch.full((3, 3), 255, dtype=torch.uint8), cell)
    assert found.dtype == torch.float16 and found[1, 1].item() == reach


def test_distances_bound_the_rays_of_even_surfaces_alone(look_at) -> None:
    cameras = look_at([(3.0, 0.0, 0.0)], width=8, height=8, focal=8.0)
    distance = torch.full((1, 8, 8), 2.0)
    distance[0, :, 5:] = 4.0  # an edge
    coverage = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    coverage[0, 0] = 128
    views = TeacherViews(
        cameras, ("a",), coverage[..., None].expand(-1, -1, -1, 3), coverage, coverage, distance, None, None,
        torch.zeros(1, dtype=torch.bool),
    )  # fmt: skip
    reach = sight_of_depth(views, [0], GRID).reach[0]
    assert reach[4, 2].item() == pytest.approx(2 + 3 * CELL, abs=2e-3)
    assert reach[4, 7].item() == pytest.approx(4 + 3 * CELL, abs=2e-3)
    assert (reach[:, 4:6] == torch.inf).all() and (reach[:2] == torch.inf).all()


def test_views_are_looked_at_side_by_side_as_far_as_memory_goes(wall, look_at, monkeypatch) -> None:
    asked = []

    def watched(load, count, most):
        asked.append(most)
        return map(load, range(count))

    monkeypatch.setattr("teacher.views.sight.parallel_map", watched)
    monkeypatch.setattr(Rasterizer, "views_at_a_time", lambda self: 3)
    cameras = look_at([(3.0, 0.0, 0.5)], width=12, height=8)
    sight_of_gaussians(Rasterizer(wall, "cpu", threads=1), cameras, GRID, LEAST)
    assert asked == [3]
