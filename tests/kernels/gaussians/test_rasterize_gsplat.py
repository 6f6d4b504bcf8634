"""gsplat's conventions, on a fake that draws with the torch reference: pictures by hand, then the same as ours."""

import sys
from dataclasses import replace
from math import exp, pi, sqrt

import pytest
import torch

from kernels.gaussians.covariances import gaussian_covariances
from kernels.gaussians.rasterize import rasterize
from kernels.gaussians.rasterize_gsplat import gsplat_pictures, rasterize_gsplat
from tests.fake_gsplat import FakeGsplat
from tests.kernels.gaussians.gaussian_scenes import VIEW, scene


@pytest.fixture(autouse=True)
def gsplat(monkeypatch):
    fake = FakeGsplat()
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    return fake


def test_one_gaussian_on_its_pixel_with_every_plane():
    # x/z = 0.02 and y/z = 0.03 at f = 100: two pixels right of the axis, three above it. Variance 4 + 0.3 there.
    channels = torch.tensor([[3.0, -2.0]])
    out, _ = rasterize_gsplat(*scene([0.04, 0.06, -2]), [VIEW], channels=channels)
    assert out.rgb.shape == (1, 9, 9, 3) and out.channels.shape == (1, 9, 9, 2)
    assert divmod(int(out.alpha.argmax()), 9) == (1, 6)
    assert float(out.alpha[0, 1, 6]) == pytest.approx(0.8, abs=1e-6)
    assert out.rgb[0, 1, 6].tolist() == pytest.approx([0.8, 0.4, 0.2], abs=1e-6)
    assert float(out.z[0, 1, 6]) == pytest.approx(0.8 * 2, abs=1e-6)
    assert float(out.inverse_z[0, 1, 6]) == pytest.approx(0.8 / 2, abs=1e-6)
    assert out.channels[0, 1, 6].tolist() == pytest.approx([0.8 * 3, -0.8 * 2], abs=1e-6)
    # Off the axis the projected variance in x grows by 1 + 0.02^2.
    expected = 0.8 * exp(-0.5 * 4 / (4 * (1 + 0.02**2) + 0.3))
    assert float(out.alpha[0, 1, 4]) == pytest.approx(expected, abs=1e-5)


def test_a_batch_has_each_camera_its_own_pose_and_intrinsics(gsplat):
    behind = torch.eye(4)
    behind[2, 3] = -2.0  # the camera stands at z = 2, so the Gaussian is 4 away
    views = [VIEW, replace(VIEW, world_to_camera=behind, cx=6.5)]
    out, meta = rasterize_gsplat(*scene([0, 0, -2]), views)
    assert [divmod(int(alpha.argmax()), 9) for alpha in out.alpha] == [(4, 4), (4, 6)]
    assert out.z.amax((1, 2)).tolist() == pytest.approx([0.8 * 2, 0.8 * 4], abs=1e-6)
    assert out.inverse_z.amax((1, 2)).tolist() == pytest.approx([0.8 / 2, 0.8 / 4], abs=1e-6)
    assert out.channels.shape == (2, 9, 9, 0)
    assert len(gsplat.calls) == 1 and meta["means2d"].shape == (2, 1, 2)


def test_color_is_of_the_direction_from_each_camera():
    # Degree 1: Y_10 = sqrt(3 / 4 pi) z. From the front the direction is -z, from the back +z.
    back = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    back[2, 3] = -4.0  # at z = -4, looking down +z
    means, covariances, opacities, _ = scene([0, 0, -2])
    sh = torch.zeros(1, 4, 3)
    sh[0, 2] = torch.tensor([0.4, -0.4, 2.0])
    out, _ = rasterize_gsplat(means, covariances, opacities, sh, [VIEW, replace(VIEW, world_to_camera=back)])
    part = sqrt(3 / (4 * pi))
    front, rear = out.rgb[0, 4, 4].tolist(), out.rgb[1, 4, 4].tolist()
    assert front == pytest.approx([0.8 * (0.5 - 0.4 * part), 0.8 * (0.5 + 0.4 * part), 0.0], abs=1e-6)
    assert rear == pytest.approx([0.8 * (0.5 + 0.4 * part), 0.8 * (0.5 - 0.4 * part), 0.8 * (0.5 + 2 * part)], abs=1e-6)


def random_scene():
    means = torch.randn(60, 3) * 0.5 + torch.tensor([0.0, 0.0, -3.0])
    half = torch.randn(60, 3, 3) * 0.08
    return means, half @ half.transpose(1, 2), torch.rand(60), torch.randn(60, 9, 3) * 0.4


