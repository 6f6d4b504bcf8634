import math
from dataclasses import replace

import pytest
import torch

from scene.cameras import Cameras
from scene.pose_sampling import PoseSampler

SEED = 3
TARGET = torch.tensor([1.0, -2.0, 0.5])


def sequence(cameras, count=200, **options):
    settings = {"seed": SEED, "own_share": 0.0, "angle": 0.0, "distance": 0.0} | options
    sampler = PoseSampler(cameras, **settings)
    return [sampler.camera(index) for index in range(count)]


def poses_of(cameras):
    return torch.cat([camera.c2w for camera in cameras])


@pytest.fixture
def shell(look_at):
    """40 cameras on a sphere of radius 4 about a point off the origin, from the horizon to near the pole."""
    index = torch.arange(40)
    height, turn = 0.98 * (index + 0.5) / 40, index * math.pi * (3 - math.sqrt(5))
    ring = (1 - height**2).sqrt()
    directions = torch.stack([ring * turn.cos(), ring * turn.sin(), height], dim=1)
    return look_at((TARGET + 4 * directions).tolist(), target=TARGET.tolist())


@pytest.fixture
def strip(look_at):
    """A row of cameras 0.5 apart that all look straight down from a height of 3: no focus."""
    poses = torch.eye(4).repeat(6, 1, 1)
    poses[:, 0, 3], poses[:, 2, 3] = 0.5 * torch.arange(6), 3.0
    return replace(look_at([(0.0, 0.0, 3.0)] * 6), c2w=poses)


