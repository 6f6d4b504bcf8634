"""Rasterisation: each rule of the 3DGS image formation by hand, then numba against the torch reference."""

from dataclasses import replace
from math import exp, pi, sqrt

import pytest
import torch

from kernels.gaussians.rasterize import View, rasterize
from tests.kernels.gaussians.gaussian_scenes import IMPLEMENTATIONS, VIEW, random_scene, random_view, scene


def psnr(a, b):
    return float(-10 * torch.log10(((a - b) ** 2).mean().clamp(min=1e-20)))


@IMPLEMENTATIONS
def test_single_isotropic_gaussian(implementation):
    # Projected variance (100 * 0.04 / 2)^2 = 4, plus the dilation 0.3.
    out = rasterize(*scene([0, 0, -2]), VIEW, implementation=implementation)
    assert float(out.alpha[4, 4]) == pytest.approx(0.8, abs=1e-6)
    assert float(out.alpha[4, 6]) == pytest.approx(0.8 * exp(-0.5 * 4 / 4.3), abs=1e-6)
    assert float(out.alpha[1, 2]) == pytest.approx(0.8 * exp(-0.5 * 13 / 4.3), abs=1e-6)
    assert out.rgb[4, 4].tolist() == pytest.approx([0.8, 0.4, 0.2], abs=1e-6)
    assert float(out.z[4, 4]) == pytest.approx(1.6, abs=1e-6)
    assert float(out.inverse_z[4, 4]) == pytest.approx(0.4, abs=1e-6)
    torch.testing.assert_close(out.alpha, out.alpha.flip(0))
    torch.testing.assert_close(out.alpha, out.alpha.T)


@IMPLEMENTATIONS
def test_footprint_ends_where_alpha_is_one_255th(implementation):
    # sqrt(2 ln(255 * 0.8) * 4.3) = 6.763 px: pixels 6 away from the centre are inside, 7 away outside.
    view = replace(VIEW, cx=20.5, cy=16.5, width=41, height=33)
    alpha = rasterize(*scene([0, 0, -2]), view, implementation=implementation).alpha
    row, column = torch.nonzero(alpha, as_tuple=True)
    radius = ((row - 16) ** 2 + (column - 20) ** 2).float().sqrt()
    assert len(row) == sum(i * i + j * j <= 6.763**2 for i in range(-7, 8) for j in range(-7, 8))
    assert radius.max() < 6.763
    assert alpha[alpha > 0].min() >= 1 / 255


@IMPLEMENTATIONS
def test_too_faint_to_be_seen(implementation):
    faint = rasterize(*scene([0, 0, -2], opacities=0.0039), VIEW, implementation=implementation)
    assert faint.alpha.max() == 0
    barely = rasterize(*scene([0, 0, -2], opacities=0.00393), VIEW, implementation=implementation)
    assert torch.nonzero(barely.alpha).tolist() == [[4, 4]]


@IMPLEMENTATIONS
def test_axes(implementation):
    # x/z = 0.02 and y/z = 0.03 at f = 100: two pixels right of the axis, three above it.
    out = rasterize(*scene([0.04, 0.06, -2], sigma=1e-4), VIEW, implementation=implementation)
    assert divmod(int(out.alpha.argmax()), 9) == (1, 6)


@IMPLEMENTATIONS
def test_jacobian_off_axis_and_its_clamp(implementation):
    # tan(fov/2) = 0.5. Jacobian row (f/z) * (1, 0, -x/z): at x/z = 0.4 the variance in x is 0.09 * (1 + 0.16) * 50^2.
    view = View(torch.eye(4), fx=100, fy=100, cx=50, cy=50, width=100, height=100)
    out = rasterize(*scene([0.8, 0, -2], sigma=0.3, opacities=0.9), view, implementation=implementation)
    variance_x, variance_y = 225 * 1.16 + 0.3, 225 + 0.3
    expected = 0.9 * exp(-0.5 * (9.5**2 / variance_x + 0.5**2 / variance_y))
    assert float(out.alpha[50, 99]) == pytest.approx(expected, abs=1e-6)
    # At x/z = 1 the centre is 50 px outside, and the Jacobian is taken at 1.3 * 0.5 = 0.65.
    out = rasterize(*scene([2, 0, -2], sigma=0.3, opacities=0.9), view, implementation=implementation)
    expected = 0.9 * exp(-0.5 * (50.5**2 / (225 * (1 + 0.65**2) + 0.3) + 0.5**2 / variance_y))
    assert float(out.alpha[50, 99]) == pytest.approx(expected, abs=1e-6)


