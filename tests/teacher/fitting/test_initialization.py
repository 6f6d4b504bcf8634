"""The start of a fit: inside the visual hull, coloured as the views show it, or at points."""

import numpy as np
import pytest
import torch

from scene.formats.colmap_model import SparsePoints
from scene.rays import SceneBox
from teacher.fitting.initialization import hull_gaussians, points_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.rasterizer import Drawing
from teacher.views.gaussian_views import views_from_gaussians
from tests.toy_scene import block_of_gaussians, ring_of_cameras

BOX = SceneBox((-0.6, -0.6, -0.6), (0.6, 0.6, 0.6))


def views_of(cameras):
    names = [f"r_{index}" for index in range(len(cameras))]
    return views_from_gaussians(block_of_gaussians(), cameras, names, holdout_every=0)


@pytest.fixture(scope="module")
def start():
    views = views_of(ring_of_cameras(width=48, height=48))
    return hull_gaussians(views, BOX, Pictures(views, 0), 3000, torch.Generator().manual_seed(0))


def test_it_is_a_little_larger_than_the_block(start):
    assert 500 < len(start) <= 3000
    # The block is 0.8 x 0.5 x 0.6, its Gaussians are 0.05 wide; a hull of oblique views is larger above and below.
    half = torch.tensor([0.4, 0.25, 0.3])
    reach = start.means.abs()
    assert bool((reach.amax(dim=0) > half - 0.02).all())
    near = (reach < half + torch.tensor([0.1, 0.1, 0.3])).all(dim=1).float().mean()
    assert near > 0.7, "the box is 1.2 wide: at random 0.36"
    volume = (start.log_scales.exp()[0].prod() * 8 * len(start)).item()
    assert 0.8 * 0.5 * 0.6 < volume < 1.0


def test_colours_are_those_that_views_show(start):
    # Red rises along x, green along y, blue along z.
    color = start.sh[:, 0] * 0.28209479177387814 + 0.5
    for axis in range(3):
        far = start.means[:, axis] > 0.2
        near = start.means[:, axis] < -0.2
        assert color[far, axis].mean() > color[near, axis].mean() + 0.15


def test_a_small_scene_is_coloured_as_its_views_show_it_given_a_near_plane(start):
    small, cameras = block_of_gaussians().scaled(1e-3), ring_of_cameras(width=48, height=48)
    cameras.c2w[:, :3, 3] *= 1e-3
    names, drawing = [f"r_{index}" for index in range(len(cameras))], Drawing(near=1e-4)
    views = views_from_gaussians(small, cameras, names, drawing=drawing, holdout_every=0)
    box = SceneBox((-6e-4, -6e-4, -6e-4), (6e-4, 6e-4, 6e-4))
    generator = torch.Generator().manual_seed(0)
    found = hull_gaussians(views, box, Pictures(views, 0), 3000, generator, near=1e-4)
    assert len(found) == pytest.approx(len(start), rel=0.05)
    assert found.sh.std().item() == pytest.approx(start.sh.std().item(), rel=0.05) and start.sh.std() > 0.1


def test_the_same_seed_gives_the_same_start():
    views = views_of(ring_of_cameras(frames=2))
    one, again, other = (
        hull_gaussians(views, BOX, Pictures(views, 0), 100, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(again.means, one.means) and torch.equal(again.sh, one.sh)
    assert not torch.equal(other.means, one.means)


def test_points_are_as_wide_as_their_neighbours_are_apart():
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 3]], np.float32)
    points = SparsePoints(positions, np.array([[255, 0, 128]] * 5, np.uint8))
    start = points_gaussians(points, 9, torch.Generator())
    assert start.means.tolist() == positions.tolist()
    # The squares of the distances of the first to its nearest three are 1, 4 and 9; of the last 0, 9 and 10.
    widths = start.log_scales.exp()
    assert widths[0].tolist() == pytest.approx([(14 / 3) ** 0.5] * 3)
    assert widths[4, 0].item() == pytest.approx((19 / 3) ** 0.5)
    assert (start.sh[0, 0] * 0.28209479177387814 + 0.5).tolist() == pytest.approx([1, 0, 128 / 255], abs=1e-6)
    assert start.opacities.tolist() == pytest.approx([0.1] * 5)
    alike = points_gaussians(SparsePoints(positions[:1].repeat(5, 0), points.colors), 9, torch.Generator())
    assert alike.log_scales.isfinite().all()


@pytest.mark.parametrize(("scale", "least"), [(1e-4, 1e-4 * 3e-7**0.5), (1.0, 1e-7**0.5), (100.0, 1e-7**0.5)])
def test_points_in_one_place_are_as_narrow_as_suits_their_scene(scale, least):
    """Four points in one place, and one as far away as the scene is wide, the root of 3 times ``scale``."""
    positions = np.array([[0, 0, 0]] * 4 + [[3**0.5, 0, 0]], np.float32) * np.float32(scale)
    points = SparsePoints(positions, np.zeros((5, 3), np.uint8))
    widths = points_gaussians(points, 9, torch.Generator()).log_scales.exp()
    assert widths[0, 0].item() == pytest.approx(least, rel=1e-3)
    assert widths[4, 0].item() == pytest.approx(3**0.5 * scale, rel=1e-3)


def test_of_too_many_points_some_are_drawn():
    positions = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    points = SparsePoints(positions, np.zeros((50, 3), np.uint8))
    some = points_gaussians(points, 20, torch.Generator().manual_seed(1)).means
    assert len(some) == 20 and {tuple(row) for row in some.tolist()} <= {tuple(row) for row in positions.tolist()}
    gaussians = block_of_gaussians()
    assert torch.equal(points_gaussians(gaussians, len(gaussians), torch.Generator()).sh, gaussians.sh)
    assert len(points_gaussians(gaussians, 7, torch.Generator())) == 7
