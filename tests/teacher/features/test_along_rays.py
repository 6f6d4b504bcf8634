"""Features and depth statistics of rays through one and two Gaussians, by hand."""

import math

import pytest
import torch

from scene.rays import distance_per_z
from teacher.features.along_rays import ray_features
from teacher.features.channels import gaussian_features
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


def in_a_row(depths, opacities):
    """Round Gaussians on the axis of a camera at (0, 0, 3) that looks down -Z."""
    count = len(depths)
    return Gaussians(
        means=torch.tensor([[0.0, 0, 3 - depth] for depth in depths]).reshape(-1, 3),
        log_scales=torch.full((count, 3), 0.5).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacity_logits=torch.logit(torch.tensor(opacities)),
        sh=torch.arange(3.0 * count).reshape(count, 1, 3),
    )


def rays_of(gaussians, look_at, implementation, channels=("sh_dc", "opacity")):
    cameras = look_at([[0.0, 0.0, 3.0]], width=9, height=9)
    rasterizer = Rasterizer(gaussians, implementation)
    return ray_features(rasterizer, gaussians.means, gaussian_features(gaussians, channels), cameras, 0), cameras


@IMPLEMENTATIONS
def test_one_gaussian(look_at, implementation):
    found, cameras = rays_of(in_a_row([2.0], [0.8]), look_at, implementation)
    assert found.alpha[4, 4].item() == pytest.approx(0.8, abs=1e-5)
    assert found.features[4, 4].tolist() == pytest.approx([0.0, 0.64, 1.28, 0.64], abs=1e-5)
    torch.testing.assert_close(found.distance, 2.0 * distance_per_z(cameras, 0), rtol=1e-5, atol=0)
    assert found.distance_variance.abs().max() < 1e-6 and found.entropy.max() < 1e-4
    torch.testing.assert_close(found.effective, torch.ones(9, 9), rtol=0, atol=1e-4)


@IMPLEMENTATIONS
def test_two_gaussians(look_at, implementation):
    found, _ = rays_of(in_a_row([4.0, 2.0], [0.5, 0.8]), look_at, implementation)
    p = 0.8 / 0.9, 0.1 / 0.9
    assert found.features[4, 4, 3].item() == pytest.approx(0.8 * 0.8 + 0.1 * 0.5, abs=1e-5)
    mean = p[0] * 2 + p[1] * 4
    assert found.distance[4, 4].item() == pytest.approx(mean, rel=1e-5)
    assert found.distance_variance[4, 4].item() == pytest.approx(p[0] * p[1] * 4, rel=1e-4)
    assert found.entropy[4, 4].item() == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-5)
    assert found.effective[4, 4].item() == pytest.approx(1 / (p[0] ** 2 + p[1] ** 2), rel=1e-5)


@IMPLEMENTATIONS
def test_nothing_in_sight(look_at, implementation):
    for gaussians in (in_a_row([-2.0], [0.8]), in_a_row([], [])):
        found, _ = rays_of(gaussians, look_at, implementation)
        assert found.features.shape == (9, 9, 4) and all(part.abs().max() == 0 for part in found)


def test_many_gaussians_agree_between_implementations():
    gaussians, cameras = block_of_gaussians(), ring_of_cameras(1, 12, 12)
    features = gaussian_features(gaussians, ["sh_dc", "log_scale"])
    one, other = (
        ray_features(Rasterizer(gaussians, name), gaussians.means, features, cameras, 0) for name in ("numba", "torch")
    )
    for found, expected in zip(one, other, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)
    assert one.effective.max() > 2 and one.distance_variance.max() > 1e-4
