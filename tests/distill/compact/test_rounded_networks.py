"""Networks in training with rounded weights: steps reach the coordinates, what gradients tell is learnt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.compact.parts import CENTRE_STEP, Integers, Part
from distill.compact.rounded_networks import RoundedNetworks, nothing_of
from kernels.optimization.adam import BETAS, adam_step
from kernels.optimization.updates import TouchedRows

MATRICES = ((4, 3), (2, 2))
STORED = np.arange(30) % 5 > 0


@pytest.fixture
def part():
    classes = np.repeat([0, 1], [12, 4])
    return Part("networks", STORED, (), np.arange(30), classes, MATRICES, (1, 5, 10))


@pytest.fixture
def weights():
    return torch.randn(30, 16, generator=torch.Generator().manual_seed(0)) + 3


@pytest.fixture
def moments():
    generator = torch.Generator().manual_seed(1)
    first = torch.randn(30, 16, generator=generator)
    return {"first_moment": first, "second_moment": first.square() + 0.1}


def test_a_step_of_the_weights_moves_coordinates_as_far(part, weights, moments):
    networks = RoundedNetworks(part, weights, moments)
    at = networks.coordinates(weights).round()
    shown = networks.show(at.clone())
    step = 0.1 * torch.randn(30, 16, generator=torch.Generator().manual_seed(2))
    step[7] = 0
    moved = networks.moved(shown + step, moments)
    torch.testing.assert_close(networks.show(moved) - shown, step, rtol=1e-3, atol=1e-4)
    assert moved[7].equal(at[7])  # to the last bit


def test_the_file_s_weights_are_those_shown(part, weights, moments):
    networks = RoundedNetworks(part, weights, moments)
    values = networks.coordinates(weights).round() * torch.from_numpy(STORED)[:, None]
    exponents = np.zeros(part.exponents_shape, np.int32)
    found = Integers(values.numpy().astype(np.int32), exponents, *networks.common()).weights(part)
    torch.testing.assert_close(torch.from_numpy(found), networks.show(values), rtol=1e-5, atol=1e-5)
    assert (found[~STORED] == networks.centre.numpy()).all()
    assert (networks.centre - weights[STORED].mean(0)).abs().max() <= CENTRE_STEP / 2


def test_gradients_are_found_in_adam_s_moments_and_tell_what_errors_cost(part, weights, moments):
    networks = RoundedNetworks(part, weights, moments)
    generator = torch.Generator().manual_seed(3)
    networks.show(networks.coordinates(weights))
    for _ in range(600):
        gradients = torch.randn(30, 16, generator=generator) * 0.5
        gradients[:, 12:] *= 20
        still = moments["first_moment"][6].clone()
        moments["first_moment"] = BETAS[0] * moments["first_moment"] + (1 - BETAS[0]) * gradients
        moments["first_moment"][6] = still  # Adam leaves it alone
        networks.moved(networks.show(networks.coordinates(weights)), moments)
    by_weights = networks.state()["means"]
    stored = torch.from_numpy(np.flatnonzero(STORED))
    seen = stored != 6
    torch.testing.assert_close(by_weights[seen].mean(0), torch.tensor([0.25, 100.0]), rtol=0.2, atol=0)
    assert (by_weights[~seen] < 0.1 * by_weights[seen].mean(0)).all()
    importance = networks.importance()
    assert importance[6].max() < 0.2 * importance[7].max() and (importance[0] == 0).all()
    assert networks.due
    before = networks.coordinates(weights)
    after = networks.renew(before * torch.from_numpy(STORED)[:, None])
    torch.testing.assert_close(networks.show(after)[stored], weights[stored], rtol=1e-3, atol=1e-3)


def test_a_weight_that_adam_has_left_alone_had_no_gradient(part, weights, moments):
    networks = RoundedNetworks(part, weights, moments)
    networks.show(networks.coordinates(weights))
    gradients = torch.randn(30, 16, generator=torch.Generator().manual_seed(4))
    gradients[:, ::3] = gradients[6] = 0
    for _ in range(5):  # one in four is taken into account
        first, second = moments["first_moment"].clone(), moments["second_moment"].clone()
        moments = {"first_moment": first, "second_moment": second}
        touched = TouchedRows(30, rows_per_flag=1)
        touched.flags.fill_(1)
        options = {"step": 9, "lr": 0.1, "betas": BETAS, "eps": 1e-8, "touched": touched}
        adam_step(weights.clone(), gradients.clone(), first, second, **options)
        networks.moved(weights, moments)
    seen, _ = networks.state()["last"]
    torch.testing.assert_close(seen, gradients[torch.from_numpy(STORED)], rtol=1e-3, atol=1e-5)


def test_the_integers_of_nothing_are_weights_of_zero(part):
    assert (nothing_of(part).weights(part) == 0).all()


def test_integers_whose_products_float64_would_round_are_refused(part):
    nothing = nothing_of(part)
    huge = Integers(
        np.full(part.shape, 2**20, np.int32), nothing.exponents, nothing.centre,
        tuple(np.full_like(each, 2**20) for each in nothing.maps),
    )  # fmt: skip
    with pytest.raises(ValueError, match="networks: integers"):
        huge.weights(part)
