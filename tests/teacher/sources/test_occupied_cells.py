"""Carving blocks by what synthetic cameras see of them: nothing of the blocks may be lost, most of the rest goes."""

import math

import pytest
import torch

from scene.cells import CellGrid
from scene.rays import SceneBox, image_rays, intersect_box, project
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing
from teacher.sources.occupied_cells import (
    cells_of_gaussians,
    cells_of_views,
    drawn_wider_by,
    opacity_scale,
    statistics_of_gaussians,
)
from teacher.views.teacher_views import TeacherViews

BOX = SceneBox((-1, -1, -1), (1, 1, 1))
BLOCK = (SceneBox((-0.35, -0.52, -0.6), (0.13, 0.4, 0.27)),)
# A floor and four walls around a pit that is open at the top.
PIT = (
    SceneBox((-0.6, -0.6, -0.5), (0.6, 0.6, -0.3)),
    SceneBox((-0.6, -0.6, -0.5), (-0.45, 0.6, 0.2)),
    SceneBox((0.45, -0.6, -0.5), (0.6, 0.6, 0.2)),
    SceneBox((-0.6, -0.6, -0.5), (0.6, -0.45, 0.2)),
    SceneBox((-0.6, 0.45, -0.5), (0.6, 0.6, 0.2)),
)


def make_grid(resolution=16):
    return CellGrid(BOX, resolution)


def orbit(count=14, distance=3.5, lowest=-0.7):
    """Positions spread evenly over the sphere above the height ``lowest`` (of -1 to 1)."""
    heights = torch.linspace(lowest, 0.95, count)
    angles = torch.arange(count) * math.pi * (3 - math.sqrt(5))
    radii = (1 - heights**2).sqrt()
    return (distance * torch.stack([radii * angles.cos(), radii * angles.sin(), heights], dim=1)).tolist()


def views_of(blocks, cameras, depth=False, holdout=()):
    """What cameras see of opaque blocks, one ray per pixel."""
    coverage, distance = [], []
    for frame in range(len(cameras)):
        spans = [intersect_box(*image_rays(cameras, frame), block, 0.0, 100.0) for block in blocks]
        hits = torch.stack([torch.where(far > near, near, torch.inf) for near, far in spans]).amin(0)
        hits = hits.view(cameras.height, cameras.width)
        coverage.append((hits < torch.inf).to(torch.uint8) * 255)
        distance.append(torch.where(hits < torch.inf, hits, 0.0))
    coverage = torch.stack(coverage)
    return TeacherViews(
        cameras=cameras,
        names=tuple(map(str, range(len(cameras)))),
        rgb=coverage[..., None].expand(-1, -1, -1, 3),
        alpha=coverage,
        coverage=coverage,
        distance=torch.stack(distance) if depth else None,
        background=None,
        ground_truth=None,
        holdout=torch.tensor([frame in holdout for frame in range(len(cameras))]),
    )


def cells_of_blocks(blocks, grid):
    """(X, Y, Z) bool: cells that overlap a block."""
    cells = torch.zeros(grid.shape, dtype=torch.bool)
    for block in blocks:
        first, last = (
            [(value - low) / grid.cell_size for value, low in zip(corner, grid.box.lower, strict=True)]
            for corner in (block.lower, block.upper)
        )
        cells[tuple(slice(math.floor(a), math.ceil(b)) for a, b in zip(first, last, strict=True))] = True
    return cells


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize(
    "camera",
    [
        {"width": 48, "height": 48, "focal": 60.0},
        {"width": 30, "height": 41, "focal": 40.0},
        {"width": 120, "height": 120, "focal": 60.0},  # wide: 90 degrees
        {"width": 160, "height": 160, "focal": 160.0},
    ],
)
def test_carving_loses_nothing_of_a_block_and_most_of_the_rest(look_at, camera, depth):
    grid, cameras = make_grid(), look_at(orbit(), target=(0.1, 0.0, -0.1), **camera)
    kept = cells_of_views(views_of(BLOCK, cameras, depth), grid).bool()
    solid = cells_of_blocks(BLOCK, grid)
    assert not (solid & ~kept).any()
    assert (kept & ~solid).sum() < 0.3 * (~solid).sum()


@pytest.mark.parametrize(("target", "side", "focal"), [((0.0, 0.0, 0.0), 160, 39.0), ((2.5, 1.0, 0.0), 240, 16.0)])
def test_a_cell_near_a_camera_stays_for_any_of_its_corners(look_at, target, side, focal):
    """A single cell, as far away as its diagonal is long, on a camera's axis and far beside it; views of which a
    corner's pixel alone is covered.
    """
    corners = torch.tensor([[x, y, z] for x in (-0.999, 0.999) for y in (-0.999, 0.999) for z in (-0.999, 0.999)])
    cameras = look_at(orbit(6, distance=3.46), target, width=side, height=side, focal=focal)
    views = views_of(BLOCK, cameras)
    for frame in range(len(cameras)):
        views.holdout[:] = torch.arange(len(cameras)) != frame
        row, col, _, _ = project(cameras, frame, corners)
        shown = (torch.stack([row, col]) >= 0).all(0) & (torch.stack([row, col]) < side).all(0)
        for pixel in zip(row[shown].long(), col[shown].long(), strict=True):
            views.coverage[frame] = 0
            views.coverage[frame][pixel] = 255
            assert cells_of_views(views, make_grid(1)).all()


