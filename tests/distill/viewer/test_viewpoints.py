"""Cameras in a browser's terms and in ours, and those of a dataset."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.viewer.viewpoints import Viewpoint, dataset_cameras, named_cameras, outside, up_of
from scene.rays import SceneBox, project
from settings.loading import load_config
from teacher.sources import source_of
from tests.toy_configs import BRICKS


def test_a_browsers_camera_looks_where_it_says():
    """viser's looks down +Z with +Y down; its identity looks along the world's z, what is down there is at y > 0."""
    view = Viewpoint.of_browser(np.array([1.0, 0, 0, 0]), np.array([0.0, 0, -2]), math.pi / 2)
    np.testing.assert_allclose(view.ahead, [0, 0, 1])
    row, col, depth, _ = project(view.cameras(40, 20), 0, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    assert depth.tolist() == [2, 2]
    torch.testing.assert_close(row, torch.tensor([12.5, 10.0]))  # 90 degrees over 20 rows: 10 rows at a slope of 1
    torch.testing.assert_close(col, torch.tensor([22.5, 20.0]))


def test_a_viewpoint_goes_to_the_browser_and_back(look_at):
    cameras = look_at([(2.0, 1.0, 0.5), (-1.0, 0.3, 3.0)], width=24, height=20, focal=30.0)
    for index in range(2):
        view = Viewpoint.of_camera(cameras, index)
        assert view.fov == pytest.approx(2 * math.atan(10 / 30))
        back = Viewpoint.of_browser(view.wxyz, view.position, view.fov)
        np.testing.assert_allclose(back.c2w, view.c2w, atol=1e-6)
        again = back.cameras(24, 20)
        torch.testing.assert_close(again.c2w[0], cameras.c2w[index], atol=1e-6, rtol=0)
        torch.testing.assert_close(again.fx, cameras.fx[[index]])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_a_camera_is_where_another_is_but_for_rounding_in_a_scene_of_any_size(look_at, scale, shift):
    here = Viewpoint.of_camera(look_at([(2.0, 1.0, 0.5)]), 0).c2w
    here[:3, 3] = here[:3, 3] * scale + shift * scale

    def other(row, column, by, wider=0.0):
        c2w = here.clone()
        c2w[row, column] += by
        return Viewpoint(c2w, 0.8 + wider)

    view = Viewpoint(here, 0.8)
    for rounded in (
        other(0, 3, 9e-5 * scale),
        other(1, 2, 9e-5),
        other(0, 3, 9e-7 * shift * scale),
        other(0, 3, 0, 9e-5),
    ):
        assert view.is_where(rounded, scale)
    for apart in (other(2, 3, 1.2e-4 * scale + 1.1e-6 * shift * scale), other(1, 2, 1.1e-4), other(0, 3, 0, 1.1e-4)):
        assert not view.is_where(apart, scale)


def test_from_a_datasets_camera_the_picture_is_that_cameras(look_at):
    """Whatever its principal point and its pixels; a wider window shows more at the sides."""
    centred = look_at([(2.0, 1.0, 0.5)], width=24, height=20, focal=30.0)
    cameras = replace(centred, fx=centred.fx * 0.75, cx=centred.cx + 4, cy=centred.cy - 3)
    view = Viewpoint.of_camera(cameras, 0)
    assert view.lens == pytest.approx((0.75, 4 / 22.5, -3 / 30))
    for name, value in view.cameras(48, 40).tensors().items():
        torch.testing.assert_close(value, cameras.resized(48, 40).tensors()[name], msg=name)
    wide = view.cameras(68, 40)
    assert wide.cx.item() == pytest.approx(10 + 2 * cameras.cx.item()) and wide.fx.item() == pytest.approx(45)
    (named,) = named_cameras(("a",), cameras, torch.tensor([False]))
    assert named.aspect == pytest.approx(24 / 20 / 0.75)


def test_the_datasets_cameras_say_which_are_held_out(write):
    config = load_config(write(BRICKS), ["data.holdout_every=4", "teacher.frames=6"])
    cameras = dataset_cameras(source_of(config))
    assert [camera.held_out for camera in cameras] == [True, False, False, False, True, False]
    assert cameras[3].name == "orbit_003" and cameras[3].aspect == 1
    assert up_of(cameras)[2] > 0.99 and up_of(cameras, (0.0, -1.0, 0.0)).tolist() == [0, -1, 0]


def test_without_cameras_one_begins_outside_the_box():
    view = outside(SceneBox((1.0, 1, 1), (2.0, 3, 2)), up_of([]))
    middle = np.array([1.5, 2, 1.5])
    away = middle - view.position
    np.testing.assert_allclose(away / np.linalg.norm(away), view.ahead, atol=1e-9)
    assert np.linalg.norm(away) > np.linalg.norm([1, 2, 1]) and view.position[2] > 1.5
    assert up_of([]).tolist() == [0, 0, 1]
    assert outside(SceneBox((1.0, 1, 1), (2.0, 3, 2)), up_of([], (0.0, -1.0, 0.0))).position[1] < 2
