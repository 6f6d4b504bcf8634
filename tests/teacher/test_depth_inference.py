import re

import pytest
import torch

from scene.rays import SceneBox
from settings.errors import InputError
from teacher.depth import DepthKind
from teacher.depth_inference import DepthReport, infer_depth_kind, stretched_to, view_agreement, view_pairs
from tests.teacher.depth_scenes import BOX, orbit, render, trace


@pytest.fixture(scope="module")
def scene():
    cameras = orbit(24)
    return cameras, *render(cameras)


@pytest.mark.parametrize("kind", DepthKind)
@pytest.mark.parametrize("with_alpha", [True, False])
def test_auto_finds_every_kind(scene, kind, with_alpha):
    cameras, depth, alpha = scene
    report = infer_depth_kind(depth[kind], alpha if with_alpha else None, cameras, BOX)
    assert report.kind == kind, report.evidence
    assert report.inside[kind.quantity] > 0.98 and report.agreement[kind.quantity] < 0.02
    assert f"so the depth is {kind.value}" in report.evidence[-1]
    assert any("%" in sentence for sentence in report.evidence)
    assert report.require("depth") == kind


@pytest.mark.parametrize("kind", DepthKind)
def test_noise_above_the_difference_is_refused_rather_than_guessed(kind):
    # At a focal length of 20 image widths z and distance are the same to a thousandth; depth is noisy to 2%.
    cameras = orbit(6, size=24, radius=56, focal=20)
    depth, alpha = render(cameras)
    noise = torch.rand(alpha.shape, generator=torch.Generator().manual_seed(0)) * 0.04 + 0.98
    report = infer_depth_kind(depth[kind] * noise, alpha, cameras, SceneBox((-3, -3, -3), (3, 3, 3)))
    if kind.quantity == "inverse_z":
        assert report.kind == kind
    else:
        assert report.kind is None and "do not tell them apart" in report.evidence[-1]
        with pytest.raises(InputError, match="teacher: depth kind: .*Set teacher.depth_kind to one of z, distance"):
            report.require("teacher")


@pytest.mark.parametrize("kind", DepthKind)
def test_a_single_view_cannot_tell_z_from_distance(scene, kind):
    cameras, depth, alpha = scene
    report = infer_depth_kind(depth[kind][:1], alpha[:1], cameras[0], BOX)
    assert report.kind == (kind if kind.quantity == "inverse_z" else None)


def test_what_is_no_depth_is_refused(scene):
    cameras, depth, alpha = scene
    true = depth[DepthKind.Z]
    picture = true / true.amax((1, 2), keepdim=True)  # rescaled to [0, 1] for viewing
    report = infer_depth_kind(picture, alpha, cameras, BOX)
    assert report.kind is None and "stretched by itself, for its greatest value is 1" in report.evidence[-1]
    report = infer_depth_kind(true.roll(5, 0), alpha.roll(5, 0), cameras, BOX)  # another file's poses
    assert report.kind is None, report.evidence
    report = infer_depth_kind(torch.zeros_like(true), None, cameras, BOX)
    assert report.kind is None and report.evidence == ["all values are 0"] and "Write the depth files" in report.advice
    report = infer_depth_kind(true, torch.zeros_like(alpha), cameras, BOX)
    assert report.kind is None and "no pixel is fully covered" in report.evidence[0]
    noise = torch.rand(true.shape, generator=torch.Generator().manual_seed(0)) * 2 + 3
    report = infer_depth_kind(noise * (true > 0), None, cameras, BOX)
    assert report.kind is None, report.evidence


def test_silhouettes_that_fit_no_kind_are_refused(scene):
    cameras, depth, alpha = scene
    between = depth[DepthKind.Z_NORMALIZED] * alpha.sqrt()
    assert infer_depth_kind(between, alpha, cameras, BOX).kind is None
    # z that someone made from accumulated 1/z without dividing by alpha: too far at the silhouette.
    inverse = depth[DepthKind.INVERSE_Z]
    report = infer_depth_kind(torch.where(inverse > 0, 1 / inverse, 0), None, cameras, BOX)
    assert report.kind is None and "neither fading" in report.evidence[-1]


def test_no_silhouette_in_view():
    # So close that the scene fills every picture: alpha is 1 throughout, and both readings are the same.
    cameras = orbit(24, size=20, radius=2.2, focal=7)
    depth, alpha = render(cameras)
    assert (alpha == 1).all()
    report = infer_depth_kind(depth[DepthKind.DISTANCE], None, cameras, BOX)
    assert report.kind == DepthKind.DISTANCE and "no silhouette is in view" in report.evidence[-2]
    report = infer_depth_kind(depth[DepthKind.DISTANCE], alpha, cameras, BOX)
    assert report.kind.quantity == "distance" and "makes no difference" in report.evidence[-2]


def test_views_agree_on_exact_depth(scene):
    cameras, _, alpha = scene
    pairs = view_pairs(cameras, BOX, 25.0)
    assert len(pairs) == 12 and all(i != j for i, j in pairs)
    i, j = pairs[3]
    exact = [trace(cameras, frame) for frame in (i, j)]
    valid = [torch.isfinite(distance) for distance in exact]
    exact = [torch.where(mask, distance, 0) for mask, distance in zip(valid, exact, strict=True)]
    difference = view_agreement(exact, valid, cameras, (i, j))
    assert len(difference) > 200 and difference.abs().median() < 0.01
    farther = [distance * 1.04 for distance in exact]
    assert view_agreement((farther[0], exact[1]), valid, cameras, (i, j)).median() > 0.02


@pytest.mark.parametrize(
    ("kind", "factor"), [("z", 4.245), ("distance_normalized", 0.1), ("inverse_z", 1000.0), ("inverse_z", 4.245)]
)
def test_the_factor_of_other_units_is_found(scene, kind, factor):
    cameras, depth, alpha = scene
    report = infer_depth_kind(depth[DepthKind(kind)] * factor, alpha, cameras, BOX)
    undone = 1 / factor
    assert report.kind is None and "none reaches 80%: other units" in report.evidence[-1]
    said = re.search(r"multiplied by (\S+) and read as (\w+),", report.evidence[-1])
    assert float(said[1]) == pytest.approx(undone, rel=0.05) and said[2] == DepthKind(kind).quantity
    assert f"Multiply the files' values by {said[1]}, or set teacher.depth_kind to none" in report.advice


def test_no_factor_is_named_for_wrong_poses(scene):
    cameras, depth, alpha = scene
    shuffled = 10 * depth[DepthKind.Z].roll(5, 0)
    report = infer_depth_kind(shuffled, alpha.roll(5, 0), cameras, BOX)
    assert report.kind is None and "other units, a rescaled picture, or a wrong data.box" in report.evidence[-1]


def test_stretched_depth_has_the_greatest_value_of_a_picture():
    assert stretched_to([1.0, 1.0, 0.0, 1.0]) == 1.0 and stretched_to([255.0] * 5) == 255.0
    assert stretched_to([1.0, 1.01, 1.0]) is None and stretched_to([3.5] * 3) is None
    assert stretched_to([1.0]) is None, "one view may be so by chance"


def test_a_report_without_a_kind_is_an_error():
    with pytest.raises(InputError, match="depth kind: found a; b"):
        DepthReport(None, ["a", "b"]).require("x")