def test_depth_empties_a_pit_that_no_silhouette_shows(look_at):
    grid, cameras = make_grid(32), look_at(orbit(20, lowest=0.3), width=80, height=80, focal=110.0)
    solid = cells_of_blocks(PIT, grid)
    pit = torch.zeros_like(solid)
    pit[12:20, 12:20, 15:18] = True
    carved = [cells_of_views(views_of(PIT, cameras, depth), grid).bool() for depth in (False, True)]
    for cells in carved:
        assert not (solid & ~cells).any()
    assert (carved[0] & pit).sum() == pit.sum()
    assert (carved[1] & pit).sum() < 0.2 * pit.sum()


def test_one_or_two_views_of_depth_are_not_believed(look_at):
    grid, above = make_grid(), [(0.1, 0.1, 3.5), (-0.1, 0.0, 3.5), (0.0, -0.1, 3.5)]
    middle = (8, 8, 8)
    for count, kept in ((2, 1), (3, 0)):
        views = views_of(PIT, look_at(above[:count], width=80, height=80, focal=90.0), depth=True)
        assert cells_of_views(views, grid)[middle] == kept


def test_unknown_depth_empties_nothing(look_at):
    grid, cameras = make_grid(), look_at(orbit(10, lowest=0.2), width=40, height=40, focal=50.0)
    views = views_of(PIT, cameras, depth=True)
    without = cells_of_views(views_of(PIT, cameras), grid)
    views.distance.zero_()
    assert torch.equal(cells_of_views(views, grid), without)


def test_held_out_views_are_not_used(look_at):
    grid, cameras = make_grid(), look_at(orbit(), width=40, height=40, focal=50.0)
    views = views_of(BLOCK, cameras, depth=True, holdout=(0, 5))
    expected = cells_of_views(views, grid)
    views.coverage[[0, 5]] = 0
    assert torch.equal(cells_of_views(views, grid), expected)
    views.holdout[:] = True
    assert cells_of_views(views, grid).all()


def test_what_begins_just_outside_of_the_image_is_kept(look_at):
    # The camera sees x <= 0.5 of the plane z = 0 of a 1-pixel-high strip; the block begins beyond.
    block = (SceneBox((0.51, -0.5, -0.1), (0.8, 0.5, 0.1)),)
    cameras = look_at([(0.0, 0.0, 4.0)], width=40, height=40, focal=160.0)
    grid = make_grid(15)  # cells of 0.133 reach from 0.467 to 0.6: centred at 0.533
    wide = CellGrid(BOX, 5)  # cells of 0.4: the one from 0.2 to 0.6 is centred in the image
    for one in (grid, wide):
        kept = cells_of_views(views_of(block, cameras), one).bool()
        assert not (cells_of_blocks(block, one) & ~kept).any()


def test_cameras_inside_the_box_are_legal(look_at):
    grid = make_grid()
    inside = [(0.7, 0.7, 0.7), (-0.8, 0.3, 0.5), (0.55, -0.7, 0.0)]
    for target in ((0.0, 0.0, -0.1), (9.0, 9.0, 9.0)):
        cameras = look_at(inside, target=target, width=30, height=30, focal=20.0)
        kept = cells_of_views(views_of(BLOCK, cameras, depth=True), grid).bool()
        assert not (cells_of_blocks(BLOCK, grid) & ~kept).any()


def round_gaussians(means, scales, opacities):
    count = len(means)
    return Gaussians(
        means=torch.as_tensor(means),
        log_scales=torch.as_tensor(scales).log()[:, None].expand(count, 3),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4),
        opacity_logits=torch.logit(torch.as_tensor(opacities)),
        sh=torch.zeros(count, 1, 3),
    )


def one_gaussian(scale, opacity, mean=(0.0625, 0.0625, 0.0625)):
    return round_gaussians([mean], [scale], [opacity])


def test_a_gaussian_reaches_as_far_as_it_is_drawn():
    # From the centre of a cell of 0.125 the next face is 0.0625 away. Its alpha of 0.9 falls to 1/255 at
    # sqrt(2 ln(0.9 * 255)) = 3.298 standard deviations.
    grid, sigma = make_grid(), 0.0625 / 3.298
    assert len(statistics_of_gaussians(one_gaussian(0.99 * sigma, 0.9), grid)) == 1
    cells = statistics_of_gaussians(one_gaussian(1.01 * sigma, 0.9), grid).mask()
    assert cells.sum() == 7
    assert cells[8, 8, 8] == cells[7, 8, 8] == cells[9, 8, 8] == cells[8, 8, 7] == cells[8, 8, 9] == 1


