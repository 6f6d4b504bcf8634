"""What a Gaussian contributes is its blending weights; who is under a limit goes."""

import pytest
import torch

from teacher.export.contribution import Contribution, contribution, kept_gaussians
from teacher.gaussians import Gaussians
from teacher.rasterizer import Rasterizer


def row_of_gaussians(opacities, depths):
    count = len(opacities)
    return Gaussians(
        means=torch.tensor([[0.0, 0.0, depth] for depth in depths]),
        log_scales=torch.full((count, 3), 0.1).log(),
        rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        opacity_logits=torch.tensor(opacities).logit(),
        sh=torch.zeros(count, 1, 3),
    )


def test_it_is_the_sum_of_the_blending_weights(look_at):
    # Seen from +z the second is behind the first; from -z the reverse; the third is out of sight in both.
    gaussians = row_of_gaussians([0.6, 0.9, 0.5], [0.5, -0.5, 0.0])
    gaussians.means[2, 0] = 40.0
    cameras = look_at([[0.0, 0.0, 4.0], [0.0, 0.0, -4.0]])
    rasterizer, done = Rasterizer(gaussians, "torch"), []
    measured = contribution(rasterizer, 3, cameras, lambda *progress: done.append(progress))
    # Weights seen one by one: blend a colour that only that Gaussian has.
    expected = torch.stack(
        [
            torch.stack([rasterizer.render(cameras, view, torch.eye(3)).channels[..., i].sum() for i in range(3)])
            for view in range(2)
        ]
    ).double()
    torch.testing.assert_close(measured.most, expected.amax(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(measured.total, expected.sum(0), rtol=1e-5, atol=1e-6)
    assert measured.total[2] == 0 and measured.total[:2].min() > 0 and done == [(1, 2), (2, 2)]
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
    assert kept_gaussians(gaussians, measured, opacity, pixels).tolist() == kept
    assert (
        gaussians[torch.tensor(kept)].opacity_logits.tolist() == gaussians.opacity_logits[torch.tensor(kept)].tolist()
    )
