"""What a Gaussian contributes is its blending weights; who is under a limit goes, and what that costs is told."""

from types import SimpleNamespace

import pytest
import torch

from settings.errors import InputError
from teacher.export.planes import ExportFormat
from teacher.export.pruning import (
    Contribution,
    PruneLimits,
    contribution,
    kept_gaussians,
    prune,
    psnr_of_pruning,
)
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer
from tests.toy_scene import block_of_gaussians, ring_of_cameras

WHITE = (1.0, 1.0, 1.0)


def row_of_gaussians(opacities, depths):
    count = len(opacities)
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, depth] for depth in depths]),
        log_scales=torch.full((count, 3), 0.1).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacity_logits=torch.tensor(opacities).logit(),
        sh=torch.zeros(count, 1, 3),
    )


def test_what_went_is_counted_over_all_views_and_a_limit_is_still_kept():
    """Three views that show 1 and 4 pixels of the Gaussians, 3 and 2, then 2 and 1."""
    weights = torch.tensor([[1.0, 4.0], [3.0, 2.0], [2.0, 1.0]])
    views = SimpleNamespace(
        device="cpu", render=lambda _, index, channels: SimpleNamespace(channels=channels[:, 0] * weights[index])
    )
    gaussians, cameras = row_of_gaussians([0.5, 0.9], [0.0, 1.0]), range(3)
    measured = contribution(views, 2, cameras)
    assert (measured.most.tolist(), measured.total.tolist()) == ([3.0, 4.0], [6.0, 7.0])
    left, report = prune(gaussians, views, cameras, "three views", PruneLimits(0.5, 3.5))
    assert len(left) == 1 and report["weight_removed_fraction"] == pytest.approx(6 / 13)
    assert kept_gaussians(gaussians, measured, PruneLimits(0.5, 3.0)).all()


def test_it_is_the_sum_of_the_blending_weights(look_at):
    # Seen from +z the second is behind the first; from -z the reverse; the third is out of sight in both.
    gaussians = row_of_gaussians([0.6, 0.9, 0.5], [0.5, -0.5, 0.0])
    gaussians.means[2, 0] = 40.0
    cameras = look_at([[0.0, 0.0, 4.0], [0.0, 0.0, -4.0]])
    rasterizer = Rasterizer(gaussians, "torch")
    measured = contribution(rasterizer, 3, cameras)
    # Weights seen one by one: blend a colour that only that Gaussian has.
    expected = torch.stack(
        [
            torch.stack([rasterizer.render(cameras, view, torch.eye(3)).channels[..., i].sum() for i in range(3)])
            for view in range(2)
        ]
    ).double()
    torch.testing.assert_close(measured.most, expected.amax(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(measured.total, expected.sum(0), rtol=1e-5, atol=1e-6)
    assert measured.total[2] == 0 and measured.total[:2].min() > 0
    alphas = rasterizer.render_batch(cameras).alpha.sum().double()
    torch.testing.assert_close(measured.total.sum(), alphas, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("opacity", "pixels", "kept"),
    [
        (None, None, [True, True, True]),
        (0.55, None, [True, True, False]),
        (None, 2.0, [False, True, True]),
        (0.55, 2.0, [False, True, False]),
    ],
)
def test_who_is_under_a_limit_goes(opacity, pixels, kept):
    gaussians = row_of_gaussians([0.6, 0.9, 0.5], [0.0, 0.0, 0.0])
    measured = Contribution(torch.tensor([1.9, 2.0, 7.0]), torch.tensor([50.0, 2.0, 7.0]))
    assert kept_gaussians(gaussians, measured, PruneLimits(opacity, pixels)).tolist() == kept
    assert (
        gaussians[torch.tensor(kept)].opacity_logits.tolist() == gaussians.opacity_logits[torch.tensor(kept)].tolist()
    )


def test_pruning_reports_what_went():
    gaussians = block_of_gaussians()
    faint = gaussians[torch.arange(729) % 3 == 0]
    faint.opacity_logits[:] = -2.3
    both = type(gaussians)(*(torch.cat([getattr(part, n) for part in (gaussians, faint)]) for n in vars(gaussians)))
    rasterizer = Rasterizer(both, "torch")
    cameras = ring_of_cameras(2, 16, 16)
    pruned, report = prune(both, rasterizer, cameras, "here", PruneLimits(0.1, None))
    assert len(pruned) == 729 and torch.equal(pruned.means, gaussians.means)
    assert report["gaussians_before"] == 729 + 243 and report["gaussians_removed"] == 243
    assert report["measured_views"] == 2 and report["measured_on"] == "here"
    assert 0 < report["weight_removed_fraction"] < 0.1
    views, format = ring_of_cameras(2), ExportFormat(None, WHITE)
    figure = psnr_of_pruning(rasterizer, Rasterizer(gaussians), views, format)
    assert 30 < figure < 80
    assert psnr_of_pruning(rasterizer, rasterizer, views, format) == 100.0

    _, by_weight = prune(both, rasterizer, cameras, "here", PruneLimits(None, 1e-3))
    assert 0 < by_weight["gaussians_removed"] < 729
    assert by_weight["weight_removed_fraction"] < 0.01


def test_limits_out_of_range_or_that_leave_nothing():
    gaussians = block_of_gaussians()
    rasterizer, cameras = Rasterizer(gaussians, "torch"), ring_of_cameras(1, 8, 8)
    for limits, message in (
        (PruneLimits(1.5, None), "--prune-opacity: limit: found 1.5"),
        (PruneLimits(None, -1.0), "--prune-contribution: limit: found -1.0"),
        (PruneLimits(0.9999, None), "none of 729 Gaussians left"),
        (PruneLimits(float("nan"), None), "--prune-opacity: limit: found nan"),
    ):
        with pytest.raises(InputError, match=message):
            prune(gaussians, rasterizer, cameras, "here", limits)
