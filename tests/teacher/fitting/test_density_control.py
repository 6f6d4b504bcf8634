"""Clone, split and prune: which Gaussians, how many, and what becomes of them."""

import math

import torch

from kernels.gaussians.rasterize import ScreenSpace
from settings.fitting import FittingConfig
from teacher.fitting.density_control import DensityControl
from teacher.fitting.gaussian_model import GaussianModel
from teacher.gaussians import Gaussians

RATES = dict.fromkeys(("means", "scales", "quats", "opacities", "sh0", "shN"), 0.1)
EXTENT = 10.0  # small is up to 0.1, too large is over 1


def model_of(scales, opacities=0.5):
    count = len(scales)
    return GaussianModel(
        Gaussians(
            means=torch.arange(3.0 * count).view(count, 3),
            log_scales=torch.tensor(scales).log()[:, None].repeat(1, 3),
            rotations=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            opacity_logits=torch.as_tensor(opacities).expand(count).logit(),
            sh=torch.randn(count, 1, 3),
        ),
        0,
        RATES,
    )


def control_with_pull(model, pull):
    control = DensityControl(FittingConfig(grow_gradient=1.0), EXTENT, len(model))
    gradient = torch.tensor(pull)[:, None] * torch.tensor([[0.6, 0.8]])
    control.observe(ScreenSpace(radius=torch.ones(len(model)), gradient=gradient), width=2, height=2)
    return control


def test_gradients_are_averaged_over_the_views_that_see_a_gaussian():
    control = DensityControl(FittingConfig(), EXTENT, 2)
    control.observe(ScreenSpace(torch.tensor([1.0, 1.0]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])), 20, 20)
    control.observe(ScreenSpace(torch.tensor([2.0, 0.0]), torch.tensor([[0.0, 1.0], [9.0, 9.0]])), 20, 40)
    torch.testing.assert_close(control.pull / control.views, torch.tensor([(50 + 20) / 2, 10.0]))


def test_small_ones_are_cloned_and_large_ones_split():
    model = model_of([0.05, 0.5, 0.05])
    before = model.snapshot()
    control_with_pull(model, [2.0, 3.0, 0.5]).refine(model, 10000, torch.Generator().manual_seed(0))
    after = model.snapshot()
    assert len(after) == 5  # the second is gone: a clone of the first and two halves of the second have come
    assert torch.equal(after.means[:3], before.means[[0, 2, 0]])
    torch.testing.assert_close(after.log_scales[3:].exp(), torch.full((2, 3), 0.5 / 1.6))
    away = (after.means[3:] - before.means[1]).norm(dim=1)
    assert bool((away > 0).all()) and float(away.max()) < 5 * 0.5


def test_halves_are_drawn_from_the_gaussian_they_come_from():
    model = model_of([0.5] * 2000)
    model.params["scales"].data[:] = torch.tensor([0.8, 0.2, 0.2]).log()
    # A quarter turn about z: the long axis is y.
    model.params["quats"].data[:] = torch.tensor([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    model.params["means"].data[:] = 0
    control_with_pull(model, [2.0] * 2000).refine(model, 10000, torch.Generator().manual_seed(0))
    spread = model.snapshot().means.std(dim=0)
    torch.testing.assert_close(spread, torch.tensor([0.2, 0.8, 0.2]), rtol=0.1, atol=0)


def test_within_the_limit_the_most_pulled_come_first():
    model = model_of([0.05] * 4)
    control_with_pull(model, [2.0, 5.0, 3.0, 4.0]).refine(model, 6, torch.Generator().manual_seed(0))
    assert torch.equal(model.snapshot().means[4:], model.snapshot().means[[1, 3]])
    # No room at all: nothing grows, pruning still happens.
    control_with_pull(model, [2.0] * 6).refine(model, 3, torch.Generator().manual_seed(0))
    assert len(model) == 6


def test_transparent_and_huge_ones_are_pruned():
    model = model_of([0.05, 0.05, 2.0, 0.5], opacities=[0.5, 0.001, 0.5, 0.5])
    control_with_pull(model, [0.0] * 4).refine(model, 0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.snapshot().log_scales[:, 0].exp(), torch.tensor([0.05, 0.5]))


def test_pruning_never_leaves_nothing():
    model = model_of([0.05, 0.05], opacities=0.001)
    control_with_pull(model, [0.0] * 2).refine(model, 10000, torch.Generator().manual_seed(0))
    assert len(model) == 2


def test_after_a_round_counting_starts_anew():
    model = model_of([0.05, 0.05])
    control = control_with_pull(model, [2.0, 0.0])
    control.refine(model, 10000, torch.Generator().manual_seed(0))
    assert control.pull.tolist() == [0, 0, 0] and control.views.tolist() == [0, 0, 0]
