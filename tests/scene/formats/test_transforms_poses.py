"""Poses of a transforms file."""

import pytest
import torch

from scene.formats.transforms_poses import read_poses
from settings.errors import InputError


def some_poses(count: int = 5) -> torch.Tensor:
    """(N, 4, 4) float64 rigid poses."""
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))[0]
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, :3, :3] = rotation * torch.linalg.det(rotation).sign()[:, None, None]
    poses[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return poses


def read(poses) -> torch.Tensor:
    matrices = poses.tolist() if isinstance(poses, torch.Tensor) else poses
    return read_poses("t.json", [{"file_path": str(i), "transform_matrix": pose} for i, pose in enumerate(matrices)])


def test_rigid_poses_stay_as_they_are():
    assert torch.equal(read(some_poses()), some_poses())
    stored_as_float32 = some_poses().float().double()
    assert torch.equal(read(stored_as_float32), stored_as_float32)


def test_three_rows_and_whole_numbers():
    whole = [[0, 0, 1, 2], [1, 0, 0, 0], [0, 1, 0, 0]]
    assert read([whole, [*whole, [0, 0, 0, 1]]])[0].tolist() == [*whole, [0, 0, 0, 1]]
    assert torch.equal(read(some_poses()[:, :3]), some_poses())


def test_rounded_rotations_become_the_nearest(caplog):
    caplog.set_level("INFO")
    rounded = (some_poses() * 1000).round() / 1000
    poses = read(rounded)
    rotations = poses[:, :3, :3]
    assert (rotations.mT @ rotations - torch.eye(3)).abs().max() < 1e-12
    assert (rotations - some_poses()[:, :3, :3]).abs().max() < 1e-3
    assert torch.equal(poses[:, :3, 3], rounded[:, :3, 3])
    assert "5 of 5 rotations are inexact" in caplog.text


def test_one_factor_in_all_rotations_is_named():
    poses = some_poses()
    poses[:, :3, :3] *= 0.01
    with pytest.raises(InputError, match=r"transform_matrix: found rotations scaled by 0.01 \(1/100\) in all 5 frames"):
        read(poses)
    with pytest.raises(InputError, match=r"scaled by 0.001184 \(1/844.4\) in all 5 frames"):
        read(some_poses() / 844.3963460772443)  # the last row too


def test_one_scaled_sheared_or_mirrored_pose_is_named():
    poses = some_poses()
    poses[3, :3, :3] *= 1.2
    with pytest.raises(InputError, match=r"frames\[3\] .*determinant 1.728: axes scaled by 1.2,.*, 1 of 5 frames"):
        read(poses)
    poses = some_poses()
    poses[:, 0, 1] += 0.1
    with pytest.raises(InputError, match=r"frames\[0\] .*not rigid .*, 5 of 5 frames"):
        read(poses)
    poses = some_poses()
    poses[2, :3, 0] *= -1
    with pytest.raises(InputError, match=r"frames\[2\] .*determinant -1"):
        read(poses)
    poses[:, :3, :3] = 0
    with pytest.raises(InputError, match=r"frames\[0\] .*determinant 0"):
        read(poses)
