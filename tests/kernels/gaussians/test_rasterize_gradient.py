"""The rasteriser's gradients: by hand, then numba against autograd of the torch reference."""

from math import exp

import pytest
import torch

from kernels.gaussians.rasterize import ScreenSpace, rasterize
from tests.kernels.gaussians.gaussian_scenes import IMPLEMENTATIONS, VIEW, random_scene, random_view, scene


def gradients(gaussians, view, channels, implementation, threads=None, looks=lambda out: out):
    """Gradients of a random weighting of all outputs: means, covariances, opacities, sh, channels; and the screen."""
    leaves = [value.clone().requires_grad_() for value in (*gaussians, channels)]
    screen = ScreenSpace()
    out = rasterize(
        *leaves[:4], view, channels=leaves[4], screen=screen, implementation=implementation, threads=threads
    )
    generator = torch.Generator().manual_seed(1)
    sum((plane * torch.randn(plane.shape, generator=generator)).sum() for plane in looks(out)).backward()
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return grads, screen


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


@IMPLEMENTATIONS
def test_gradient_of_one_gaussian_by_hand(implementation):
    # At two pixels right of the centre: alpha = o * exp(-0.5 * 4 / v), v = (100 s / 2)^2 + 0.3 = 4.3, u = 100 x / 2.
    means, covariances, opacities, sh = (value.clone().requires_grad_() for value in scene([0, 0, -2]))
    rasterize(means, covariances, opacities, sh, VIEW, implementation=implementation).alpha[4, 6].backward()
    alpha = 0.8 * exp(-0.5 * 4 / 4.3)
    assert float(opacities.grad) == pytest.approx(alpha / 0.8, rel=1e-5)
    assert float(means.grad[0, 0]) == pytest.approx(alpha * 2 / 4.3 * 50, rel=1e-5)
    # Towards the camera, +z, the picture of the Gaussian grows: dv/dz = 4 / 1 of the projected part, v - 0.3.
    assert float(means.grad[0, 2]) == pytest.approx(alpha * 0.5 * 4 / 4.3**2 * 4, rel=1e-5)
    assert float(covariances.grad[0, 0, 0]) == pytest.approx(alpha * 0.5 * 4 / 4.3**2 * 2500, rel=1e-5)
    assert sh.grad is None or float(sh.grad.abs().max()) == 0


@IMPLEMENTATIONS
def test_a_clamped_alpha_has_no_gradient(implementation):
    means, covariances, _, sh = scene([0, 0, -2])
    opacities = torch.tensor([1.0], requires_grad=True)
    out = rasterize(means, covariances, opacities, sh, VIEW, implementation=implementation)
    out.alpha[4, 4].backward(retain_graph=True)
    assert float(opacities.grad) == 0
    out.alpha[4, 6].backward()
    assert float(opacities.grad) == pytest.approx(exp(-0.5 * 4 / 4.3), rel=1e-5)


@pytest.mark.parametrize(
    ("count", "degree", "width", "height", "extra"),
    [(40, 3, 33, 17, 0), (300, 3, 47, 31, 2), (500, 2, 65, 40, 1), (60, 0, 16, 16, 3), (900, 1, 64, 64, 0)],
)
def test_numba_gradient_against_autograd(count, degree, width, height, extra):
    gaussians, view = random_scene(count, degree, seed=count), random_view(width, height)
    channels = torch.randn(count, extra)
    expected, expected_screen = gradients(gaussians, view, channels, "torch")
    found, screen = gradients(gaussians, view, channels, "numba")
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 1e-4
    assert expected_screen.gradient.norm() > 0
    assert relative_error(screen.gradient, expected_screen.gradient) < 1e-4
    torch.testing.assert_close(screen.radius, expected_screen.radius, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "looks", [lambda out: out[:1], lambda out: out[1:2], lambda out: out[3:4], lambda out: out[4:]]
)
def test_gradient_of_a_loss_that_looks_at_one_output(looks):
    gaussians, view, channels = random_scene(200, 1), random_view(40, 30), torch.randn(200, 2)
    expected, _ = gradients(gaussians, view, channels, "torch", looks=looks)
    found, _ = gradients(gaussians, view, channels, "numba", looks=looks)
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 1e-4


def test_gradient_does_not_depend_on_the_threads():
    gaussians, view, channels = random_scene(5000, 1), random_view(101, 67), torch.randn(5000, 1)
    one, _ = gradients(gaussians, view, channels, "numba", threads=1)
    two, _ = gradients(gaussians, view, channels, "numba", threads=2)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@IMPLEMENTATIONS
def test_the_gradient_of_a_blended_channel_is_the_weight_of_each_gaussian(implementation):
    channels = torch.zeros(2, 1, requires_grad=True)
    gaussians = scene([[0, 0, -4], [0, 0, -2]], opacities=[0.5, 0.8])
    out = rasterize(*gaussians, VIEW, channels=channels, implementation=implementation)
    out.channels[4, 4].sum().backward()
    assert channels.grad[:, 0].tolist() == pytest.approx([0.2 * 0.5, 0.8], abs=1e-6)


@IMPLEMENTATIONS
def test_what_is_not_seen_has_no_radius_and_no_gradient(implementation):
    # In sight; behind the camera; far beside the picture.
    gaussians = [value.clone().requires_grad_() for value in scene([[0, 0, -2], [0, 0, 3], [9, 0, -2]])]
    screen = ScreenSpace()
    out = rasterize(*gaussians, VIEW, screen=screen, implementation=implementation)
    (out.alpha * torch.linspace(0, 1, 9)).sum().backward()
    # sqrt(2 ln(255 * 0.8) * 4.3)
    assert screen.radius.tolist() == pytest.approx([6.763, 0, 0], abs=1e-3)
    assert float(screen.gradient[0, 0]) > 0 and float(screen.gradient[1:].abs().max()) == 0
    assert float(gaussians[0].grad[1:].abs().max()) == 0
