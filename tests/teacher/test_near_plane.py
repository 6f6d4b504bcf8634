"""Scenes that the near plane of 3DGS leaves out."""

import re
from dataclasses import replace

import pytest
import torch

from teacher.near_plane import near_plane_advice
from teacher.rasterizer import Drawing, Rasterizer, picture_renderer
from tests.toy_scene import block_of_gaussians, ring_of_cameras


@pytest.fixture
def small():
    """The block and its cameras, a thousand times smaller."""
    block, cameras = block_of_gaussians(), ring_of_cameras(4, 24, 24)
    poses = cameras.c2w.clone()
    poses[:, :3, 3] *= 1e-3
    shrunk = replace(block, means=block.means * 1e-3, log_scales=block.log_scales + torch.tensor(1e-3).log())
    return shrunk, replace(cameras, c2w=poses)


def test_a_scene_that_lies_behind_the_near_plane_has_nothing_to_say():
    assert near_plane_advice(block_of_gaussians(), ring_of_cameras(4, 24, 24), 0.2) is None


@pytest.mark.parametrize(("near_ones", "is_said"), [(729 * 6 // 100, True), (729 * 4 // 100, False)])
def test_a_twentieth_of_what_is_before_a_camera_must_be_nearer_and_half_of_the_nearest_is_advised(near_ones, is_said):
    means = torch.zeros(729, 3)
    means[:, 2] = -1.0  # a camera at the origin looks down -z
    means[:near_ones, 2] = -0.1
    cameras = replace(ring_of_cameras(1, 24, 24), c2w=torch.eye(4)[None])
    advice = near_plane_advice(replace(block_of_gaussians(), means=means), cameras, 0.2)
    assert ("is 6% of the" in advice and "set teacher.near to 0.05 or less" in advice) if is_said else advice is None


def test_the_plane_that_is_advised_shows_what_the_other_one_leaves_out(small):
    gaussians, cameras = small
    assert Rasterizer(gaussians, drawing=Drawing(near=0.2)).render(cameras, 0).alpha.max() == 0
    advice = near_plane_advice(gaussians, cameras, 0.2)
    assert "100% of the Gaussians before the cameras" in advice
    advised = float(re.search(r"set teacher.near to (\S+) or less", advice)[1])
    assert near_plane_advice(gaussians, cameras, advised) is None
    assert Rasterizer(gaussians, drawing=Drawing(near=advised)).render(cameras, 0).alpha.max() > 0.5


def test_cameras_that_look_away_have_nothing_before_them(small):
    gaussians, cameras = small
    away = replace(cameras, c2w=cameras.c2w @ torch.diag(torch.tensor([1.0, -1, -1, 1])))
    assert near_plane_advice(gaussians, away, 0.2) is None


def test_gaussians_drawn_another_way_are_left_out_by_that_ways_plane(small):
    gaussians, cameras = small
    usual = Rasterizer(gaussians)
    assert usual.redrawn(Drawing(near=1e-4)).render(cameras, 0).alpha.max() > 0.5
    assert usual.redrawn(Drawing(near=1e-4)).redrawn(Drawing()).render(cameras, 0).alpha.max() == 0


def test_a_clock_is_given_what_the_views_show(small):
    gaussians, cameras = small
    draw = picture_renderer(gaussians, "cpu", cameras, torch.device("cpu"), near=1e-4)
    expected = Rasterizer(gaussians, drawing=Drawing(near=1e-4)).render(cameras, 0)
    torch.testing.assert_close(draw(0).alpha, expected.alpha)


@pytest.mark.parametrize(("near", "share", "advised"), [(1.5, "10%", "0.6"), (3.5, "30%", "0.6"), (0.5, None, None)])
def test_a_part_that_is_left_out_is_said_too(look_at, near, share, advised):
    """Ten Gaussians on the axis, 1 to 10 away, of which near planes leave out some, and ten beside the picture."""
    depths = torch.arange(1.0, 11.0)
    column = torch.stack([torch.zeros(10), torch.zeros(10), -depths], dim=1)
    beside = column * 0.01 + torch.tensor([9.0, 0.0, 0.0])
    row = replace(block_of_gaussians()[:20], means=torch.cat([column, beside]))
    advice = near_plane_advice(row, look_at([(0.0, 0.0, 0.0)], target=(0.0, 0.0, -1.0)), near)
    if share is None:
        assert advice is None
    else:
        assert f"{share} of the Gaussians" in advice and f"teacher.near to {advised} or less" in advice
