"""Every mode's picture, of a ball whose figures are known by hand, whole and in rows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.evaluation.comparison_pictures import heat
from distill.model.model import Model
from distill.model.view_renderers import Rendering, gaussians_renderer
from distill.rendering.occupancy import OccupancyGrid
from distill.rendering.renderer import RenderSettings
from distill.viewer.pictures import MODES, MOST_SAMPLES, Pictures
from distill.viewer.ray_pictures import occupied_faces, samples_per_ray
from distill.viewer.viewpoints import Viewpoint
from scene.rays import Rays, SceneBox
from teacher.rasterizer import Drawing, Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

CPU, WHITE = torch.device("cpu"), (1.0, 1.0, 1.0)
BOX = SceneBox((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
STEP = 0.02


@pytest.fixture
def ball(field):
    """Of radius 0.5 and density 40, blue, in a grid whose cells are occupied where x and y are not negative."""
    student = field(lambda x: torch.where(x.norm(dim=-1) < 0.5, 40.0, 0.0), color=(0.0, 0.0, 1.0))
    grid = OccupancyGrid(BOX, 8, STEP, 0.01, 0.95)
    mask = torch.zeros(grid.shape, dtype=torch.uint8)
    mask[4:, 4:] = 1
    grid.bound_by_teacher(mask)
    return Model(student, grid, RenderSettings(STEP, 512, 5e-3, 4096, 0.05, 10.0, "torch"))


@pytest.fixture
def both(ball):
    def red(cameras, index, across=None):
        size = cameras.height, cameras.width
        return Rendering(torch.tensor([1.0, 0, 0]).expand(*size, 3), torch.ones(size), torch.full(size, 2.0))

    return Pictures(ball, red, BOX, CPU, WHITE)


def from_the_corner(size=20):
    """Looks at the middle from the side that is occupied; the centre's pixel sees the ball."""
    cameras = ring_of_cameras(8, size, size)
    return cameras[1]


def test_the_modes_are_those_of_what_is_there(both, ball):
    assert both.modes == tuple(MODES)
    assert "teacher" not in Pictures(ball, None, BOX, CPU, WHITE).modes and len(both.modes) == 8
    assert Pictures(None, both.teacher, BOX, CPU, WHITE).modes == ("teacher", "depth", "alpha")


def test_student_teacher_side_by_side_and_their_error(both):
    cameras = from_the_corner()
    (student, parts), (teacher, _) = both("student", cameras), both("teacher", cameras)
    assert set(parts) == {"student", "colours"}
    np.testing.assert_allclose(student[10, 10], [0, 0, 255], atol=2)
    assert student[0, 0].tolist() == [255, 255, 255] and teacher[5, 5].tolist() == [255, 0, 0]
    sides, parts = both("side by side", cameras)
    assert sides.shape == (20, 20, 3) and set(parts) == {"student", "teacher", "colours"}
    assert (sides[:, :10] == teacher[:, 5:15]).all() and (sides[:, 10:] == student[:, 5:15]).all()
    error, _ = both("error", cameras)
    assert error[10, 10].tolist() == heat(np.array(1.0)).tolist()  # two channels of three are off by 1


@pytest.mark.parametrize("drawing", [Drawing(48), Drawing(20), Drawing(96), Drawing(None, 2), Drawing()])
def test_beside_the_student_thin_gaussians_of_the_teacher_are_as_wide_as_alone(ball, drawing):
    block = block_of_gaussians()
    thin = replace(block, log_scales=torch.full_like(block.log_scales, math.log(0.004)))
    pictures = Pictures(ball, gaussians_renderer(Rasterizer(thin, drawing=drawing)), BOX, CPU, WHITE)
    cameras = from_the_corner(48)
    teacher, sides = pictures("teacher", cameras)[0], pictures("side by side", cameras)[0]
    assert np.abs(sides[:, :24].astype(int) - teacher[:, 12:36]).max() <= 1


@pytest.mark.parametrize("fitted", [20, 48, 96])
@pytest.mark.parametrize("mode", ["teacher", "side by side"])
def test_a_wider_window_shows_thin_gaussians_as_wide(ball, fitted, mode):
    block = block_of_gaussians()
    thin = replace(block, log_scales=torch.full_like(block.log_scales, math.log(0.004)))
    cameras = from_the_corner(48)
    focal = cameras.fx[0].item() / 48
    pictures = Pictures(ball, gaussians_renderer(Rasterizer(thin, drawing=Drawing(fitted)), focal), BOX, CPU, WHITE)
    view = Viewpoint.of_camera(cameras, 0)
    square, wide = pictures("teacher", cameras)[0], pictures(mode, view.cameras(96, 48))[0]
    shown = wide[:, 24:72] if mode == "teacher" else wide[:, :48]  # the middle of the view, the left half shows it
    assert np.abs(shown.astype(int) - square).max() <= 1


