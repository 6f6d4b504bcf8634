"""Choosing from frames."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scene.frames import (
    Frames,
    held_out,
    holdout_mask,
    refuse_leaks,
    refuse_no_holdout,
    refuse_only_holdout,
    scaled_size,
    spread,
    working_size,
)
from settings.errors import InputError


def test_spread():
    assert spread(range(200), 4) == [0, 50, 100, 150]
    assert spread([3, 5], 24) == [3, 5]
    assert spread([5, 6, 7], 1) == [5]
    assert spread([], 3) == []


def test_a_size_of_another_width_has_the_nearest_height(look_at):
    cameras = look_at([(3.0, 0, 0)], width=100, height=76)
    assert scaled_size(cameras, 30) == (30, 23) and scaled_size(cameras, None) == (100, 76)  # 22.8
    assert scaled_size(look_at([(3.0, 0, 0)], width=100, height=1), 30) == (30, 1)
    assert working_size(cameras, 100, Path("t")) == (100, 76)
    with pytest.raises(InputError, match=r"width of 100 pixels, expected at least data\.resolution 101"):
        working_size(cameras, 101, Path("t"))


def test_holdout_mask():
    assert holdout_mask(5, 2).tolist() == [True, False, True, False, True]
    assert not holdout_mask(5, 0).any()


def test_the_datasets_own_tests_are_held_out(look_at):
    cameras = look_at([(3.0, 0, 0), (0, 3, 0), (0, 0, 3)])
    frames = Frames(cameras, tuple("abc"), (None,) * 3, Path("t"), tests=(False, True, False))
    assert held_out(frames, 8).tolist() == [False, True, False]
    assert not held_out(frames, 0).any() and held_out(frames, 1).all()
    assert held_out(frames[1:], 8).tolist() == [True, False]
    assert held_out(replace(frames, tests=None), 2).tolist() == [True, False, True]


def test_poses_that_are_trained_on_are_not_tested_on(look_at):
    train = look_at([(3.0, 0, 0), (0, 3, 0), (-3, 0, 0)])
    refuse_leaks(Path("t"), train, look_at([(3.0, 0.001, 0)]))
    with pytest.raises(InputError, match=r"1 of 2 test frames .*\(test frame 1 is training frame 2\)"):
        refuse_leaks(Path("t"), train, look_at([(0, 0, 3), (-3, 0, 0)]))
    # Side by side in a world of millionths: as far apart as in any other.
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.tensor([0, 1e-6, 2e-6])
    small = replace(train, c2w=poses)
    refuse_leaks(Path("t"), small[:2], small[2:])


def test_without_frames_to_measure_on_or_to_train_on_it_is_said_what_to_set():
    refuse_no_holdout(1)
    refuse_only_holdout(1, 3)
    with pytest.raises(InputError, match=r"data\.holdout_every: found no frame held out, .*Set it to 8"):
        refuse_no_holdout(0)
    with pytest.raises(InputError, match=r"data\.holdout_every: found all 3 frames held out, .*holdout_every to 0"):
        refuse_only_holdout(0, 3)
