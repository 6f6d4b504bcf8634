"""Depth files that are turned, of other frames or in other units: named, with what to do."""

from dataclasses import replace

import pytest
import torch

from distill.alignment.comparison import StoredDepth
from distill.alignment.depth_mistakes import misplaced
from distill.alignment.depth_reading import depth_readings
from distill.model.view_renderers import gaussians_renderer
from teacher.depth import DepthKind
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

FRAMES = (0, 7, 13)


def found_in(render, depth, *, is_exact):
    return misplaced(render, depth, depth_readings(render, depth), is_exact=is_exact)


@pytest.mark.parametrize("kind", [DepthKind.Z, DepthKind.DISTANCE_NORMALIZED, DepthKind.INVERSE_Z])
def test_files_that_are_right_are_left_alone(teacher, student, stored_depth, kind):
    depth = stored_depth(FRAMES, kind)
    assert found_in(teacher, depth, is_exact=True) is None
    assert found_in(student, depth, is_exact=False) is None


@pytest.mark.parametrize("factor", [1.001, 0.995, 1.02])
def test_depth_that_is_a_little_off_is_no_mistake(teacher, stored_depth, factor):
    depth = stored_depth(FRAMES, DepthKind.Z)
    assert found_in(teacher, replace(depth, values=depth.values * factor), is_exact=True) is None


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (lambda values: values.flip(2), "the depth files are mirrored left to right"),
        (lambda values: values.flip(1), "the depth files are upside down (mirrored)"),
        (lambda values: values.transpose(1, 2), "the depth files are transposed (rows for columns)"),
    ],
)
def test_turned_files(teacher, student, stored_depth, turn, words):
    depth = stored_depth(FRAMES, DepthKind.INVERSE_Z)
    depth = replace(depth, values=turn(depth.values))
    for render, is_exact in ((teacher, True), (student, False)):
        found = found_in(render, depth, is_exact=is_exact)
        assert f"supposing that {words}" in found.evidence and "row 0 is the top" in found.advice


@pytest.mark.parametrize("kind", [DepthKind.DISTANCE, DepthKind.INVERSE_Z])
def test_files_in_other_units_have_a_factor(teacher, stored_depth, kind):
    depth = stored_depth(FRAMES, kind)
    found = found_in(teacher, replace(depth, values=depth.values * 8), is_exact=True)
    assert "in other units" in found.evidence
    assert float(found.advice.split()[-1].rstrip(".")) == pytest.approx(0.125, rel=0.01)


def test_files_one_frame_late(teacher, stored_depth):
    depth = stored_depth(FRAMES, DepthKind.Z)
    late = replace(depth, frames=tuple(frame + 1 for frame in FRAMES))
    found = found_in(teacher, late, is_exact=True)
    assert "the depth files are 1 frame late" in found.evidence and "order of data.transforms" in found.advice


def test_files_of_another_scene_fit_nothing(teacher, student, stored_depth):
    depth = stored_depth(FRAMES, DepthKind.Z)
    noise = torch.rand(depth.values.shape, generator=torch.Generator().manual_seed(0))
    other = replace(depth, values=depth.values * (0.5 + noise))
    found = found_in(teacher, other, is_exact=True)
    assert "neither turned nor of other frames nor in other units" in found.evidence and "none" in found.advice
    assert found_in(student, other, is_exact=False) is None  # a student may be what is off


def test_nothing_to_compare_says_nothing(teacher, stored_depth):
    depth = stored_depth(FRAMES, DepthKind.Z)
    assert found_in(teacher, replace(depth, values=depth.values * 0), is_exact=True) is None


@pytest.mark.parametrize("far", [1, 4, 40])
def test_through_a_long_lens_mistakes_are_as_large_against_the_scene(far):
    """Cameras are 2 units away, or times as far with a lens times as long: there, relative to the distance, even depth
    of another frame is off by less than what differs by how depth is defined.
    """
    near = ring_of_cameras(30, 32, 32)
    poses = near.c2w.clone()
    poses[:, :3, 3] *= far
    cameras = replace(near, c2w=poses, fx=far * near.fx, fy=far * near.fy)
    render = gaussians_renderer(Rasterizer(block_of_gaussians()))
    views = [render(cameras, frame) for frame in FRAMES]
    values = torch.stack([view.distance for view in views])
    alpha = torch.stack([view.alpha for view in views])
    names = tuple(f"r_{index}" for index in range(30))
    depth = StoredDepth(values, alpha, cameras, DepthKind.DISTANCE_NORMALIZED, FRAMES, names, 1.3)
    assert found_in(render, depth, is_exact=True) is None
    late = replace(depth, frames=tuple(frame + 1 for frame in FRAMES))
    assert "the depth files are 1 frame late" in found_in(render, late, is_exact=True).evidence
    farther = replace(depth, values=values + 0.15 * (values > 0))
    assert found_in(render, farther, is_exact=True) is not None
