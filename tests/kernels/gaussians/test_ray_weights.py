"""Sums over a pixel's blending weights, by hand and against the reference."""

import math

import pytest
import torch

from kernels.gaussians.rasterize import rasterize
from kernels.gaussians.ray_weights import ray_weights
from tests.kernels.gaussians.test_rasterize import VIEW, random_scene, random_view, scene

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


@IMPLEMENTATIONS
def test_one_gaussian_by_hand(implementation):
    means, covariances, opacities, _ = scene([0, 0, -2])
    found = ray_weights(means, covariances, opacities, VIEW, implementation=implementation)
    assert found.total[4, 4].item() == pytest.approx(0.8, abs=1e-6)
    assert found.square[4, 4].item() == pytest.approx(0.64, abs=1e-6)
    assert found.w_log_w[4, 4].item() == pytest.approx(0.8 * math.log(0.8), abs=1e-6)
    assert found.entropy[4, 4].item() == pytest.approx(0, abs=1e-5)
    assert found.effective[4, 4].item() == pytest.approx(1, abs=1e-5)


@IMPLEMENTATIONS
def test_two_gaussians_by_hand(implementation):
    means, covariances, opacities, _ = scene([[0, 0, -4], [0, 0, -2]], opacities=[0.5, 0.8])
    found = ray_weights(means, covariances, opacities, VIEW, implementation=implementation)
    p = 0.8 / 0.9, 0.1 / 0.9
    assert found.total[4, 4].item() == pytest.approx(0.9, abs=1e-6)
    assert found.entropy[4, 4].item() == pytest.approx(-sum(q * math.log(q) for q in p), abs=1e-5)
    assert found.effective[4, 4].item() == pytest.approx(1 / (p[0] ** 2 + p[1] ** 2), abs=1e-5)


@IMPLEMENTATIONS
@pytest.mark.parametrize("means", [[], [[0, 0, 1]], [[5, 5, -2]]])
def test_nothing_in_sight(implementation, means):
    found = ray_weights(*scene(means)[:3], VIEW, implementation=implementation)
    assert all(part.shape == (9, 9) and part.abs().max() == 0 for part in (*found, found.entropy, found.effective))


@pytest.mark.parametrize(("width", "height"), [(33, 17), (16, 16), (1, 40), (65, 5)])
def test_numba_against_torch(width, height):
    gaussians, view = random_scene(600, 0, seed=width), random_view(width, height)
    reference, fast = (ray_weights(*gaussians[:3], view, implementation=name) for name in ("torch", "numba"))
    assert reference.total.mean() > 0.05 and reference.effective.max() > 2
    for found, expected in zip(fast, reference, strict=True):
        # A pixel that one closes and the other leaves open for one more Gaussian differs by what that adds.
        assert (found - expected).abs().quantile(0.98) < 1e-4
    assert torch.equal(fast.total, rasterize(*gaussians, view, implementation="numba").alpha)


def test_threads_do_not_change_a_bit():
    gaussians, view = random_scene(9000, 0), random_view(101, 67)
    one, two = (ray_weights(*gaussians[:3], view, implementation="numba", threads=threads) for threads in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
