"""Views of a teacher: from its outputs, and from images."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from scene.formats.transforms_json import load_transforms, write_transforms
from scene.images import resize_rgba, write_image
from scene.rays import SceneBox
from settings.errors import InputError
from teacher.depth import DepthKind
from teacher.views import teacher_views
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.joined_views import join_views
from teacher.views.photographs import picture_view
from teacher.views.teacher_views import views_from_images
from tests.teacher.toy_outputs import FRAMES, HEIGHT, WHITE, WIDTH, load, ring, two_blobs


def test_native_size_rgb(teacher):
    views = load(teacher)
    assert len(views) == FRAMES and views.names == ("r_0", "r_1", "r_2")
    assert views.rgb.shape == (FRAMES, HEIGHT, WIDTH, 3) and views.rgb.dtype == torch.uint8
    assert views.rgb[2, 2, 2].tolist() == [100, 50, 20] and views.rgb[2, 0, 0].tolist() == [255, 255, 255]
    assert views.alpha is None and views.background == WHITE and views.ground_truth is None
    assert views.coverage[0].sum().item() == 255 * 5 * 7
    assert views.holdout.tolist() == [True, False, True]
    assert views.depth_report is None and views.depth_kind == DepthKind.Z_NORMALIZED
    # z = 3 at pixel (2, 2): ((2.5 - 6) / 18, (4 - 2.5) / 18) off the axis.
    expected = 3 * math.sqrt(1 + (3.5**2 + 1.5**2) / 18**2)
    assert views.distance[1, 2, 2].item() == pytest.approx(expected) and views.distance[1, 0, 0] == 0
    assert torch.equal(views.image(1, WHITE), views.rgb[1].float() / 255)
    with pytest.raises(ValueError, match="cannot be put on"):
        views.image(1, (0.0, 0.0, 0.0))
    assert views.ground_truth_image(0, WHITE) is None


def test_downscaled_by_area(teacher):
    views = load(teacher, width=6)
    assert views.rgb.shape == (FRAMES, 4, 6, 3) and (views.cameras.width, views.cameras.height) == (6, 4)
    assert views.cameras.fx.tolist() == [9] * FRAMES
    # Working pixel (3, 4): native rows 6, 7 and columns 8, 9, of which only (6, 8) is covered.
    assert views.rgb[0, 3, 4].tolist() == [216, 204, 191] and views.coverage[0, 3, 4] == 64
    assert views.distance[0, 3, 4] == 0, "less than half of the footprint has depth"
    # Working pixel (1, 4): rows 2, 3, columns 8 and 9, half covered: the mean of the two that are.
    native = load(teacher).distance[0]
    assert views.distance[0, 1, 4].item() == pytest.approx((native[2, 8] + native[3, 8]).item() / 2)
    assert views.coverage[0, 1, 4] == 128


def test_accumulated_depth_without_alpha_keeps_away_from_the_silhouette(teacher):
    views = load(teacher, depth_kind="z")
    assert (views.distance[0] > 0).sum().item() == 3 * 5, "one pixel less on every side of 5 x 7"
    assert views.coverage[0].sum().item() == 255 * 5 * 7, "coverage is not eroded"


def test_distance_outside_of_the_box_is_dropped(teacher):
    assert (load(teacher, box=SceneBox((-1, -1, -1), (1, 1, 0.05))).distance[0, 2:4] == 0).all()
    assert (load(teacher, box=None).distance[0, 2:7, 2:9] > 0).all()


def test_alpha_of_rgba_renders_is_kept_and_divides_depth(teacher):
    for i in range(FRAMES):
        picture = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
        picture[2:7, 2:9] = [100, 50, 0, 204]
        write_image(teacher / "ours_7" / "renders" / f"{i:05d}.png", picture)
    views = load(teacher, depth_kind="distance", background=(0.2, 0.2, 0.2))
    assert views.background is None and views.alpha[0, 2, 2] == 204 and torch.equal(views.coverage, views.alpha)
    assert views.distance[0, 2, 2].item() == pytest.approx(3 / 0.8)
    # 0.8 * 100 + 0.2 * 51 on a background of 0.2.
    assert views.image(0, (0.2, 0.2, 0.2))[2, 2, 0].item() * 255 == pytest.approx(90.2)
    small = load(teacher, width=6, depth_kind="none")
    assert small.rgb[0, 3, 4].tolist() == [100, 50, 0] and small.alpha[0, 3, 4] == 51
    assert small.distance is None and small.depth_kind is None


def test_coverage_without_depth_is_what_differs_from_the_background(teacher):
    views = load(teacher, depth_kind="none")
    assert views.distance is None and views.coverage[0].sum().item() == 255 * 5 * 7


def test_auto_depth_needs_evidence(teacher):
    # Three views 120 degrees apart of a flat block say nothing about z against distance.
    with pytest.raises(InputError, match="depth: depth kind: found fully covered pixels.*Set teacher.depth_kind"):
        load(teacher, depth_kind="auto")
    with pytest.raises(InputError, match="depth_kind: found 'metric', expected auto or one of"):
        load(teacher, depth_kind="metric")


def test_parallel_axes_need_a_box(teacher):
    cameras = ring(FRAMES, WIDTH, HEIGHT)
    write_transforms(teacher / "transforms.json", cameras[[0, 0, 0]], ["a", "b", "c"])
    with pytest.raises(InputError, match="scene box: found none given, and .* parallel.*Set data.box"):
        load(teacher, box=None, depth_kind="auto")


@pytest.mark.parametrize("channels", [3, 4])
def test_images_stand_in_for_the_teacher(tmp_path, channels):
    write_transforms(tmp_path / "t.json", ring(2, 6, 4), ["a", "b"])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, channels), dtype=np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    views = views_from_images(tmp_path / "t.json", width=3, background=WHITE, holdout_every=0)
    rgba = pixels if channels == 4 else np.concatenate([pixels, np.full((2, 4, 6, 1), 255, np.uint8)], -1)
    expected = np.stack([resize_rgba(image, 3, 2) for image in rgba])
    # Without alpha the mean is taken in another order, which may round a half the other way.
    np.testing.assert_allclose(views.ground_truth[:], expected, atol=4 - channels)
    assert torch.equal(views.rgb, views.ground_truth[..., :3])
    assert (views.alpha is None) == (channels == 3) == (views.background == WHITE)
    assert views.distance is None and not views.holdout.any() and views.cameras.width == 3


@pytest.mark.parametrize("channels", [3, 4])
def test_images_are_in_memory_once_though_they_are_ground_truth_too(tmp_path, channels):
    parts = []
    for split in ("train", "test"):
        write_transforms(tmp_path / f"{split}.json", ring(2, 6, 4), [f"{split}_a", f"{split}_b"])
        for name in "ab":
            write_image(tmp_path / f"{split}_{name}.png", np.full((4, 6, channels), 7, np.uint8))
        parts.append(views_from_images(tmp_path / f"{split}.json", width=None, background=WHITE, holdout_every=0))
    for views in (*parts, join_views(*parts, "here")):
        planes = {id(plane): plane for plane in vars(views).values() if isinstance(plane, torch.Tensor)}
        pictures = [plane for plane in planes.values() if plane.ndim > 1]
        assert sum(plane.nbytes for plane in pictures) == len(views) * 4 * 6 * (3 + 1)
        assert views.ground_truth[-1].unique().tolist() == ([7, 255] if channels == 3 else [7])


def test_silhouettes_are_looked_for_in_a_few_photographs_alone(tmp_path, monkeypatch):
    names = [f"p_{i}" for i in range(40)]
    write_transforms(tmp_path / "t.json", ring(40, 12, 8), names)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 12, 3), dtype=np.uint8)
    for name, image in zip(names, pixels, strict=True):
        write_image(tmp_path / f"{name}.png", image)
    looked_at = []
    monkeypatch.setattr(
        teacher_views, "picture_view", lambda *of, **more: looked_at.append(0) or picture_view(*of, **more)
    )
    views = views_from_images(tmp_path / "t.json", width=None, background=WHITE, holdout_every=0)
    assert not views.silhouettes and 0 < len(looked_at) <= 16
    assert np.array_equal(views.rgb, pixels) and views.coverage.unique().tolist() == [255]


def test_images_of_which_some_have_alpha_are_counted(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"{i}.png", np.zeros((HEIGHT, WIDTH, 3 if i in (2, 4) else 4), np.uint8))
    write_transforms(tmp_path / "t.json", ring(5, WIDTH, HEIGHT), [str(i) for i in range(5)])
    with pytest.raises(InputError, match=r"2.png: channels: found no alpha \(3 of 5 images .*expected alpha as 0.png"):
        views_from_images(tmp_path / "t.json", width=None, background=WHITE, holdout_every=0)


@pytest.mark.parametrize("channels", [3, 4])
def test_beyond_a_pictures_own_size_nothing_counts(tmp_path, channels):
    cameras = ring(2, 6, 4)
    write_transforms(tmp_path / "t.json", cameras, ["a", "b"])
    content = json.loads((tmp_path / "t.json").read_text())
    content["frames"][1] |= {"w": 3, "h": 4}
    (tmp_path / "t.json").write_text(json.dumps(content))
    write_image(tmp_path / "a.png", np.full((4, 6, channels), 7, np.uint8))
    write_image(tmp_path / "b.png", np.full((4, 3, channels), 9, np.uint8))
    views = views_from_images(tmp_path / "t.json", width=None, background=WHITE, holdout_every=0)
    assert views.counted[0].all() and views.counted[1].tolist() == [[True] * 3 + [False] * 3] * 4
    assert views.rgb[1, :, :3].unique().tolist() == [9]
    # What is not seen is not known to be empty.
    assert (views.coverage[1, :, 3:] == 255).all() and views.coverage[1, 0, 0] == (255 if channels == 3 else 9)
    rendered = views_from_gaussians(
        two_blobs(), cameras, ["a", "b"], holdout_every=0, dataset=load_transforms(tmp_path / "t.json")
    )
    assert torch.equal(rendered.counted, views.counted) and torch.equal(rendered.coverage, rendered.alpha)
    assert rendered.ground_truth[1, 2, 2].tolist() == [9, 9, 9, 255 if channels == 3 else 9]


def test_photographs_take_distances_where_the_teacher_covers_pixels_of_the_same_cameras(teacher):
    views = replace(load(teacher), holdout=torch.tensor([True, False, False]))
    photographs = replace(views, alpha=None, distance=None)
    taken = photographs.with_distance_of(views).distance
    assert torch.equal(taken, views.distance) and taken.any()
    thin = views.coverage.clone()
    thin[:, :, 4:] = 127
    taken = photographs.with_distance_of(replace(views, coverage=thin)).distance
    assert torch.equal(taken[..., :4], views.distance[..., :4]) and taken[..., :4].any()
    assert not taken[..., 4:].any() and views.distance[..., 4:].any()


def test_other_cameras_and_pictures_with_distances_of_their_own_take_none(teacher):
    views = load(teacher)
    photographs = replace(views, alpha=None, distance=None)
    turned = replace(photographs, cameras=views.cameras[[1, 0, 2]], holdout=views.holdout)
    assert turned.with_distance_of(views) is turned, "the frame that is trained on is another one"
    assert photographs.with_distance_of(photographs) is photographs
    own = replace(photographs, distance=views.distance + 1)
    assert own.with_distance_of(views) is own
