"""Gaussians drawn in boxes: the boxes' transmittances multiply to that of the whole."""

from __future__ import annotations

from math import erf, sqrt

import pytest
import torch

from kernels.gaussians.clipped_gaussians import along_rays
from kernels.gaussians.rasterize import rasterize
from tests.kernels.gaussians.gaussian_scenes import IMPLEMENTATIONS, VIEW, random_scene, random_view, scene

FAR = 100.0


@IMPLEMENTATIONS
def test_the_share_of_a_gaussian_is_that_of_its_density_along_the_ray(implementation):
    # sigma 0.2, the face half a sigma in front of the centre; the middle ray is widened by 0.3 px^2 (2 / 100)^2.
    box = ((-FAR, -FAR, -1.9), (FAR, FAR, 0.5))
    out = rasterize(*scene([0, 0, -2], sigma=0.2), VIEW, clip=box, implementation=implementation)
    share = 0.5 * (1 + erf(-0.1 / sqrt(2 * (0.04 + 0.3 * (2 / 100) ** 2))))
    alpha = 1 - (1 - 0.8) ** share
    assert float(out.alpha[4, 4]) == pytest.approx(alpha, abs=1e-5)
    assert out.rgb[4, 4].tolist() == pytest.approx([alpha, alpha / 2, alpha / 4], abs=1e-5)


@IMPLEMENTATIONS
def test_boxes_multiply_to_the_whole_and_a_ray_that_misses_one_sees_nothing_of_it(implementation):
    gaussians, view = random_scene(80, 1), random_view(48, 36)
    whole = rasterize(*gaussians, view, implementation=implementation)
    eye = torch.linalg.inv(view.world_to_camera.double())[:3, 3].tolist()
    light = torch.ones(view.height, view.width, dtype=torch.float64)
    boxes, cut = [], eye[0] + 0.01  # the camera is in two of them, close to a face
    for x in ((-FAR, cut), (cut, FAR)):
        boxes += [((x[0], -FAR, -FAR), (x[1], 0.1, FAR)), ((x[0], 0.1, -FAR), (x[1], FAR, FAR))]
    for box in boxes:
        part = rasterize(*gaussians, view, clip=box, implementation=implementation)
        light *= 1 - part.alpha.double()
    open_pixels = whole.alpha < 0.99  # others are closed early, each box by itself
    assert open_pixels.sum() > 100
    torch.testing.assert_close(light[open_pixels], 1 - whole.alpha.double()[open_pixels], atol=1e-5, rtol=0)
    behind = ((-FAR, -FAR, eye[2] + 500), (FAR, FAR, eye[2] + 600))
    assert rasterize(*gaussians, view, clip=behind, implementation=implementation).alpha.max() == 0


def test_numba_draws_what_torch_draws():
    gaussians, view = random_scene(80, 1), random_view(48, 36)
    middle = gaussians[0].mean(0)
    box = tuple((middle - 0.4).tolist()), tuple((middle + 0.5).tolist())
    ours, reference = (rasterize(*gaussians, view, clip=box, implementation=name) for name in ("numba", "torch"))
    assert 0.01 < reference.alpha.mean() < 0.95 * rasterize(*gaussians, view).alpha.mean()
    for mine, right in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, right, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_gaussians_that_straddle_has_the_strides_that_the_kernel_is_compiled_for(count):
    means, covariances, *_ = random_scene(count, 0)
    assert all(part.is_contiguous() for part in along_rays(means, covariances, VIEW))
