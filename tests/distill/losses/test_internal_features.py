"""Losses on the teacher's internal features, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from distill.losses.internal_features import color_loss, density_loss, feature_cosine, feature_l2, sh_colors
from settings.losses import DensityLossConfig

RANGE = DensityLossConfig(weight=1.0, lowest=0.1, highest=100.0)
ONE = torch.ones(1)


def test_density_is_compared_by_its_logarithm() -> None:
    assert density_loss(torch.tensor([math.e]), torch.tensor([1.0]), ONE, RANGE).item() == pytest.approx(1.0)


def test_densities_beyond_the_range_count_as_its_ends() -> None:
    opaque = density_loss(torch.tensor([5000.0]), torch.tensor([200.0]), ONE, RANGE)
    empty = density_loss(torch.tensor([0.0]), torch.tensor([0.05]), ONE, RANGE)
    assert opaque == 0 and empty == 0
    across = density_loss(torch.tensor([0.0]), torch.tensor([1e9]), ONE, RANGE)
    assert across.item() == pytest.approx(math.log(1000.0) ** 2, rel=1e-5)


def test_density_has_no_gradient_beyond_the_range_and_a_finite_one_within() -> None:
    density = torch.tensor([0.0, 1e-30, 10.0, 1e9], requires_grad=True)
    density_loss(density, torch.full((4,), 1.0), torch.ones(4), RANGE).backward()
    assert density.grad[[0, 1, 3]].tolist() == [0, 0, 0]
    assert density.grad[2].item() == pytest.approx(2 * math.log(10) / 10 / 4, rel=1e-5)


def test_losses_are_means_by_weight_and_0_without_any() -> None:
    rgb, target = torch.tensor([[1.0, 0, 0], [0, 0, 0]]), torch.zeros(2, 3)
    assert color_loss(rgb, target, torch.tensor([3.0, 1.0])).item() == pytest.approx(0.25)
    assert color_loss(rgb, target, torch.zeros(2)) == 0
    assert feature_l2(rgb, target, torch.tensor([1.0, 0.0])).item() == pytest.approx(1 / 3)
    assert feature_cosine(rgb, target, torch.zeros(2)) == 0


def test_cosine_looks_at_directions_alone() -> None:
    first = torch.tensor([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    second = torch.tensor([[7.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 0.0]])
    found = [feature_cosine(a[None], b[None], ONE).item() for a, b in zip(first, second, strict=True)]
    assert found == pytest.approx([0.0, 1.0, 2.0, 1.0])
    feature_cosine(first, second, torch.ones(4)).backward()
    assert torch.isfinite(first.grad).all()


@pytest.mark.parametrize("opacity", [0.5, 0.002])
def test_the_teachers_colour_is_its_harmonics_over_opacity_seen_along_the_ray(opacity) -> None:
    features = torch.zeros(2, 49)
    features[:, 48] = opacity
    features[:, 0] = 0.2 * opacity  # constant, red
    features[:, 2 * 3 + 1] = 0.3 * opacity  # z, green
    colors = sh_colors(features, torch.tensor([[0.0, 0, 1], [1.0, 0, 0]]))
    red, green = 0.5 + 0.28209479 * 0.2, 0.5 + 0.48860251 * 0.3
    assert colors[0].tolist() == pytest.approx([red, green, 0.5], abs=1e-6)
    assert colors[1].tolist() == pytest.approx([red, 0.5, 0.5], abs=1e-6)


def test_the_teachers_colour_is_clamped_and_finite_where_it_is_empty() -> None:
    features = torch.zeros(2, 49)
    features[0, [0, 48]] = torch.tensor([9.0, 1.0])
    colors = sh_colors(features, torch.tensor([[0.0, 0, 1]] * 2))
    assert colors[0, 0] == 1.0 and torch.isfinite(colors).all()
