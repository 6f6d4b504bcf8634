"""The pyramid of training pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scene.images import resize_rgba
from teacher.fitting.picture_levels import MixedPictures, Pictures
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.teacher_views import TeacherViews
from tests.toy_scene import block_of_gaussians, ring_of_cameras


def views(look_at, count=3, width=256, height=128, alpha=True):
    generator = torch.Generator().manual_seed(0)
    shape = (count, height, width)
    transparency = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return TeacherViews(
        cameras=look_at([[3.0, 0, i] for i in range(count)], width=width, height=height),
        names=tuple(f"r_{i}" for i in range(count)),
        rgb=torch.randint(256, (*shape, 3), generator=generator, dtype=torch.uint8),
        alpha=transparency if alpha else None,
        coverage=transparency,
        distance=None,
        background=None if alpha else (0.0, 0.5, 1.0),
        ground_truth=None,
        holdout=torch.tensor([False, True, False]),
    )


def test_held_out_views_are_not_among_them(look_at):
    source = views(look_at)
    pictures = Pictures(source, 0)
    assert len(pictures) == 2 and pictures.levels == 1
    assert torch.equal(pictures.level(0)[:][..., :3], source.rgb[[0, 2]])
    assert torch.equal(pictures.cameras(0).c2w, source.cameras.c2w[[0, 2]])


@pytest.mark.parametrize("alpha", [True, False])
def test_the_finest_pictures_are_the_views_own_and_no_copies_of_them(look_at, alpha):
    source = views(look_at, alpha=alpha)
    pictures = Pictures(source, 1)
    before = pictures.level(0).clone()
    source.rgb[2, 5, 7] = torch.tensor([1, 2, 3])
    assert pictures.level(1)[1][5, 7, :3].tolist() == [1, 2, 3]
    assert isinstance(pictures.level(0), torch.Tensor) and torch.equal(pictures.level(0), before)


def test_coarser_levels_come_first_and_are_averaged_premultiplied(look_at):
    pictures = Pictures(views(look_at), 5)
    sizes = [tuple(pictures.level(level).shape[1:3]) for level in range(pictures.levels)]
    assert sizes == [(32, 64), (64, 128), (128, 256)]  # 32 pixels would be too few
    expected = resize_rgba(pictures.level(2)[1].numpy(), 128, 64)
    assert np.array_equal(pictures.level(1)[1].numpy(), expected)
    assert (pictures.cameras(1).width, float(pictures.cameras(1).fx[0])) == (128, 15.0)


def test_pictures_without_alpha_are_opaque(look_at):
    pictures = Pictures(views(look_at, alpha=False), 0)
    assert not pictures.has_alpha and pictures.background == (0.0, 0.5, 1.0)
    assert bool((pictures.level(0)[:][..., 3] == 255).all())


def test_of_gaussians_drawn_when_asked_for_their_own_pictures_are_fitted():
    cameras, names = ring_of_cameras(3), ["a", "b", "c"]
    whole, lazy = (
        Pictures(views_from_gaussians(block_of_gaussians(), cameras, names, holdout_every=3, memory_gib=memory), 0)
        for memory in (None, 1.0)
    )
    assert len(lazy) == 2 and lazy.has_alpha
    assert torch.equal(lazy.level(0)[:], whole.level(0)[:])


def test_pixels_of_halves_count_where_all_of_theirs_do(look_at):
    counted = torch.ones(3, 128, 256, dtype=torch.bool)
    counted[2, :64], counted[2, 71, 11] = False, False
    pictures = Pictures(replace(views(look_at), counted=counted), 1)
    assert torch.equal(pictures.counted(1, 1), counted[2])
    half = torch.ones(64, 128, dtype=torch.bool)
    half[:32], half[35, 5] = False, False
    assert torch.equal(pictures.counted(0, 1), half) and bool(pictures.counted(0, 0).all())
    assert Pictures(views(look_at), 1).counted(0, 0) is None


def test_mixed_pictures_come_as_often_as_their_weight_says(look_at):
    first = Pictures(views(look_at), 1)  # 2 that are not held out
    second = Pictures(replace(views(look_at), holdout=torch.tensor([True, True, False])), 1)
    mixed = MixedPictures(first, second, 4.0)
    assert len(mixed) == 2 + 8 * 1 and mixed.levels == 2 and mixed.has_alpha and mixed.background is None
    for level in (0, 1):
        assert torch.equal(mixed.level(level)[:2], first.level(level)[:])
        assert all(torch.equal(mixed.level(level)[i], second.level(level)[0]) for i in range(2, 10))
        assert mixed.cameras(level).width == first.cameras(level).width
        assert torch.equal(mixed.cameras(level).c2w[9], second.cameras(level).c2w[0])
    assert mixed.counted(1, 9) is None
    assert len(MixedPictures(first, second, 1 / 4)) == 2 * 2 + 1  # 4 of the first for each of the second
    assert len(MixedPictures(first, second, 0.75)) == 2 * 2 + 3  # 3 of the second for 4 of the first
    assert len(MixedPictures(first, second, 1e9)) == 2 + 64 and len(MixedPictures(first, second, 1e-9)) == 64 * 2 + 1


def test_photographs_are_opaque_beside_pictures_with_alpha(look_at):
    clear, opaque = Pictures(views(look_at), 0), views(look_at, alpha=False)
    photographs = Pictures(replace(opaque, silhouettes=False), 0)
    mixed = MixedPictures(clear, photographs, 1.0)
    assert mixed.has_alpha and mixed.background is None
    assert torch.equal(mixed.level(0)[:], torch.cat([clear.level(0)[:], photographs.level(0)[:]]))
    # Before those on one colour, a floor of it would stay a hole in the photographs, were others never before it.
    beside = MixedPictures(Pictures(opaque, 0), photographs, 1.0)
    assert not beside.has_alpha and not beside.are_photographs and beside.background == (0.0, 0.5, 1.0)
    alone = MixedPictures(photographs, photographs, 1.0)
    assert not alone.has_alpha and alone.are_photographs and alone.background == (0.0, 0.5, 1.0)


def test_where_one_kind_has_no_alpha_the_other_is_put_on_its_background(look_at):
    opaque, clear = Pictures(views(look_at, alpha=False), 0), Pictures(views(look_at), 0)
    counted = torch.ones(3, 128, 256, dtype=torch.bool)
    counted[2, 7, 9] = False
    masked = Pictures(replace(views(look_at), counted=counted), 0)
    for mixed, place in ((MixedPictures(opaque, clear, 1.0), 2), (MixedPictures(clear, opaque, 1.0), 0)):
        assert not mixed.has_alpha and mixed.background == (0.0, 0.5, 1.0)
        rgba = clear.level(0)[0].double() / 255
        expected = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) * torch.tensor([0.0, 0.5, 1.0])
        assert (mixed.level(0)[place][..., :3] / 255 - expected).abs().max() < 0.51 / 255
        assert bool((mixed.level(0)[place][..., 3] == 255).all())
        assert torch.equal(mixed.level(0)[2 - place], opaque.level(0)[0])
    mixed = MixedPictures(opaque, masked, 1.0)
    assert mixed.counted(0, 0) is None and torch.equal(mixed.counted(0, 3), counted[2])
