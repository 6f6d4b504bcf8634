"""SSIM as a loss: against scikit-image and by hand, then numba against the torch reference, forward and backward."""

import pytest
import torch
from skimage.metrics import structural_similarity

from kernels.losses.ssim import ssim
from kernels.losses.ssim_numba import RADIUS, window

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


@IMPLEMENTATIONS
def test_equal_pictures_are_one(implementation):
    picture = torch.rand(13, 17, 3)
    assert float(ssim(picture, picture, implementation=implementation)) == pytest.approx(1.0, abs=1e-6)


@IMPLEMENTATIONS
def test_one_pixel_by_hand(implementation):
    # Beyond the edge is zero, so every blur is the window's middle weight, squared for two axes, times the value.
    k, a, b = float(window()[RADIUS]) ** 2, 0.2, 0.6
    means = (2 * k * a * k * b + 1e-4) / ((k * a) ** 2 + (k * b) ** 2 + 1e-4)
    rest = (2 * (k - k * k) * a * b + 9e-4) / ((k - k * k) * (a * a + b * b) + 9e-4)
    found = ssim(torch.full((1, 1, 1), a), torch.full((1, 1, 1), b), implementation=implementation)
    assert float(found) == pytest.approx(means * rest, rel=1e-5)


@IMPLEMENTATIONS
def test_inside_it_is_scikit_images(implementation):
    a = torch.rand(40, 50, 3)
    b = (a + 0.2 * torch.randn(40, 50, 3)).clamp(0, 1)
    row, column, step = 20, 25, 1e-4

    def total(change):
        """Sum of scikit-image's similarity map, one value of the picture changed; its padding is far from there."""
        moved = a.double().numpy().copy()
        moved[row, column, 1] += change
        window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        reference = b.double().numpy()
        return structural_similarity(moved, reference, **window, data_range=1.0, channel_axis=-1, full=True)[1].sum()

    leaf = a.clone().requires_grad_()
    ssim(leaf, b, implementation=implementation).backward()
    slope = (total(step) - total(-step)) / (2 * step) / a.numel()
    assert float(leaf.grad[row, column, 1]) == pytest.approx(slope, rel=1e-3)


def test_the_window_is_a_gaussian():
    weights = window()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-6)
    assert float(weights[RADIUS] / weights[RADIUS + 3]) == pytest.approx(2.718281828 ** (9 / 4.5), rel=1e-5)


@pytest.mark.parametrize("shape", [(37, 23, 3), (4, 50, 1), (1, 1, 3), (64, 33, 2)])
def test_numba_against_torch(shape):
    a = torch.rand(shape)
    b = (a + 0.2 * torch.randn(shape)).clamp(0, 1)
    results = []
    for implementation in ("torch", "numba"):
        leaf = a.clone().requires_grad_()
        value = ssim(leaf, b, implementation=implementation)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-3, atol=1e-4 * float(results[0][1].abs().max()))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one \\(H, W, C\\)"):
        ssim(torch.rand(4, 4, 3), torch.rand(4, 5, 3))
