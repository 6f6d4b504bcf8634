"""Each hypothesis about focal length or principal point undoes its mistake: on numbers."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.hypotheses import Cause
from distill.alignment.intrinsics import (
    focal_hypothesis,
    intrinsics_hypotheses,
    moved_principal,
    principal_hypotheses,
    square_pixel_hypotheses,
)
from tests.toy_scene import ring_of_cameras


def named(hypotheses, words):
    return next(one for one in hypotheses if words in one.name)


def test_intrinsics():
    right = ring_of_cameras(2, 40, 20)
    wrong = replace(right, fx=right.fx / 1.25, fy=right.fy / 1.25)
    found = focal_hypothesis(1.25, wrong)
    torch.testing.assert_close(found.cameras(wrong).fx, right.fx)
    assert "1.25" in found.name and f"camera_angle_x {2 * torch.atan(20 / right.fx[0]).item():.6g}" in found.advice
    assert "twice too long" in focal_hypothesis(0.5, right.resized(20, 20)).name
    assert "other side" in focal_hypothesis(2.0, right).name, "in a picture twice as wide as high"
    double = replace(right, fx=2 * right.fx, fy=2 * right.fy, cx=2 * right.cx, cy=2 * right.cy)
    found = named(intrinsics_hypotheses(), "picture 2 times as large").cameras(double)
    torch.testing.assert_close(found.cx, right.cx)
    torch.testing.assert_close(found.fy, right.fy)


def test_pixels_are_square_but_for_what_rounding_a_side_makes_of_them():
    cameras = ring_of_cameras(2, 40, 30)
    assert square_pixel_hypotheses(cameras) == square_pixel_hypotheses(cameras.resized(20, 15).resized(9, 7)) == []
    first, second = square_pixel_hypotheses(replace(cameras, fy=1.1 * cameras.fy))
    assert "fl_y must equal fl_x" in first.name and "set fl_x to fl_y" in second.advice


def test_a_principal_point_that_pictures_ignore():
    right = ring_of_cameras(2, 24, 24)
    wrong = replace(right, cx=right.cx + 2, cy=right.cy - 3)
    (found,) = principal_hypotheses(wrong, (-2.1 / 24, 2.9 / 24))
    assert "shifted by (2, -3) pixels" in found.name and "centre" in found.name and found.cause == Cause.PRINCIPAL
    small = found.cameras(wrong.resized(12, 12))
    torch.testing.assert_close(small.cx, right.resized(12, 12).cx)
    torch.testing.assert_close(small.cy, right.resized(12, 12).cy)
    assert principal_hypotheses(right, None) == []


def test_a_principal_point_elsewhere():
    right = ring_of_cameras(2, 40, 20)
    right = replace(right, cx=right.cx + 5)
    wrong = replace(right, cx=right.cx + 2, cy=right.cy - 3)
    centre, found = principal_hypotheses(wrong, (-2 / 40, 3 / 20))
    assert "(7, -3) pixels" in centre.name and "shifted by (2, -3) pixels from where" in found.name
    assert "add -2 to cx and 3 to cy (at 40x20)" in found.advice
    torch.testing.assert_close(found.cameras(wrong).cx, right.cx)
    assert moved_principal(right, 0.1, 0).cx[0].item() == pytest.approx(29)
