"""What is found out before the first step about Gaussians that do not show what the pictures do."""

import logging
import re

import pytest

from settings.errors import InputError
from teacher.gaussian_files.ply import read_ply, write_ply
from tests.distill.alignment.checked_scene import AUTO, GAUSSIANS, NO_DEPTH, mask, other_world, prepare, warnings_of


@pytest.mark.parametrize("overrides", [AUTO, NO_DEPTH])
def test_gaussians_of_another_world_are_refused(toy, overrides):
    other_world(toy)
    with pytest.raises(
        InputError, match=r"another world: found .* dB from the renders \(a blank picture: .*filling 5.8%"
    ):
        prepare(toy, *overrides)


def test_gaussians_of_a_masked_capture_are_compared_where_pixels_count(toy, caplog):
    mask(toy)
    other_world(toy)
    first, *_ = warnings_of(caplog, toy, *GAUSSIANS)
    assert "point_cloud.ply: another world: found" in first and "dB from ground truth" in first
    with pytest.raises(InputError, match="another world: found .* dB from the renders"):
        prepare(toy, *NO_DEPTH)


def test_gaussians_of_another_world_than_ground_truth_are_a_warning(toy, caplog):
    other_world(toy)
    first, *_ = warnings_of(caplog, toy, *GAUSSIANS)
    assert "point_cloud.ply: another world: found" in first and "dB from ground truth" in first


def test_gaussians_of_another_world_than_images_that_are_trained_on_too_are_refused(toy, caplog):
    other_world(toy)
    both = (*GAUSSIANS, "data.ground_truth={split: train, weight: 2}", "data.holdout_every=4")
    with caplog.at_level(logging.INFO), pytest.raises(InputError, match="another world: .*dataparser_transforms"):
        prepare(toy, *both)
    assert "dB from ground truth: looking for the cause" in caplog.text


def with_giants(folder):
    gaussians = read_ply(folder / "point_cloud.ply")
    gaussians.log_scales[:2] = 9.0
    write_ply(folder / "point_cloud.ply", gaussians)


def test_gaussians_so_wide_that_they_hide_the_scene_are_named_and_how_to_do_without_them(toy, caplog):
    with_giants(toy)
    found = (
        r"point_cloud.ply: Gaussians: found 2 of 729 Gaussians of teacher.ply, far wider than the scene \(standard "
        r"deviation up to 8.1e\+03\) or far away from it: with them pictures are \d\.\d\d dB from the renders, without "
        r"them [3-6]\d\.\d\d dB .* Delete them from the file, or --set teacher.ply=null"
    )
    with pytest.raises(InputError, match=found):
        prepare(toy)
    said = warnings_of(caplog, toy, *GAUSSIANS)
    assert not any("another world" in each or "one export" in each for each in said)
    clipped = r"--set '(data\.box=.*?)' --set teacher\.clip=true, which draws nothing outside of the box"
    (setting,) = {*re.findall(clipped, " ".join(said))}
    caplog.clear()
    (read,) = warnings_of(caplog, toy, *GAUSSIANS, setting, "teacher.clip=true")
    assert "delete them from the file if they hide it" in read
    caplog.clear()
    assert warnings_of(caplog, toy, "teacher.ply=null") == []
