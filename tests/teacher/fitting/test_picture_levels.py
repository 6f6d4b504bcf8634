"""The pyramid of training pictures."""

from dataclasses import replace

import numpy as np
import torch

from scene.images import resize_rgba
from teacher.fitting.picture_levels import Pictures
from teacher.views.teacher_views import TeacherViews


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
    assert torch.equal(pictures.level(0)[..., :3], source.rgb[[0, 2]])
    assert torch.equal(pictures.cameras(0).c2w, source.cameras.c2w[[0, 2]])


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
    assert bool((pictures.level(0)[..., 3] == 255).all())


def test_pixels_of_halves_count_where_all_of_theirs_do(look_at):
    counted = torch.ones(3, 128, 256, dtype=torch.bool)
    counted[2, :64], counted[2, 71, 11] = False, False
    pictures = Pictures(replace(views(look_at), counted=counted), 1)
    assert torch.equal(pictures.counted(1, 1), counted[2])
    half = torch.ones(64, 128, dtype=torch.bool)
    half[:32], half[35, 5] = False, False
    assert torch.equal(pictures.counted(0, 1), half) and bool(pictures.counted(0, 0).all())
    assert Pictures(views(look_at), 1).counted(0, 0) is None
