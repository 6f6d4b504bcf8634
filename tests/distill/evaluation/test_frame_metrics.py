"""What one frame is measured by: the neighbours, depth, silhouette and networks that its figures need."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.evaluation import metrics
from distill.evaluation.frame_metrics import CountedPixels, References, has_neighbour
from distill.rendering.renderer import RenderedFrame
from scene.images import PSNR_CAP_DB
from tests.distill.evaluation.disc import (
    FRAMES,
    SIDE,
    FixedLpips,
    blank,
    make_frame,
    make_views,
    run,
    the_teacher,
    with_noise,
)


def test_views_up_to_ten_degrees_apart_are_neighbours(look_at):
    places = [[math.sin(angle), -math.cos(angle), 0.0] for angle in map(math.radians, (0.0, 9.9, 20.0))]
    assert [has_neighbour(look_at(places), index) for index in range(3)] == [False, True, False]


def test_the_teacher_s_own_picture_has_the_8_bits_that_the_student_s_has():
    half, nearest = torch.full((2, 2, 3), 0.5), torch.full((2, 2, 3), 128 / 255)
    views = SimpleNamespace(image=lambda *_: half, ground_truth_image=lambda *_: nearest, counted=None)
    assert References(views, ("ground_truth",), (1.0, 1.0, 1.0), {}).teacher_psnr(0) == PSNR_CAP_DB


def test_opaque_ground_truth_takes_its_foreground_from_the_teacher(setup):
    views = make_views()
    views.ground_truth[..., 3] = 255

    def wrong_outside(i, background):
        image = views.ground_truth_image(i, background)
        return make_frame(torch.where(views.coverage[i][..., None] > 0, image, 1 - image), torch.ones(SIDE, SIDE))

    result, _ = run(wrong_outside, views, setup)
    assert result.rows[1]["psnr_foreground"] == PSNR_CAP_DB > result.rows[1]["psnr"]


def test_lpips_fills_its_column_or_leaves_it_empty(setup, monkeypatch):
    views = make_views()
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: FixedLpips() if net == "vgg" else None)
    result, _ = run(the_teacher(views), views, setup, lpips=True)
    assert {row["lpips_vgg"] for row in result.rows} == {0.25}
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: None)
    result, _ = run(the_teacher(views), views, setup, lpips=True)
    assert {row["lpips_vgg"] for row in result.rows} == {None}


def test_flicker_is_of_neighbours_on_the_path_in_the_same_split(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2 if i == 5 else 0.0), views, setup, reference="teacher")
    flicker = [row["flicker"] for row in result.frame_rows]
    assert flicker[0] is None and flicker[1:5] == [0, 0, 0, 0]
    assert flicker[5:7] == [pytest.approx(0.2, abs=1e-6)] * 2
    holdout, train, everything = (row["flicker"] for row in result.rows)
    assert holdout is None  # frames 0, 4, 8
    assert train == pytest.approx(0.2 / 4)  # of 2, 3, 6, 7: what 5 and 9 follow is held out
    assert everything == pytest.approx(2 * 0.2 / 9)
    views.cameras.c2w[5] = torch.diag(torch.tensor([-1.0, 1, -1, 1]))  # looks the other way
    result, _ = run(blank, views, setup, reference="teacher")
    assert [row["frame"] for row in result.frame_rows if row["flicker"] is None] == [0, 5, 6]


def test_flicker_is_of_pixels_that_count_in_both_frames(setup):
    views, counted = make_views(), torch.ones(FRAMES, SIDE, SIDE, dtype=torch.bool)
    counted[::2, :, :7] = False
    counted[7, :, 7:] = False  # no pixel in common with the one before, nor with the one behind

    def wrong_elsewhere(i, background):
        image = views.image(i, background)
        return make_frame(torch.where(counted[i][..., None], image, 1 - image), views.coverage[i].float() / 255)

    result, _ = run(wrong_elsewhere, replace(views, counted=counted), setup, reference="teacher")
    flicker = [row["flicker"] for row in result.frame_rows]
    assert flicker == [None if i in (0, 7, 8) else 0 for i in range(FRAMES)]


def test_depth_and_silhouette_against_the_teacher(setup):
    views = make_views()
    views = replace(views, distance=torch.full((FRAMES, SIDE, SIDE), 4.0))

    def render(i, background):
        alpha = views.coverage[i].float() / 255
        return RenderedFrame(views.image(i, background), alpha, torch.full_like(alpha, 5.0))

    result, _ = run(render, views, setup)
    teacher, truth = result.rows[:2]
    assert (teacher["depth_abs"], teacher["depth_rel"], teacher["alpha_iou"]) == (1.0, 0.25, 1.0)
    assert truth["depth_abs"] is None and truth["depth_rel"] is None
    assert teacher["psnr_teacher"] is None and truth["psnr_teacher"] == truth["psnr"]  # the render is the teacher's
    inside = int((views.coverage[0] > 0).sum())
    assert truth["alpha_iou"] == pytest.approx((inside - 1) / inside)
    assert (teacher["background"], teacher["width"], teacher["height"]) == ("white", SIDE, SIDE)


def test_lpips_of_the_networks_asked_for(setup, monkeypatch):
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: FixedLpips() if net == "alex" else None)
    result, _ = run(the_teacher(make_views()), make_views(), setup, lpips=["alex"])
    assert (result.rows[0]["lpips_alex"], result.rows[0]["lpips_vgg"]) == (0.25, None)


def test_only_pixels_that_count_are_measured(setup):
    """A student that is right where pixels count, and nowhere else, is as good as the teacher."""
    views, counted = make_views(), torch.zeros(FRAMES, SIDE, SIDE, dtype=torch.bool)
    counted[:, :18, 4:20] = True
    counted[:, 5, 5] = False

    def wrong_elsewhere(i, background):
        image = views.image(i, background)
        return make_frame(torch.where(counted[i][..., None], image, 1 - image), views.coverage[i].float() / 255)

    result, _ = run(wrong_elsewhere, replace(views, counted=counted), setup, reference="teacher")
    assert {(row["psnr"], row["ssim"], row["psnr_foreground"]) for row in result.rows} == {
        (PSNR_CAP_DB, 1, PSNR_CAP_DB)
    }
    share = float(views.coverage[0][counted[0]].float().mean() / 255)
    assert result.rows[0]["coverage"] == pytest.approx(share) == result.rows[0]["alpha_mean"]
    whole, _ = run(wrong_elsewhere, views, setup, reference="teacher")
    assert whole.rows[0]["psnr"] < 20


@pytest.mark.parametrize("share", [0.52, 0.21])
def test_pixels_that_do_not_count_raise_no_ssim(share):
    """A grey render of waves is as unlike them where a person is cut out of the middle as in the whole picture."""
    y, x = np.mgrid[:100, :100]
    target = (0.5 + 0.4 * np.sin(np.stack([x * 0.3, y * 0.2, (x + y) * 0.25], axis=-1))).astype(np.float32)
    image = np.full_like(target, 0.5)
    is_inside = (abs(y - 50) < 35) & (abs(x - 50) < 35)
    is_cross = (abs(y - 50) < 6) | (abs(x - 50) < 6)
    counted = {0.52: ~is_inside, 0.21: is_cross}[share]
    assert counted.mean() == pytest.approx(share, abs=0.01)
    whole = metrics.ssim(*CountedPixels(None).window(image, target))
    assert whole == metrics.ssim(image, target) == pytest.approx(0.091, abs=1e-3)
    assert metrics.ssim(*CountedPixels(counted).window(image, target)) == pytest.approx(whole, abs=0.1)


def test_a_picture_on_a_larger_canvas_has_the_figures_it_has_alone():
    image, target = np.random.default_rng(0).random((2, 40, 30, 3), np.float32)
    counted = np.zeros((50, 50), bool)
    counted[:40, :30] = True
    on_canvas = [np.pad(picture, ((0, 10), (0, 20), (0, 0))) for picture in (image, target)]
    assert metrics.ssim(*CountedPixels(counted).window(*on_canvas)) == metrics.ssim(image, target)
