"""Views of a teacher drawn from its Gaussians."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scene.frames import Frames
from scene.images import write_image
from settings.errors import InputError
from teacher.rasterizer import Drawing, Rasterizer
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.rasterized import View, view_of
from tests.teacher.toy_outputs import WHITE, ring, two_blobs


def test_gaussians_give_exact_alpha_and_distance(tmp_path):
    cameras = ring(4, 24, 16)
    views = views_from_gaussians(two_blobs(), cameras, list("abcd"), holdout_every=3)
    assert views.holdout.tolist() == [True, False, False, True]
    output = Rasterizer(two_blobs()).render(cameras, 1)
    composite = output.rgb + (1 - output.alpha[..., None]) * torch.tensor(WHITE)
    torch.testing.assert_close(views.image(1, WHITE), composite.clamp(0, 1), atol=0.01, rtol=0)
    torch.testing.assert_close(views.alpha[1].float() / 255, output.alpha, atol=0.002, rtol=0)
    # The centre pixel sees the red blob, whose z is 3; the pixel is half a pixel off the axis both ways.
    expected = 3 * math.sqrt(1 + 2 * (0.5 / 36) ** 2)
    assert views.distance[0, 8, 12].item() == pytest.approx(expected, rel=1e-3)
    assert (views.distance[views.alpha == 0] == 0).all() and views.ground_truth is None


def test_supersampling_averages_premultiplied():
    cameras = ring(1, 12, 8)
    fine = views_from_gaussians(two_blobs(), cameras.resized(36, 24), ["a"], holdout_every=0)
    views = views_from_gaussians(two_blobs(), cameras, ["a"], drawing=Drawing(supersample=3), holdout_every=0)
    assert views.rgb.shape == (1, 8, 12, 3) and views.cameras.width == 12

    def shrunk(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None].float(), 3)[0, 0]

    alpha = fine.alpha[0].float() / 255
    torch.testing.assert_close(views.alpha[0].float() / 255, shrunk(alpha), atol=0.004, rtol=0)
    expected = shrunk(fine.distance[0] * alpha) / shrunk(alpha)
    solid = shrunk(alpha) > 0.5
    assert solid.sum() > 10
    torch.testing.assert_close(views.distance[0][solid], expected[solid], atol=0.01, rtol=0)


def test_files_that_are_damaged_are_told_before_views_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(Rasterizer, "render", lambda *_: pytest.fail("a view was drawn first"))
    write_image(tmp_path / "a.png", np.full((8, 12, 3), 9, np.uint8))
    (tmp_path / "mask.png").write_bytes(b"")
    masks = (None, tmp_path / "mask.png")
    dataset = Frames(ring(2, 12, 8), ("a", "b"), (tmp_path / "a.png",) * 2, tmp_path / "t.json", masks=masks)
    with pytest.raises(InputError, match="mask.png"):
        views_from_gaussians(two_blobs(), ring(2, 6, 4), ["a", "b"], holdout_every=0, dataset=dataset)


def test_gaussians_with_ground_truth(tmp_path):
    write_image(tmp_path / "a.png", np.full((8, 12, 3), 9, np.uint8))
    cameras = ring(1, 6, 4)
    dataset = Frames(cameras, ("a",), (tmp_path / "a.png",), tmp_path / "t.json")
    options = {"holdout_every": 0, "dataset": dataset}
    views = views_from_gaussians(two_blobs(), cameras, ["a"], **options)
    assert views.ground_truth.shape == (1, 4, 6, 4) and views.ground_truth[0, 3, 5].tolist() == [9, 9, 9, 255]
    write_image(tmp_path / "a.png", np.full((8, 8, 3), 9, np.uint8))
    with pytest.raises(InputError, match="a.png: ground truth size: found 8x8, expected at least 6x4 and of that"):
        views_from_gaussians(two_blobs(), cameras, ["a"], **options)


def test_ground_truth_counts_as_memory_before_anything_is_drawn(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", np.full((4, 6, 3), 9, np.uint8))
    cameras, options = ring(1, 6, 4), {"holdout_every": 0}
    dataset = Frames(cameras, ("a",), (tmp_path / "a.png",), tmp_path / "t.json")
    monkeypatch.setattr("teacher.views.gaussian_views.DRAWN_BYTES", 1)
    monkeypatch.setattr("machine.memory.available_bytes", lambda: 4 * 6 * 11)
    assert views_from_gaussians(two_blobs(), cameras, ["a"], **options).ground_truth is None
    with pytest.raises(InputError, match="data.resolution: found 6: 1 of 6x4 pixels"):
        views_from_gaussians(two_blobs(), cameras, ["a"], dataset=dataset, **options)


@pytest.mark.parametrize("memory_gib", [None, 1.0])
def test_gaussians_larger_than_the_images_have_no_ground_truth(tmp_path, caplog, memory_gib):
    write_image(tmp_path / "a.png", np.full((4, 6, 3), 9, np.uint8))
    dataset = Frames(ring(1, 6, 4), ("a",), (tmp_path / "a.png",), tmp_path / "t.json")
    options = {"holdout_every": 0, "dataset": dataset, "memory_gib": memory_gib}
    views = views_from_gaussians(two_blobs(), ring(1, 12, 8), ["a"], **options)
    assert views.ground_truth is None and views.image(0, WHITE).shape == (8, 12, 3)
    assert "t.json: no ground truth: its images are 6 pixels wide, and 12 are asked for" in caplog.text


class _OnGpu(torch.Tensor):
    """What numpy refuses until it is moved."""

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("memory_gib", [None, 1.0])
def test_views_that_a_gpu_draws_are_looked_at_without_it(monkeypatch, memory_gib):
    def drawn_there(planes):
        view = view_of(planes)
        alpha = view.alpha.as_subclass(_OnGpu)
        return View(view.rgb.as_subclass(_OnGpu), alpha, alpha, view.distance.as_subclass(_OnGpu))

    plain = views_from_gaussians(two_blobs(), ring(2, 12, 8), ("a", "b"), holdout_every=2, memory_gib=memory_gib)
    for module in ("gaussian_views", "rasterized"):
        monkeypatch.setattr(f"teacher.views.{module}.view_of", drawn_there)
    views = views_from_gaussians(two_blobs(), ring(2, 12, 8), ("a", "b"), holdout_every=2, memory_gib=memory_gib)
    assert np.array_equal(views.image(1, WHITE).numpy(), plain.image(1, WHITE).numpy())
    for name in ("coverage", "distance"):
        assert np.array_equal(getattr(views, name)[1].numpy(), getattr(plain, name)[1].numpy())
    assert views.store is None or views.store[0].nbytes == plain.store[0].nbytes


def test_gsplat_is_not_replaced_in_silence(look_at):
    with pytest.raises(InputError, match="teacher.rasterizer=cpu"):
        views_from_gaussians(two_blobs(), look_at([[0.0, 0.0, 3.0]]), ["a"], rasterizer="gsplat", holdout_every=0)


def test_drawing_that_takes_long_shows_how_far_it_is(monkeypatch, capsys):
    for seconds, said in ((1e9, ""), (0.0, "0/3")):
        monkeypatch.setattr("machine.terminal._LATE", seconds)
        views_from_gaussians(two_blobs(), ring(3, 16, 16), ("a", "b", "c"), holdout_every=3)
        err = capsys.readouterr().err
        assert said in err and bool(said) == bool(err)
