"""Arguments that are not what a function takes: one message each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.library.arguments import kind_of, overrides_given, path_of, view_of
from scene.cameras import Cameras
from settings.errors import InputError
from tests.toy_scene import ring_of_cameras

CAMERAS = ring_of_cameras(3)


@pytest.mark.parametrize("index", [2, np.int64(2), torch.tensor(2)])
def test_a_number_of_any_type_is_one(index) -> None:
    assert view_of(CAMERAS, index) == 2
    assert torch.equal(CAMERAS[index].c2w, CAMERAS.c2w[2:])


def posed(change: Callable[[Tensor], object]) -> Cameras:
    """The cameras with other poses."""
    poses = CAMERAS.c2w.clone()
    change(poses)
    return replace(CAMERAS, c2w=poses)


def test_axes_nearly_those_of_a_rotation_will_do() -> None:
    assert view_of(posed(lambda poses: poses[:, :3, :3].mul_(1.001)), 0) == 0


@pytest.mark.parametrize(
    ("cameras", "index", "said"),
    [
        (CAMERAS, True, "index: found True, expected 0 to 2"),
        (CAMERAS, 1.5, "index: found 1.5, expected 0 to 2"),
        (CAMERAS, "0", "index: found '0', expected 0 to 2"),
        (CAMERAS, 3, "index: found 3, expected 0 to 2"),
        (CAMERAS, -1, "index: found -1, expected 0 to 2"),
        ("here", 0, "cameras: found 'here', of type str, expected Cameras"),
        (CAMERAS[:0], 0, "cameras: found none, expected at least one"),
        (replace(CAMERAS, width=0), 0, "width, height: found 0, 24, expected whole numbers from 1 on"),
        (replace(CAMERAS, width=10.5), 0, "width, height: found 10.5, 24"),
        (replace(CAMERAS, c2w=CAMERAS.c2w.long()), 0, "c2w: found torch.int64, expected float32"),
        (replace(CAMERAS, fx=CAMERAS.fx * torch.nan), 0, "camera 0: found numbers that are not finite"),
        (replace(CAMERAS, fy=CAMERAS.fy * 0), 1, "fx, fy of camera 1: found 33.6, 0, expected above 0"),
        (posed(lambda poses: poses[1, 0].fill_(torch.inf)), 1, "camera 1: found numbers that are not finite"),
        (posed(lambda poses: poses[1, :3, :3].mul_(2)), 1, "c2w of camera 1: found axes 2, 2, 2 long"),
    ],
)
def test_a_view_that_cannot_be_drawn_is_refused(cameras, index, said) -> None:
    with pytest.raises(InputError, match=re.escape(f"render: {said}")):
        view_of(cameras, index)


def test_other_cameras_of_a_set_may_be_what_they_like() -> None:
    assert view_of(posed(lambda poses: poses[1].fill_(torch.nan)), 2) == 2


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda: path_of(None, "checkpoint"), "checkpoint: argument: found None, expected the path"),
        (lambda: path_of([1], "cameras"), "cameras: argument: found [1], of type list"),
        (lambda: overrides_given("a=1"), "overrides: argument: found 'a=1', expected a list of texts"),
        (lambda: overrides_given([1]), "overrides: argument: found [1], of type list"),
        (lambda: kind_of(True, "resolution", int, "a width"), "resolution: argument: found True, of type bool"),
        (lambda: kind_of("3", "resolution", int, "a width"), "resolution: argument: found '3', of type str"),
    ],
)
def test_another_kind_of_argument_is_refused(work, said) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        work()
