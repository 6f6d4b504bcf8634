"""Ratios of gradient norms, and that taking them leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.losses.gradient_norms import GradientNorms


def test_ratios_are_those_of_the_weighted_terms() -> None:
    student = nn.Linear(2, 1, bias=False)
    output = student(torch.tensor([[3.0, 4.0]])).sum()  # its gradient has norm 5
    terms = {"rgb": 2 * output, "density": output, "color": output**2}
    ratios = GradientNorms().ratios(student, terms, {"rgb": 1.0, "density": 4.0, "color": 0.0})
    assert ratios == {"density": pytest.approx(2.0)}
    assert student.weight.grad.tolist() == [[0, 0]]
    terms["rgb"].backward()  # the graph is still there
    assert student.weight.grad.norm().item() == pytest.approx(10.0)


def test_a_term_that_does_not_reach_the_student_has_0() -> None:
    student, other = nn.Linear(1, 1), nn.Linear(1, 1)
    terms = {"rgb": student(torch.ones(1)).sum(), "feature_l2": other(torch.ones(1)).sum(), "color": torch.ones(())}
    weights = dict.fromkeys(terms, 1.0)
    assert GradientNorms().ratios(student, terms, weights) == {"feature_l2": 0.0, "color": 0.0}


def test_without_a_gradient_of_rgb_there_is_nothing_to_compare_with() -> None:
    student = nn.Linear(1, 1)
    terms = {"rgb": 0 * student(torch.ones(1)).sum(), "density": student(torch.ones(1)).sum()}
    assert GradientNorms().ratios(student, terms, dict.fromkeys(terms, 1.0)) == {}


def test_norms_are_means_over_the_steps_and_weights_are_those_of_now() -> None:
    student, norms = nn.Linear(1, 1, bias=False), GradientNorms()

    def ratios(rgb: float, density: float, weight: float, scale: float = 1.0) -> dict[str, float]:
        output = student(torch.ones(1)).sum()
        terms = {"rgb": rgb * output, "density": density * output}
        return norms.ratios(student, terms, {"rgb": 2.0, "density": weight}, scale)

    assert ratios(3.0, 1.0, 1.0) == {"density": pytest.approx(1 / 6)}
    # Means of 0.8 of the old and 0.2 of the new: 2.8 and 2.0.
    assert ratios(2.0, 6.0, 4.0, scale=1024.0) == {"density": pytest.approx(4 * 2.0 / (2 * 2.8))}
    assert ratios(2.8, 9.0, 0.0) == {}
    assert ratios(2.8, float("inf"), 1.0) == {"density": pytest.approx(2.0 / (2 * 2.8))}


def test_a_gradient_too_small_for_half_precision_has_its_norm_where_losses_are_scaled() -> None:
    student = nn.Linear(1, 1, bias=False).half()
    weight = student.weight.sum().float()
    terms, weights = {"rgb": weight, "density": 1e-8 * weight}, {"rgb": 1.0, "density": 1.0}
    assert GradientNorms().ratios(student, terms, weights) == {"density": 0.0}
    assert GradientNorms().ratios(student, terms, weights, scale=2.0**12) == {"density": pytest.approx(1e-8, rel=1e-2)}
