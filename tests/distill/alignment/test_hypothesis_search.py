"""The searches: a number found by trying, an order found by matching; and what is rendered only once."""

import re
from dataclasses import replace

import pytest
import torch

from distill.alignment.diagnosis import THRESHOLD_DB, diagnose
from distill.alignment.hypotheses import AS_IT_IS, Cause, Hypothesis, scaled_positions
from distill.alignment.hypothesis_search import SEARCH_FRAMES, Trials, picture_errors, try_all
from distill.evaluation.metrics import psnr_blank
from scene.images import psnr


def best(trials, cause):
    return max((trial for trial in trials if trial.hypothesis.cause == cause), key=lambda trial: trial.psnr)


@pytest.mark.parametrize("scale", [0.7, 1.06])
def test_the_focal_length_is_found(comparison, scale):
    cameras = comparison.cameras
    wrong = replace(comparison, cameras=replace(cameras, fx=cameras.fx / scale, fy=cameras.fy / scale))
    trials, _ = try_all(wrong)
    found = best(trials, Cause.FOCAL)
    focal = found.hypothesis.cameras(wrong.cameras).fx[0] / cameras.fx[0]
    assert abs(focal.item() - 1) < 0.015 and found.psnr > trials[0].psnr + 3


@pytest.mark.parametrize("factor", [0.02, 0.3, 1.25, 40.0])
def test_the_units_of_positions_are_found(comparison, factor):
    wrong = replace(comparison, cameras=scaled_positions(comparison.cameras, factor))
    diagnosis = diagnose(wrong, THRESHOLD_DB)
    assert diagnosis.likeliest.hypothesis.cause == Cause.WORLD
    words, advice = diagnosis.likeliest.hypothesis.name, diagnosis.likeliest.hypothesis.advice
    assert float(words.split()[-1]) == pytest.approx(1 / factor, rel=0.02)
    assert float(re.search(r"by (\S+)\.$", advice)[1]) == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize(("wrong", "scale"), [("fy", 1.3), ("fx", 0.8)])
def test_the_one_of_two_focal_lengths_that_is_wrong_is_found(comparison, wrong, scale):
    cameras = comparison.cameras
    spoilt = replace(cameras, **{wrong: scale * getattr(cameras, wrong)})
    trials, _ = try_all(replace(comparison, cameras=spoilt))
    found = max(trials, key=lambda trial: trial.psnr)
    assert (
        found.hypothesis.name
        == {
            "fy": "pixels are square, and fl_y must equal fl_x",
            "fx": "pixels are square, and fl_x must equal fl_y",
        }[wrong]
    )
    torch.testing.assert_close(found.hypothesis.cameras(spoilt).fx, cameras.fx)
    assert found.psnr > trials[0].psnr + 3


def test_a_background_of_any_colour_is_found(comparison):
    blue = torch.tensor([0.1, 0.3, 0.9])
    pictures = comparison.pictures + (1 - comparison.coverage[..., None]) * (blue - 1)
    trials, _ = try_all(replace(comparison, pictures=pictures))
    found = best(trials, Cause.BACKGROUND)
    red, green, _ = (float(part) for part in found.hypothesis.advice.split("[")[1].split("]")[0].split(", "))
    assert abs(red - 0.1) < 0.03 and abs(green - 0.3) < 0.03 and found.psnr > trials[0].psnr + 10


def test_an_order_is_found_only_when_each_picture_has_one_render(comparison):
    pictures = comparison.pictures[torch.randperm(30, generator=torch.Generator().manual_seed(3))]
    names = [trial.hypothesis.name for trial in try_all(replace(comparison, pictures=pictures))[0]]
    assert any("in another order" in name for name in names)
    alike = replace(comparison, pictures=comparison.pictures[:1].expand(30, -1, -1, -1))
    names = [trial.hypothesis.name for trial in try_all(alike)[0]]
    assert not any("in another order" in name for name in names)


def test_trials_measure_what_they_say(comparison):
    small = comparison.some_frames(3)
    trials = Trials(small)
    views = [comparison.render(comparison.cameras, frame).over((1.0, 1.0, 1.0)).numpy() for frame in small.frames]
    targets = [comparison.pictures[frame].numpy() for frame in small.frames]
    mean = sum(psnr(a, b) for a, b in zip(views, targets, strict=True)) / 3
    assert trials.psnr(AS_IT_IS) == pytest.approx(mean)
    assert trials.psnr_blank == pytest.approx(sum(map(psnr_blank, targets)) / 3)
    assert trials.psnr_flat == pytest.approx(min(map(psnr_blank, views)))
    # Frames whose order is unknown do not count; with none left there is no figure.
    order = tuple(index if index == small.frames[1] else -1 for index in range(30))
    one = trials.psnr(Hypothesis("one", Cause.ORDER, order=order))
    assert one == pytest.approx(psnr(views[1], targets[1]))
    assert trials.psnr(Hypothesis("none", Cause.ORDER, order=(-1,) * 30)) == -torch.inf


def test_given_cameras_are_rendered_once(comparison):
    asked = []

    def render(cameras, index):
        asked.append(cameras)
        return comparison.render(cameras, index)

    steps = []
    trials, basis = try_all(replace(comparison, render=render), lambda: steps.append(1))
    assert trials[0].hypothesis is AS_IT_IS and len(steps) > len(trials)
    assert sum(cameras is basis.comparison.cameras for cameras in asked) == SEARCH_FRAMES + 3


def test_picture_errors_are_mean_squares():
    images, pictures = torch.rand(3, 4, 5, 3), torch.rand(6, 4, 5, 3)
    expected = (images[:, None] - pictures[None]).square().mean((2, 3, 4))
    torch.testing.assert_close(picture_errors(images, pictures).float(), expected)
    counted = torch.rand(6, 4, 5) > 0.4
    known = counted[None, ..., None]
    expected = ((images[:, None] - pictures[None]).square() * known).sum((2, 3, 4)) / (3 * known.sum((2, 3, 4)))
    torch.testing.assert_close(picture_errors(images, pictures, counted).float(), expected)