@IMPLEMENTATIONS
def test_principal_point_moves_the_picture(implementation):
    gaussians = scene([[0, 0, -2], [0.05, -0.03, -2.5]], opacities=[0.5, 0.9])
    wide = replace(VIEW, cx=13.5, cy=11.5, width=24, height=20)
    whole = rasterize(*gaussians, wide, implementation=implementation)
    window = replace(wide, cx=wide.cx - 7, cy=wide.cy - 3, width=13, height=15)
    part = rasterize(*gaussians, window, implementation=implementation)
    for a, b in zip(whole[:4], part[:4], strict=True):
        torch.testing.assert_close(a[3:18, 7:20], b, atol=1e-6, rtol=1e-5)


@IMPLEMENTATIONS
def test_blended_by_depth_whatever_the_order_given(implementation):
    colors = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    gaussians = scene([[0, 0, -4], [0, 0, -2]], opacities=[0.5, 0.8], colors=colors)
    out = rasterize(*gaussians, VIEW, implementation=implementation)
    assert out.rgb[4, 4].tolist() == pytest.approx([0.8, 0.0, 0.2 * 0.5], abs=1e-6)
    assert float(out.alpha[4, 4]) == pytest.approx(0.9, abs=1e-6)
    assert float(out.z[4, 4]) == pytest.approx(0.8 * 2 + 0.1 * 4, abs=1e-6)
    assert float(out.inverse_z[4, 4]) == pytest.approx(0.8 / 2 + 0.1 / 4, abs=1e-6)


@IMPLEMENTATIONS
def test_equal_depths_keep_the_order_given(implementation):
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    out = rasterize(*scene([[0, 0, -2], [0, 0, -2]], colors=colors), VIEW, implementation=implementation)
    assert out.rgb[4, 4].tolist() == pytest.approx([0.8, 0.16, 0.0], abs=1e-6)


@IMPLEMENTATIONS
def test_closed_before_transmittance_falls_under_the_limit(implementation):
    # 0.05^3 = 1.25e-4 is still over 1e-4; the fourth would leave 6e-6 and is not blended, nor is the faint fifth.
    means = [[0, 0, -2 - 0.1 * i] for i in range(5)]
    out = rasterize(*scene(means, opacities=[0.95] * 4 + [0.01]), VIEW, implementation=implementation)
    assert float(out.alpha[4, 4]) == pytest.approx(1 - 0.05**3, abs=1e-7)
    expected = 0.95 * (2 + 0.05 * 2.1 + 0.05**2 * 2.2)
    assert float(out.z[4, 4]) == pytest.approx(expected, abs=1e-6)


@IMPLEMENTATIONS
def test_alpha_is_clamped(implementation):
    out = rasterize(*scene([0, 0, -2], opacities=1.0), VIEW, implementation=implementation)
    assert float(out.alpha[4, 4]) == pytest.approx(0.99, abs=1e-6)


@IMPLEMENTATIONS
def test_color_follows_the_direction_from_the_camera(implementation):
    # Camera at (0, 0, 1), Gaussian at (0, 0, -1): direction (0, 0, -1), of degree 1 only the z term is left.
    pose = torch.eye(4)
    pose[2, 3] = -1
    means, covariances, opacities, _ = scene([0, 0, -1])
    sh = torch.zeros(1, 4, 3)
    sh[0, 2] = torch.tensor([0.4, -0.4, 2.0])
    view = replace(VIEW, world_to_camera=pose)
    out = rasterize(means, covariances, opacities, sh, view, implementation=implementation)
    factor = sqrt(3 / (4 * pi))
    expected = [0.8 * (0.5 - 0.4 * factor), 0.8 * (0.5 + 0.4 * factor), 0.0]  # the third is clamped at 0
    assert out.rgb[4, 4].tolist() == pytest.approx(expected, abs=1e-6)


