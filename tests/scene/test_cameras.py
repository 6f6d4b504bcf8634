import math
from dataclasses import replace

import pytest
import torch

from scene.cameras import Cameras, area_means, join_cameras


def two_cameras() -> Cameras:
    quarter_turn = torch.tensor([[0.0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    return Cameras(
        c2w=torch.stack([torch.eye(4), quarter_turn]),
        fx=torch.tensor([10.0, 20.0]),
        fy=torch.tensor([12.0, 24.0]),
        cx=torch.tensor([4.0, 3.0]),
        cy=torch.tensor([2.0, 2.5]),
        width=8,
        height=4,
    )


def test_indexing_keeps_a_set_of_cameras():
    cameras = two_cameras()
    assert len(cameras) == 2
    assert len(cameras[1]) == 1 and cameras[1].fx.item() == 20 and cameras[-1].cy.item() == 2.5
    assert cameras[[1, 0]].fx.tolist() == [20, 10]
    assert cameras[1:].centers.tolist() == [[5, 6, 7]]
    assert cameras[torch.tensor([True, False])].cx.tolist() == [4]


def test_the_same_cameras_are_those_of_equal_poses_intrinsics_and_sizes():
    cameras = two_cameras()
    assert cameras.same_as(two_cameras())
    assert not cameras.same_as(cameras[0]) and not cameras.same_as(cameras.resized(4, 2))
    assert not cameras.same_as(replace(cameras, cx=cameras.cx + 1))
    assert not cameras.same_as(replace(cameras, c2w=cameras.c2w + 1e-3))
    assert not cameras.same_as(replace(cameras, height=5))


def test_cameras_that_were_scaled_in_two_steps_are_the_same_as_in_one():
    many = torch.linspace(700, 1200, 101)
    odd = Cameras(torch.eye(4).expand(101, 4, 4), many, many, many / 2, many / 2, width=993, height=744)
    once, twice = odd.resized(558, 417), odd.resized(186, 139).finer(3)
    assert not torch.equal(once.fx, twice.fx), "or this would test nothing"
    assert once.same_as(twice)


def test_resized_scales_each_axis():
    small = two_cameras().resized(4, 1)
    assert (small.width, small.height) == (4, 1)
    assert small.fx.tolist() == [5, 10] and small.cx.tolist() == [2, 1.5]
    assert small.fy.tolist() == [3, 6] and small.cy.tolist() == [0.5, 0.625]
    assert math.isclose(two_cameras().fx[0].item(), 10), "the original is untouched"


def test_finer_cameras_have_a_block_of_pixels_for_each_and_area_means_are_theirs():
    fine = two_cameras().finer(3)
    assert (fine.width, fine.height) == (24, 12) and fine.fx.tolist() == [30, 60] and fine.cy.tolist() == [6, 7.5]
    assert two_cameras().finer(1).same_as(two_cameras())
    planes = torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]])[..., None].repeat(1, 1, 2)
    assert area_means(planes, 2).tolist() == [[[2.5, 2.5], [4.5, 4.5]]]
    assert area_means(planes, 1) is planes


def test_world_to_camera_inverts_the_pose():
    cameras = two_cameras()
    product = cameras.world_to_camera() @ cameras.c2w
    torch.testing.assert_close(product, torch.eye(4).expand(2, 4, 4))
    # By hand: R^T t = (6, -5, 7), negated.
    assert cameras.world_to_camera()[1, :3, 3].tolist() == [-6, 5, -7]


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"fy: found shape \(1,\), expected \(2,\)"):
        Cameras(torch.eye(4).expand(2, 4, 4), torch.ones(2), torch.ones(1), torch.ones(2), torch.ones(2), 4, 4)
    with pytest.raises(ValueError, match="c2w"):
        Cameras(torch.eye(3)[None], *(torch.ones(1) for _ in range(4)), 4, 4)


def test_joined_cameras_are_in_order_and_of_one_size():
    cameras = two_cameras()
    joined = join_cameras(cameras[1], cameras)
    assert joined.fx.tolist() == [20, 10, 20] and joined.centers[0].tolist() == [5, 6, 7]
    assert (joined.width, joined.height) == (8, 4)
    with pytest.raises(ValueError, match="image sizes"):
        join_cameras(cameras, cameras.resized(4, 2))