def test_depth_is_bright_where_the_box_begins_and_alpha_is_grey(both):
    cameras = from_the_corner()
    depth, alpha = both("depth", cameras)[0], both("alpha", cameras)[0]
    surface, radius = 1.5 + 1 / 40, math.sqrt(3)  # of a camera 2 away: a mean free path behind the surface
    expected = heat(np.array(1 - (surface - (2 - radius)) / (2 * radius)))
    assert np.abs(depth[10, 10].astype(int) - expected).max() < 6
    assert depth[0, 0].tolist() == [255, 255, 255] and alpha[0, 0].tolist() == [0, 0, 0]
    assert alpha[10, 10].tolist() == [255, 255, 255]


def test_samples_are_counted_until_the_ray_ends(ball, both):
    origins = torch.tensor([[0.01, 0.01, 2.0], [0.3, 0.3, 2.0], [-0.3, 0.3, 2.0]])
    rays = Rays(origins, torch.tensor([[0.0, 0, -1]]).expand(3, 3), torch.full((3,), 1.0), torch.full((3,), 3.0))
    counts = samples_per_ray(ball, rays)
    # From the box's face to the ball, and in it until exp(-40 * 0.02 * n) <= 0.005: 7 samples.
    through = [round((1 - math.sqrt(0.25 - 2 * x * x)) / STEP) + 7 for x in (0.01, 0.3)]
    assert abs(counts[0] - through[0]) <= 1 and abs(counts[1] - through[1]) <= 1 and counts[2] == 0
    small = replace(ball, settings=replace(ball.settings, max_batch_samples=512))
    assert samples_per_ray(small, rays).tolist() == counts.tolist()
    closer = samples_per_ray(replace(ball, settings=replace(ball.settings, picture_step=0.5)), rays)
    assert (closer - 2 * counts).abs().max() <= 2 and closer[0] > 50
    image = both("samples per ray", Viewpoint(torch.eye(4).double() + shift(0.01, 0.01, 2.0), 0.1).cameras(1, 1))[0]
    assert np.abs(image[0, 0].astype(int) - heat(np.array(counts[0].item() / MOST_SAMPLES))).max() < 8


def shift(*by):
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(by)
    return matrix


def test_occupied_cells_show_the_face_that_the_ray_came_in_by(ball):
    down, aside = [0.0, 0, -1], [-1.0, 0, 0]
    origins = torch.tensor([[0.1, 0.1, 2.0], [0.3, 0.1, 2.0], [2.0, 0.1, 0.1], [-0.1, 0.1, 2.0]])
    directions = torch.tensor([down, down, aside, down])
    faces = occupied_faces(ball, Rays(origins, directions, torch.full((4,), 1.0), torch.full((4,), 3.0)))
    bright, dark = sorted(faces[:2].tolist(), reverse=True)
    assert bright == 0.75 and dark == pytest.approx(0.88 * 0.75) and faces[3] == 0  # z faces, every other one darker
    assert faces[2] in (pytest.approx(0.6), pytest.approx(0.6 * 0.88))


def test_rows_are_what_they_are_in_the_whole_picture(both):
    """The full picture is drawn in pieces; of Gaussians beyond a piece's edge the width changes by a trace."""
    cameras = from_the_corner(24)
    piece = replace(cameras, cy=cameras.cy - 10, height=5)
    both.teacher = gaussians_renderer(Rasterizer(block_of_gaussians()))
    for mode in both.modes:
        if mode != "side by side":  # halves of what follows
            whole, part = both(mode, cameras)[0][10:15], both(mode, piece)[0]
            assert np.abs(whole.astype(int) - part).max() <= (0 if mode in ("student", "depth", "alpha") else 2), mode


def test_a_student_is_drawn_with_the_weights_it_had_until_it_is_renewed(both):
    cameras = from_the_corner(8)
    before = both("student", cameras)[0]
    made = both._student
    assert (both("student", cameras)[0] == before).all() and both._student is made
    both.renew()
    both("student", cameras)
    assert both._student is not made
