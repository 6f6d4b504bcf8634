"""The rasteriser as the teacher sees it: cameras in, images out."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from scene.cameras import Cameras
from scene.rays import SceneBox, image_rays
from settings.errors import InputError
from teacher.gaussians import Gaussians
from teacher.rasterizer import Drawing, Rasterizer, picture_renderer, raster_implementation
from tests.fake_gsplat import FakeGsplat


def cameras():
    """Two cameras: on +Z looking down -Z, and on +X looking down -X."""
    c2w = torch.eye(4).repeat(2, 1, 1)
    c2w[0, 2, 3] = 3.0
    c2w[1] = torch.tensor([[0.0, 0, 1, 3], [0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    focal = torch.tensor([40.0, 60.0])
    return Cameras(c2w, focal, focal, torch.tensor([15.5, 12.0]), torch.tensor([10.5, 9.0]), 31, 21)


def one_gaussian(mean):
    return Gaussians(
        means=torch.tensor([mean]),
        log_scales=torch.full((1, 3), 0.02).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]]),
        opacity_logits=torch.tensor([2.0]),
        sh=torch.zeros(1, 1, 3),
    )


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("implementation", ["numba", "torch"])
def test_gaussian_lies_on_the_rays_of_its_pixels(index, implementation):
    mean = torch.tensor([0.3, 0.2, -0.4])
    out = Rasterizer(one_gaussian(mean.tolist()), implementation).render(cameras(), index)
    assert out.alpha.shape == (21, 31) and out.alpha.dtype == torch.float32
    pixel = int(out.alpha.argmax())
    origins, directions = image_rays(cameras(), index)
    offset = mean - origins[pixel]
    distance_to_ray = torch.linalg.cross(directions[pixel], offset).norm()
    assert distance_to_ray < 0.71 * float(offset.norm()) / 40  # within half a pixel's diagonal
    z = 3.0 - mean[[2, 0][index]]
    torch.testing.assert_close(out.z.flatten()[pixel] / out.alpha.flatten()[pixel], z)
    torch.testing.assert_close(out.rgb, 0.5 * out.alpha[..., None].expand(-1, -1, 3))


def test_near_is_a_setting():
    gaussians = one_gaussian([0.0, 0.0, 2.9])
    assert Rasterizer(gaussians).render(cameras(), 0).alpha.max() == 0
    assert Rasterizer(gaussians, drawing=Drawing(near=0.01)).render(cameras(), 0).alpha.max() > 0.5


@pytest.mark.parametrize(("lower", "blocks"), [(-1.0, True), (-0.3, False)])
def test_with_a_clip_rays_are_blocked_by_gaussians_that_are_whole_in_it(lower, blocks):
    """An opaque one that reaches 0.6 about the origin, seen from 3 away."""
    gaussian = replace(one_gaussian([0.0, 0.0, 0.0]), opacity_logits=torch.tensor([6.0]))
    wide = replace(gaussian, log_scales=torch.full((1, 3), 0.2).log())
    drawing = Drawing(clip=SceneBox((-1.0, -1.0, lower), (1.0, 1.0, 1.0)))
    reach = Rasterizer(wide, "torch", drawing=drawing).sight(cameras(), 0, blocked=0.5)
    assert (2.4 < reach[10, 15] < 3.7) if blocks else reach.isinf().all()


def test_half_axes_are_found_once_by_whichever_thread_first_asks_where_rays_end(monkeypatch):
    half_axes, found = Gaussians.half_axes, []

    def slowly(gaussians):
        found.append(gaussians)
        time.sleep(0.05)
        return half_axes(gaussians)

    monkeypatch.setattr(Gaussians, "half_axes", slowly)
    rasterizer = Rasterizer(one_gaussian([0.0, 0.0, 0.0]), "torch")
    assert rasterizer.render(cameras(), 0).alpha.any() and not found
    with ThreadPoolExecutor(4) as pool:
        reaches = [*pool.map(lambda _: rasterizer.sight(cameras(), 0, blocked=0.5), range(4))]
    assert len(found) == 1 and all(torch.equal(reach, reaches[0]) for reach in reaches)


def test_a_batch_is_the_single_images_stacked():
    rasterizer = Rasterizer(one_gaussian([0.3, 0.2, -0.4]), "torch")
    channels = torch.tensor([[2.0, 5.0]])
    batch = rasterizer.render_batch(cameras(), channels)
    assert batch.rgb.shape == (2, 21, 31, 3) and batch.channels.shape == (2, 21, 31, 2)
    for index in range(2):
        for whole, single in zip(batch, rasterizer.render(cameras(), index, channels), strict=True):
            assert torch.equal(whole[index], single)
    torch.testing.assert_close(batch.channels, batch.alpha[..., None] * channels)


def test_gsplat_draws_on_its_device_after_the_checks(monkeypatch):
    asked = []
    monkeypatch.setitem(sys.modules, "gsplat", FakeGsplat())
    monkeypatch.setattr("teacher.rasterizer.ensure_gsplat", asked.append)
    gaussians = one_gaussian([0.3, 0.2, -0.4])
    rasterizer = Rasterizer(gaussians, "gsplat", drawing=Drawing(near=0.1))
    assert asked == [torch.device("cpu")] and rasterizer.implementation == "gsplat"
    channels = torch.tensor([[2.0, 5.0]])
    batch = rasterizer.render_batch(cameras(), channels)
    for index in range(2):
        for one, reference in zip(
            rasterizer.render(cameras(), index, channels),
            Rasterizer(gaussians, "torch", drawing=Drawing(near=0.1)).render(cameras(), index, channels),
            strict=True,
        ):
            torch.testing.assert_close(one, reference)
    assert torch.equal(batch.z[1], rasterizer.render(cameras(), 1).z)
    assert sys.modules["gsplat"].calls[0]["cameras"] == 2


def test_gsplat_is_chosen_on_cuda_alone_and_its_name_is_binding():
    gaussians = one_gaussian([0.3, 0.2, -0.4])
    assert Rasterizer(gaussians).implementation == "cpu"
    on_cpu = Rasterizer(gaussians, "cpu", device="cuda")
    assert on_cpu.implementation == "cpu" and on_cpu.device == torch.device("cpu")
    assert on_cpu.render(cameras(), 0).alpha.device == torch.device("cpu")
    with pytest.raises(InputError, match="teacher.rasterizer=cpu"):
        Rasterizer(gaussians, "gsplat", device="cpu")


def test_auto_draws_on_the_cpu_where_gsplat_does_not_run(monkeypatch):
    asked = []
    monkeypatch.setattr("teacher.rasterizer.gsplat_runs", lambda device: bool(asked.append(device)))
    rasterizer = Rasterizer(one_gaussian([0.3, 0.2, -0.4]), device="cuda")
    assert asked == [torch.device("cuda")] and rasterizer.implementation == "cpu"
    assert rasterizer.device == torch.device("cpu") and rasterizer.render(cameras(), 0).alpha.max() > 0.5
    assert raster_implementation("auto", torch.device("cpu")) == "cpu" and len(asked) == 1
    monkeypatch.setattr("teacher.rasterizer.gsplat_runs", lambda device: True)
    assert raster_implementation("auto", torch.device("cuda")) == "gsplat"


@pytest.mark.parametrize("implementation", ["cpu", "gsplat"])
def test_what_a_clock_is_given_draws_the_picture(implementation, monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", FakeGsplat())
    gaussians = one_gaussian([0.3, 0.2, -0.4])
    draw = picture_renderer(gaussians, implementation, cameras(), torch.device("cpu"))
    for index in range(2):
        expected = Rasterizer(gaussians, "torch").render(cameras(), index)
        alpha = draw(index)[1] if implementation == "gsplat" else draw(index).alpha
        torch.testing.assert_close(alpha, expected.alpha)


def test_a_drawing_reaches_the_fitted_width_with_its_widening():
    fitted = Drawing(200)
    assert [fitted.multiple(width) for width in (100, 150, 200, 400)] == [2, 2, 1, 1]
    assert fitted.dilation(200) == 0.3 and fitted.dilation(400) == pytest.approx(1.2)
    assert Drawing().multiple(50) == 1 and Drawing().dilation(50) == 0.3
    assert Drawing(200, 4).multiple(100) == 4 and Drawing(10**6).multiple(10) == 16


def test_a_part_of_a_view_has_its_part_of_the_fitted_width_and_as_many_pixels_for_each():
    assert Drawing(100).of_part(30, across=60) == Drawing(50, 2)
    assert Drawing().of_part(30, across=60) == Drawing(None, 1)
    # Views of a focal length of 1.25 widths are 32 pixels across where that is 40 pixels, and 48 where it is 60.
    assert Drawing(100).of_lens(cameras(), 0, 1.25) == Drawing(100 * 31 / 32, 4)
    assert Drawing(100).of_lens(cameras(), 1, 1.25) == Drawing(100 * 31 / 48, 3)
    assert Drawing(100).of_lens(cameras(), 0, 1000.0) == Drawing(100 * 31, 16)  # a pixel of such a view at least


def test_without_a_fitted_width_a_drawing_goes_on_as_for_the_views_of_one_size():
    drawn = Drawing(None, 2, near=0.1).as_for(128)
    assert drawn == Drawing(256, near=0.1, is_supposed=True) and drawn.recorded_width is None
    assert [drawn.multiple(width) for width in (32, 64, 96, 128, 256, 512)] == [8, 4, 3, 2, 1, 1]
    assert [drawn.dilation(width) for width in (256, 512)] == [0.3, pytest.approx(1.2)]
    assert Drawing().as_for(200).drawn_width(100) == 200
    assert Drawing(400, 2).as_for(100) == Drawing(400, 2)  # its widening is the same at any size already


@pytest.mark.parametrize("implementation", ["numba", "torch", "gsplat"])
def test_a_thin_gaussian_covers_as_much_at_any_size(implementation, monkeypatch):
    """The widening keeps its size in the world, so that a picture twice as wide has four times the pixels of it."""
    monkeypatch.setitem(sys.modules, "gsplat", FakeGsplat())
    monkeypatch.setattr("teacher.rasterizer.ensure_gsplat", lambda device: None)
    thin = one_gaussian([0.0, 0.0, 0.0])
    thin = replace(thin, log_scales=thin.log_scales - 3)
    small = Rasterizer(thin, implementation, drawing=Drawing(31)).render(cameras(), 0)
    large = Rasterizer(thin, implementation, drawing=Drawing(31)).render(cameras().resized(124, 84), 0)
    assert float(large.alpha.sum() / small.alpha.sum()) == pytest.approx(16, rel=0.1)
    same = Rasterizer(thin, implementation).render(cameras().resized(124, 84), 0)
    assert float(same.alpha.sum() / small.alpha.sum()) == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(("free", "most"), [(None, 8), (2**40, 8), (12 * 128, 3), (0, 1)])
def test_as_many_views_are_drawn_side_by_side_as_a_quarter_of_the_free_memory_holds(monkeypatch, free, most):
    monkeypatch.setattr("teacher.rasterizer.available_threads", lambda: 8)
    monkeypatch.setattr("teacher.rasterizer.available_bytes", lambda: free)
    assert Rasterizer(one_gaussian([0.0, 0, 0])).views_at_a_time() == most
