"""The files of a view, by hand for one pixel."""

import numpy as np
import pytest
import torch

from kernels.gaussians.rasterize import RasterOutput
from teacher.depth import DepthKind
from teacher.export.planes import ExportFormat, depth_map, picture, rendered_planes, view_planes
from teacher.rasterizer import Drawing, Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras


def output(alpha, z=3.0, color=(1.0, 0.5, 0.25)):
    """Accumulated sums of one Gaussian at depth ``z`` that covers each pixel by ``alpha`` (H, W)."""
    alpha = torch.tensor(alpha)
    return RasterOutput(
        alpha[..., None] * torch.tensor(color), alpha, alpha * z, alpha / z, torch.zeros(*alpha.shape, 0)
    )


@pytest.mark.parametrize("kind", list(DepthKind))
def test_depth_of_each_kind(look_at, kind):
    cameras = look_at([[0.0, 0.0, 3.0]], width=2, height=2, focal=4.0)
    # Every pixel centre is half a pixel off the axis in both directions: its ray is this much longer than z.
    longer = (1 + 2 * 0.125**2) ** 0.5
    planes = view_planes(output([[0.5, 1.0], [0.0, 0.25]]), kind, cameras, 0)
    value = {"z": 3.0, "distance": 3.0 * longer, "inverse_z": 1 / 3}[kind.quantity]
    expected = [[value, value], [0, value]] if kind.normalized else [[0.5 * value, value], [0, 0.25 * value]]
    found = depth_map(planes, kind)
    assert found.dtype == np.float32 and found.shape == (2, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_pictures_on_a_background_and_with_straight_alpha(look_at):
    planes = view_planes(output([[0.5, 0.0]]), None, look_at([[0.0, 0.0, 3.0]]), 0)
    assert planes.shape == (1, 2, 4)
    assert picture(planes, (1.0, 0.0, 1.0)).tolist() == [[[255, 64, 159], [255, 0, 255]]]
    assert picture(planes, None).tolist() == [[[255, 128, 64, 128], [0, 0, 0, 0]]]


def test_blocks_are_averaged_premultiplied(look_at):
    cameras = look_at([[0.0, 0.0, 3.0]], width=2, height=2, focal=4.0)
    planes = view_planes(output([[1.0, 0.0], [0.5, 0.0]]), DepthKind.Z, cameras, 0, factor=2)
    assert planes.shape == (1, 1, 5)
    assert planes[0, 0].tolist() == pytest.approx([0.375, 0.1875, 0.09375, 0.375, 1.125])
    assert picture(planes, None).tolist() == [[[255, 128, 64, 96]]]
    assert depth_map(planes, DepthKind.Z_NORMALIZED).item() == pytest.approx(3.0)


def test_views_of_a_batch_are_as_rendered_one_by_one():
    cameras, format = ring_of_cameras(4), ExportFormat(DepthKind.DISTANCE, (1.0, 1.0, 1.0))
    rasterizer = Rasterizer(block_of_gaussians(), drawing=Drawing(supersample=2))
    batch = rendered_planes(rasterizer, cameras[[0, 2, 3]], format)
    for planes, index in zip(batch, (0, 2, 3), strict=True):
        assert torch.equal(planes, rendered_planes(rasterizer, cameras[index], format)[0])
    assert not torch.equal(batch[0], batch[1])
