"""The start of a fit: inside the visual hull, coloured as the views show it."""

import pytest
import torch

from scene.rays import SceneBox
from teacher.fitting.initialization import hull_gaussians
from teacher.fitting.picture_levels import Pictures
from teacher.views.teacher_views import views_from_gaussians
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


def test_the_same_seed_gives_the_same_start():
    views = views_of(ring_of_cameras(frames=2))
    one, again, other = (
        hull_gaussians(views, BOX, Pictures(views, 0), 100, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(again.means, one.means) and torch.equal(again.sh, one.sh)
    assert not torch.equal(other.means, one.means)