def test_poses_are_rigid_and_keep_the_intrinsics(shell):
    cameras = sequence(shell, angle=10.0, distance=0.2)
    rotations = poses_of(cameras)[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotations) > 0.999).all()
    assert torch.equal(poses_of(cameras)[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(200, 4))
    assert all(camera.fx == shell.fx[0] and (camera.width, camera.height) == (24, 20) for camera in cameras)


def test_without_jitter_poses_stay_on_the_shell_and_look_at_its_middle(shell):
    poses = poses_of(sequence(shell))
    offset = poses[:, :3, 3] - TARGET
    torch.testing.assert_close(offset.norm(dim=1), torch.full((200,), 4.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(poses[:, :3, 2], offset / 4, atol=1e-3, rtol=0)
    # They are new: beside the cameras, but no farther than two thirds of the way to the sixth neighbour.
    to_nearest = torch.cdist(poses[:, :3, 3], shell.centers).amin(dim=1)
    reach = torch.cdist(shell.centers, shell.centers).sort(dim=1).values[:, 6].max()
    assert to_nearest.median() > 0.2 and to_nearest.max() < 2 / 3 * reach
    # The cameras are all above the horizon; a few poses look from just under it.
    assert -2 / 3 * reach < offset[:, 2].min() and (offset[:, 2] < 0).float().mean() < 0.1


def test_distances_are_jittered_by_the_fraction_asked_for(shell):
    distances = (poses_of(sequence(shell, distance=0.25))[:, :3, 3] - TARGET).norm(dim=1)
    assert 3.0 - 1e-3 <= distances.min() < 3.1
    assert 4.9 < distances.max() <= 5.0 + 1e-3


def test_a_jittered_direction_orbits_the_focus(shell):
    poses = poses_of(sequence(shell, angle=5.0))
    offset = poses[:, :3, 3] - TARGET
    torch.testing.assert_close(offset.norm(dim=1), torch.full((200,), 4.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(poses[:, :3, 2], offset / 4, atol=1e-3, rtol=0)


def test_the_angle_of_a_lone_camera_is_uniform_over_the_disc(look_at):
    camera = look_at([(0.0, 0.0, 3.0)])
    back = poses_of(sequence(camera, 400, angle=10.0))[:, :3, 2]
    angles = torch.rad2deg(torch.acos((back @ camera.c2w[0, :3, 2]).clamp(max=1)))
    assert angles.max() <= 10.01 and angles.max() > 9
    assert angles.median().item() == pytest.approx(10 / math.sqrt(2), abs=0.7)


def test_the_sequence_is_a_function_of_seed_and_number(shell):
    options = {"angle": 4.0, "distance": 0.1, "own_share": 0.3}
    whole = sequence(shell, 50, **options)
    sampler = PoseSampler(shell, seed=SEED, **options)
    for index in (49, 0, 17):
        assert torch.equal(sampler.camera(index).c2w, whole[index].c2w)
    assert not torch.equal(poses_of(sequence(shell, 50, seed=4, **options)), poses_of(whole))


def test_own_poses_are_as_many_as_asked_for(shell):
    def own(share):
        poses = poses_of(sequence(shell, 200, own_share=share, angle=2.0))
        return [(poses[i] == shell.c2w).flatten(1).all(1).any().item() for i in range(200)]

    assert all(own(1.0)) and not any(own(0.0))
    assert 35 <= sum(own(0.25)) <= 65


def test_poses_are_spread_by_area_not_by_camera(look_at):
    """Thirty cameras on a small patch and six on the rest of a circle: the patch gets few of the poses."""
    turns = torch.cat([torch.linspace(0, 0.2, 30), torch.linspace(1, 6, 6)])
    cameras = look_at(torch.stack([4 * turns.cos(), 4 * turns.sin(), 1 + 0 * turns], dim=1).tolist())
    sampler = PoseSampler(cameras, seed=SEED, own_share=1.0, angle=0.0, distance=0.0)
    own = torch.stack([(sampler.camera(i).c2w == cameras.c2w).flatten(1).all(1) for i in range(360)]).sum(0)
    assert own[30:].min() > 2.5 * own[:30].float().mean()
    # The same share of every 36 poses: systematic, not left to chance.
    rounds = torch.stack([(sampler.camera(i).c2w == cameras.c2w).flatten(1).all(1) for i in range(36)]).sum(0)
    assert ((rounds - own / 10).abs() < 1).all()


def test_cameras_spread_evenly_have_a_turn_each(look_at):
    turns = torch.arange(12) * (2 * math.pi / 12)
    cameras = look_at(torch.stack([4 * turns.cos(), 4 * turns.sin(), 1 + 0 * turns], dim=1).tolist())
    poses = poses_of(sequence(cameras, 12, own_share=1.0))
    assert (torch.cdist(cameras.centers, poses[:, :3, 3]).amin(dim=1) == 0).sum() >= 11


def test_without_a_focus_poses_are_mixed_by_position(strip):
    poses = poses_of(sequence(strip))
    x = poses[:, 0, 3]
    assert -2 < x.min() < 0.5 and 2 < x.max() < 4.5 and (x / 0.5 - (x / 0.5).round()).abs().mean() > 0.1
    torch.testing.assert_close(poses[:, :3, :3], torch.eye(3).expand(200, 3, 3), atol=1e-6, rtol=0)
    assert (poses[:, 1, 3] == 0).all() and (poses[:, 2, 3] == 3).all()
    moved = poses_of(sequence(strip, distance=0.5))[:, :3, 3]
    assert (moved - poses[:, :3, 3]).norm(dim=1).max() <= 0.5 * 0.5 + 1e-6
    assert (moved[:, 2] - 3).abs().max() > 0.1


def test_cameras_that_look_elsewhere_are_no_neighbours(look_at):
    """Back to back in one place, as on a street: nothing lies between them."""
    ahead, behind = (
        look_at([(0.0, 0, 0), (0.1, 0, 0)], target=(9.0, 0, 0)),
        look_at([(0.05, 0, 0)], target=(-9.0, 0, 0)),
    )
    cameras = replace(look_at([(0.0, 0, 0)] * 3), c2w=torch.cat([ahead.c2w, behind.c2w]))
    forward = -poses_of(sequence(cameras))[:, 0, 2]
    assert (forward.abs() > 0.999).all() and 0 < (forward > 0).float().mean() < 1


@pytest.mark.parametrize("count", [1, 2])
def test_one_camera_or_two_in_one_place_are_enough(look_at, count):
    cameras = look_at([(2.0, 1.0, 3.0)] * count)
    for options in ({}, {"angle": 20.0, "distance": 0.9}, {"own_share": 1.0}):
        poses = poses_of(sequence(cameras, 30, **options))
        assert poses.isfinite().all()
        torch.testing.assert_close(poses[:, :3, 3], cameras.centers[:1].expand(30, 3))


def test_a_camera_straight_above_is_no_exception(look_at):
    cameras = look_at([(0.0, 0.0, 4.0), (0.5, 0, 3.9), (-0.5, 0.1, 3.9), (0, 3, 2)])
    poses = poses_of(sequence(cameras, angle=15.0, distance=0.3))
    rotations = poses[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3).expand_as(rotations), atol=1e-5, rtol=0)


def test_a_lone_camera_has_the_poses_of_its_area_but_at_most_four_times_the_median_ones():
    """Five that look the same way, on a line at 0, 1, 2, 3 and 13.

    Their mean distances to the others are 4.75, 4, 3.75, 4 and 11.5: areas of 22.56, 16, 14.06, 16 and, cut from
    132.25, of 4 x 16. The last has 64 of 132.6 of the poses.
    """
    poses, ones = torch.eye(4).repeat(5, 1, 1), torch.ones(5)
    poses[:, 0, 3] = torch.tensor([0.0, 1.0, 2.0, 3.0, 13.0])
    cameras = Cameras(poses, ones * 20, ones * 20, ones * 8, ones * 8, 16, 16)
    sampler = PoseSampler(cameras, seed=0, own_share=1.0, angle=0.0, distance=0.0)
    lone = sum(sampler.camera(index).c2w[0, 0, 3].item() == 13.0 for index in range(1000))
    assert lone == pytest.approx(1000 * 64 / 132.625, abs=12)


@pytest.mark.parametrize(("degrees", "is_mixed"), [(50, True), (70, False)])
def test_cameras_that_look_sixty_degrees_apart_are_no_neighbours(look_at, degrees, is_mixed):
    angle = math.radians(degrees)
    cameras = look_at([[3.0, 0.0, 0.0], [3 * math.cos(angle), 3 * math.sin(angle), 0.0]])
    sampler = PoseSampler(cameras, seed=0, own_share=0.0, angle=0.0, distance=0.0)
    found = torch.cat([sampler.camera(index).c2w for index in range(8)])
    nearest = (found[:, None] - cameras.c2w).abs().amax((2, 3)).amin(1)
    assert (nearest > 1e-2).any() if is_mixed else (nearest < 1e-5).all()
