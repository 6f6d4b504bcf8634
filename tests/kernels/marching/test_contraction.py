"""Places by hand, the inverse, and the gradient."""

import pytest
import torch

from kernels.marching.contraction import contract, expand, radius_of


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((0.3, -1.0, 0.0), (0.3, -1.0, 0.0)),  # as it was
        ((4.0, 0.0, 0.0), (1.75, 0.0, 0.0)),  # 2 - 1/4
        ((0.0, -2.0, 1.0), (0.0, -1.5, 0.75)),  # (2 - 1/2) / 2 of each
        ((5.0, 5.0, -5.0), (1.8, 1.8, -1.8)),
    ],
)
def test_places_by_hand(place, expected):
    assert contract(torch.tensor(place)).tolist() == pytest.approx(expected)


def test_the_inverse_brings_all_places_back_and_none_leaves_the_cube():
    places = torch.randn(500, 3, dtype=torch.float64) * torch.logspace(-1, 4, 500, dtype=torch.float64)[:, None]
    contracted = contract(places)
    assert contracted.abs().max() < 2
    assert torch.allclose(expand(contracted), places, rtol=1e-9)


def test_there_is_no_step_at_the_box_nor_at_a_diagonal():
    for place in ((1.0, 0.2, -0.4), (3.0, 3.0, 0.5)):
        around = torch.tensor(place, dtype=torch.float64) + 1e-7 * torch.randn(50, 3, dtype=torch.float64)
        assert (contract(around) - contract(around[:1])).abs().max() < 1e-6


def test_the_gradient_is_that_of_finite_differences():
    places = (torch.randn(20, 3, dtype=torch.float64) * 3).requires_grad_()
    assert torch.autograd.gradcheck(contract, places)


def test_the_radius_is_the_largest_coordinate_and_at_least_one():
    assert radius_of(torch.tensor([[0.5, -0.2, 0], [1, -3.0, 2]])).tolist() == [[1], [3]]