@IMPLEMENTATIONS
def test_near_and_behind(implementation):
    means = [[0, 0, -0.2], [0, 0, 1], [0, 0, -3]]
    out = rasterize(*scene(means), VIEW, near=0.2001, implementation=implementation)
    assert float(out.z[4, 4]) == pytest.approx(0.8 * 3, abs=1e-6)
    close = rasterize(*scene(means), VIEW, near=0.1, implementation=implementation)
    assert float(close.inverse_z[4, 4]) == pytest.approx(0.8 / 0.2 + 0.16 / 3, abs=1e-5)


@IMPLEMENTATIONS
@pytest.mark.parametrize("means", [[], [[0, 0, 1]], [[5, 5, -2]]])
def test_nothing_in_sight(implementation, means):
    gaussians = scene(means)
    channels = torch.ones(len(gaussians[0]), 2)
    out = rasterize(*gaussians, VIEW, channels=channels, implementation=implementation)
    assert out.rgb.shape == (9, 9, 3)
    assert all(image.shape[:2] == (9, 9) and image.abs().max() == 0 for image in out)


@IMPLEMENTATIONS
def test_not_finite_covariance_is_left_out(implementation):
    means, covariances, opacities, sh = scene([[0, 0, -1], [0, 0, -1.5], [0, 0, -2]])
    covariances = covariances.clone()
    covariances[0] = float("inf")
    covariances[1] = float("nan")
    out = rasterize(means, covariances, opacities, sh, VIEW, implementation=implementation)
    assert float(out.z[4, 4]) == pytest.approx(1.6, abs=1e-6)
    assert all(image.isfinite().all() for image in out[:4])


@pytest.mark.parametrize(("degree", "width", "height"), [(0, 33, 17), (1, 16, 16), (2, 1, 40), (3, 47, 31), (3, 65, 5)])
def test_numba_against_torch(degree, width, height):
    gaussians, view = random_scene(600, degree, seed=width), random_view(width, height)
    channels = torch.rand(600, 3)
    reference = rasterize(*gaussians, view, channels=channels, implementation="torch")
    fast = rasterize(*gaussians, view, channels=channels, implementation="numba")
    assert 0.05 < reference.alpha.mean() < 0.999
    for a, b in zip(reference, fast, strict=True):
        assert psnr(a, b) > 60


def test_long_thin_gaussian_keeps_its_shape():
    # One pixel wide, about 4000 long: as a float32 conic it would dissolve into noise.
    means, covariances, opacities, sh = scene([0, 0, -2])
    axis = torch.tensor([1.0, 0.37, 0.0]) / sqrt(1 + 0.37**2)
    covariances = (1600 * axis[:, None] * axis)[None]
    view = replace(VIEW, cx=40, cy=30, width=80, height=60)
    out = [rasterize(means, covariances, opacities, sh, view, implementation=i).alpha for i in ("torch", "numba")]
    assert float((out[0] - out[1]).abs().max()) < 0.005
    assert 80 < (out[0] > 0.3).sum() < 200


def test_threads_do_not_change_a_bit():
    gaussians, view = random_scene(9000, 1), random_view(101, 67)
    one, two = (
        rasterize(*gaussians, view, channels=torch.ones(9000, 1), implementation="numba", threads=threads)
        for threads in (1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@IMPLEMENTATIONS
def test_channels_are_blended_like_colour(implementation):
    colors = torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.5, 0.0]])
    means, covariances, opacities, sh = scene([[0, 0, -4], [0, 0, -2]], opacities=[0.5, 0.8], colors=colors)
    out = rasterize(
        means,
        covariances,
        opacities,
        sh,
        VIEW,
        channels=torch.cat([colors, -colors], dim=1),
        implementation=implementation,
    )
    torch.testing.assert_close(out.channels[..., :3], out.rgb, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out.channels[..., 3:], -out.rgb, atol=1e-6, rtol=1e-5)


@IMPLEMENTATIONS
def test_without_channels_there_are_none(implementation):
    assert rasterize(*scene([0, 0, -2]), VIEW, implementation=implementation).channels.shape == (9, 9, 0)


def test_auto_is_numba_and_unknown_is_refused():
    gaussians = random_scene(50, 1)
    auto = rasterize(*gaussians, random_view(20, 20))
    fast = rasterize(*gaussians, random_view(20, 20), implementation="numba")
    assert torch.equal(auto.rgb, fast.rgb)
    with pytest.raises(ValueError, match="rasterize: implementation 'cuda'"):
        rasterize(*gaussians, random_view(20, 20), implementation="cuda")