def test_the_same_images_and_gradients_as_the_reference():
    view = replace(VIEW, fx=40, fy=50, cx=9, cy=7, width=20, height=15)
    inputs, weight = (*random_scene(), torch.randn(60, 3)), torch.rand(15, 20, 1)
    results = []
    for use_gsplat in (True, False):
        leaves = [value.clone().requires_grad_() for value in inputs]
        if use_gsplat:
            batch, _ = rasterize_gsplat(*leaves[:4], [view], channels=leaves[4])
            out = [plane[0] for plane in batch]
        else:
            out = rasterize(*leaves[:4], view, channels=leaves[4], implementation="torch")
        planes = torch.cat([out[0], *(plane[..., None] for plane in out[1:4]), out[4]], dim=-1)
        (planes * weight).sum().backward()
        grads = [leaf.grad for leaf in leaves]
        grads[1] = (grads[1] + grads[1].transpose(1, 2)) / 2
        results.append([planes, *grads])
    for ours, reference in zip(*results, strict=True):
        assert reference.abs().max() > 0
        torch.testing.assert_close(ours, reference, atol=1e-4, rtol=1e-3)


def test_the_gradient_of_covariances_is_symmetric():
    means, covariances, opacities, sh = random_scene()
    covariances = covariances.clone().requires_grad_()
    out, _ = rasterize_gsplat(means, covariances, opacities, sh, [replace(VIEW, fx=20, fy=20)])
    out.alpha.square().sum().backward()
    assert covariances.grad[:, 0, 1].abs().max() > 0
    torch.testing.assert_close(covariances.grad, covariances.grad.transpose(1, 2))


def test_on_and_behind_the_camera_leave_no_trace(gsplat):
    means = torch.tensor([[0, 0, 0.0], [0, 0, 1], [0, 0, -2]]).requires_grad_()
    _, covariances, opacities, sh = scene([[0, 0, 0.0]] * 3)
    out, _ = rasterize_gsplat(means, covariances, opacities, sh, [VIEW], near=0.0)
    (out.inverse_z.sum() + out.rgb.sum()).backward()
    assert means.grad.isfinite().all() and means.grad[2].abs().max() > 0
    assert out.z[0, 4, 4].item() == pytest.approx(1.6, abs=1e-6)
    rasterize_gsplat(*scene([0, 0, -2]), [VIEW], near=0.37, absgrad=True)
    assert gsplat.calls[-1]["near_plane"] == 0.37 and gsplat.calls[-1]["absgrad"]


def test_what_is_not_finite_is_left_out():
    means, covariances, opacities, sh = scene([[0, 0, -1], [0, 0, -1.5], [0, 0, -2]])
    means, covariances = means.clone(), covariances.clone()
    covariances[0, 0, 0], means[1, 0] = float("inf"), float("nan")
    out, _ = rasterize_gsplat(means, covariances, opacities, sh, [VIEW])
    assert float(out.z[0, 4, 4]) == pytest.approx(1.6, abs=1e-6)
    assert all(plane.isfinite().all() for plane in out)


def test_views_of_one_size():
    for views in ([], [VIEW, replace(VIEW, width=10)]):
        with pytest.raises(ValueError, match=f"found {len(views)} sizes"):
            rasterize_gsplat(*scene([0, 0, -2]), views)


def test_pictures_for_a_clock_are_the_same_and_all_the_work_is_gsplats(gsplat):
    behind = torch.eye(4)
    behind[2, 3] = -2.0
    views = [
        replace(VIEW, fx=40, fy=50, cx=9, cy=7, width=20, height=15, world_to_camera=p) for p in (torch.eye(4), behind)
    ]
    means, _, opacities, sh = random_scene()
    scales, rotations = torch.rand(60, 3) * 0.1 + 0.02, torch.randn(60, 4)
    draw = gsplat_pictures(means, rotations, scales, opacities, sh, views, near=0.3)
    assert not gsplat.calls, "what is done once is not timed"
    covariances = gaussian_covariances(scales.log(), rotations)
    for index, view in enumerate(views):
        image, alpha = draw(index)
        reference = rasterize(means, covariances, opacities, sh, view, near=0.3, implementation="torch")
        torch.testing.assert_close(image[..., :3], reference.rgb, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(image[..., 3], reference.z, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alpha, reference.alpha, atol=1e-5, rtol=1e-4)
    assert [call["cameras"] for call in gsplat.calls] == [1, 1] and all(call["as_it_is"] for call in gsplat.calls)
