"""The views of two sources as one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from settings.errors import InputError
from teacher.views.gaussian_views import views_from_gaussians
from teacher.views.joined_views import join_views
from tests.teacher.toy_outputs import HEIGHT, WHITE, WIDTH, load, ring, two_blobs


def test_joined_views_are_both_in_order():
    first = views_from_gaussians(two_blobs(), ring(2, 12, 8), ["a", "b"], holdout_every=0)
    second = views_from_gaussians(two_blobs(), ring(3, 12, 8, focal=1.0), ["c", "d", "e"], holdout_every=1)
    views = join_views(first, second, "train.json")
    assert (
        views.names == ("train_a", "train_b", "holdout_c", "holdout_d", "holdout_e")
        and views.holdout.tolist() == [False] * 2 + [True] * 3
    )
    for part, offset in ((first, 0), (second, 2)):
        for i in range(len(part)):
            assert torch.equal(views.image(offset + i, WHITE), part.image(i, WHITE))
            assert torch.equal(views.distance[offset + i], part.distance[i])
            assert torch.equal(views.cameras.c2w[offset + i], part.cameras.c2w[i])
            assert views.cameras.fx[offset + i] == part.cameras.fx[i]
    assert views.ground_truth is None and views.background is None


def test_views_that_do_not_fit_are_not_joined(teacher):
    views = views_from_gaussians(two_blobs(), ring(2, WIDTH, HEIGHT), ["a", "b"], holdout_every=0)
    small = views_from_gaussians(two_blobs(), ring(2, 6, 4), ["c", "d"], holdout_every=0)
    with pytest.raises(InputError, match="here.json: image size: found 6x4, expected 12x8, as the frames to measure"):
        join_views(small, views, "here.json")
    with pytest.raises(InputError, match="here.json: alpha: found none, expected some"):
        join_views(load(teacher), views, "here.json")
    photographed = replace(small, ground_truth=torch.zeros(2, 4, 6, 4, dtype=torch.uint8))
    with pytest.raises(InputError, match="ground truth: found none, expected some.*data.ground_truth: false"):
        join_views(small, photographed, "here.json")