def test_a_gaussian_too_faint_to_draw_occupies_nothing():
    assert cells_of_gaussians(one_gaussian(0.5, 0.0039), make_grid()).sum() == 0
    # 0.5 * sqrt(2 ln(0.004 * 255)) = 0.0995: past the six faces at 0.0625 and the twelve edges at 0.0884, short of
    # the corners at 0.108.
    assert len(statistics_of_gaussians(one_gaussian(0.5, 0.0040), make_grid())) == 19


def test_a_small_faint_gaussian_keeps_the_cell_of_its_centre():
    grid, faint = make_grid(), one_gaussian(0.001, 0.01)
    assert statistics_of_gaussians(faint, grid).density.max() * grid.cell_size < 1e-5
    assert cells_of_gaussians(faint, grid).nonzero().tolist() == [[8, 8, 8]]


@pytest.mark.parametrize("resolution", [12, 32])
def test_the_cells_are_those_in_which_some_alpha_can_be_drawn(resolution):
    # A bumpy shell of flat and long Gaussians of all opacities around a core.
    count = 1500
    out = torch.nn.functional.normalize(torch.randn(count, 3), dim=1)
    gaussians = Gaussians(
        means=out * (0.5 + 0.1 * torch.rand(count, 1)) * (torch.arange(count)[:, None] % 10 > 0),
        log_scales=torch.log(0.004 + 0.07 * torch.rand(count, 3) ** 3),
        rotations=torch.randn(count, 4),
        opacity_logits=2 * torch.randn(count),
        sh=torch.zeros(count, 1, 3),
    )
    grid = make_grid(resolution)
    mask = cells_of_gaussians(gaussians, grid).bool()
    precision = torch.linalg.inv(gaussians.covariances().double())

    def largest_alpha(points):
        """Of any Gaussian at (N, 3) points, before it is projected."""
        offset = points.double()[:, None] - gaussians.means.double()
        distance = torch.einsum("ngi,gij,ngj->ng", offset, precision, offset)
        return (gaussians.opacities.double() * torch.exp(-0.5 * distance)).amax(1)

    def inside(cells):
        return (cells + torch.rand(len(cells), 3)) * grid.cell_size + torch.tensor(grid.box.lower)

    own = ((gaussians.means + 1) / grid.cell_size).long()[gaussians.opacities > 1 / 255]
    assert mask[tuple(own.unbind(1))].all()
    empty, kept = (cells[torch.randperm(len(cells))[:600]] for cells in ((~mask).nonzero(), mask.nonzero()))
    for _ in range(3):
        assert largest_alpha(inside(empty)).max() < 1 / 255
    reached = torch.stack([largest_alpha(inside(kept)) for _ in range(12)]).amax(0)
    assert (reached >= 1 / 255).double().mean() > 0.6  # and hardly more than those


@pytest.mark.parametrize(("fitted", "width"), [(24, 0.3**0.5 * 0.1), (96, 0.3**0.5 * 0.025), (None, 0.3**0.5 * 0.1)])
def test_gaussians_are_drawn_wider_by_a_part_of_the_pixels_they_were_fitted_to(look_at, fitted, width):
    """A pixel of 24 is 3 / 30 wide in the middle of the box."""
    cameras = look_at([(3.0, 0, 0), (0, 3, 0)], width=24, height=24, focal=30.0)
    assert drawn_wider_by(Drawing(fitted), cameras, BOX) == pytest.approx(width)


def test_what_is_drawn_wider_is_in_the_cells_that_it_is_drawn_in():
    """An opaque speck in the middle of a cell an eighth wide is drawn up to 3.3 standard deviations of 0.05 away."""
    speck = Gaussians(
        torch.tensor([[0.0625, 0.0625, 0.0625]]), torch.full((1, 3), -9.0), torch.tensor([[1.0, 0, 0, 0]]),
        torch.full((1,), 5.0), torch.zeros(1, 1, 3),
    )  # fmt: skip
    assert cells_of_gaussians(speck, make_grid()).nonzero().tolist() == [[8, 8, 8]]
    along = cells_of_gaussians(speck, make_grid(), 0.05)[:, 8, 8].nonzero()[:, 0].tolist()
    assert along == [7, 8, 9]  # to 0.17 from the middle of the cell, whose neighbours end at 0.19


@pytest.mark.parametrize(
    ("opacities", "scale"),
    # In order they sum up to 0.05, 0.1, 0.15, 0.2, 0.4: half of it is reached by the fourth.
    [
        *[((0.2, 0.05, 0.05, 0.05, 0.05), 0.1), ((0.21, 0.05, 0.05, 0.05, 0.05), 0.42), ((0.6, 0.9), 1.0), ((), 1.0)],
        ((0.25, 0.5, 0.25), 0.5),  # numbers whose logarithms of odds are exact to the last bit: half is just reached
    ],
)
def test_a_scene_is_as_faint_as_the_gaussians_that_hold_half_of_its_opacity(opacities, scale):
    count = len(opacities)
    gaussians = Gaussians(
        torch.zeros(count, 3), torch.zeros(count, 3), torch.ones(count, 4), torch.tensor(opacities).logit(),
        torch.zeros(count, 1, 3),
    )  # fmt: skip
    assert opacity_scale(gaussians) == pytest.approx(scale) and opacity_scale(None) == 1
