"""How much the loss depends on a weight, by what steps have shown."""

import copy

import numpy as np
import pytest
import torch

from distill.compact.importance import Importance
from distill.compact.parts import Block, Part
from kernels.optimization.straight_through import average_moved, rounded


@pytest.fixture
def part():
    return Part("table", np.ones(4, np.bool_), (Block(0, 4, (1, 0, 0)),), np.zeros(4, np.int64), np.zeros(2, np.int64))


def after(importance, steps, moves):
    """What it is after steps that have moved the rows that ``moves(number)`` gives."""
    scaled, ones, less = torch.zeros(4, 2), torch.ones(4, 2), torch.zeros(4, 2, dtype=torch.uint8)
    for number in range(steps):
        weights = rounded(scaled, ones, less)
        weights[moves(number)] += 0.1
        importance.note(lambda *moments, weights=weights: average_moved(weights, scaled, ones, less, *moments))
    return importance.values()


def test_an_entry_that_few_steps_touch_matters_as_little_as_they_are_few(part):
    importance = Importance(part, lambda: torch.ones(4, 2), True)
    found = after(importance, 2000, lambda number: [0, 1] if number % 8 == 7 else [0])
    assert found[0, 0] == pytest.approx(1, rel=0.01)
    assert found[1, 0] == pytest.approx(0.5, rel=0.02)  # every fourth step is looked at: of these it is every second
    assert found[2, 0] < 0.01  # it is what the mean lends it


def test_every_fourth_step_moves_the_average_by_as_much_less_as_there_have_been_more(part):
    importance, parts = Importance(part, lambda: torch.ones(4, 2), True), []
    for _ in range(13):
        importance.note(lambda moment, average, share: parts.append(share))
    assert parts == [1 / 2, 1 / 3, 1 / 4]
    importance.restore({"steps": 4 * 999 + 3, "average": torch.ones(4, 2)})
    importance.note(lambda moment, average, share: parts.append(share))
    assert parts[-1] == 1 / 256


@pytest.mark.parametrize(("steps", "shared"), [(0, 0.5), (4 * 9, 0.05), (4 * 999, 0.002)])
def test_the_more_is_known_the_less_of_the_mean_is_lent(part, steps, shared):
    importance, average = Importance(part, lambda: torch.zeros(4, 2), True), torch.zeros(4, 2)
    average[0] = 8.0
    importance.restore({"steps": steps, "average": average})
    expected = average.numpy() + shared * 2.0
    np.testing.assert_allclose(importance.values(), expected, rtol=1e-6)


def test_without_averages_it_is_the_moment_and_half_their_mean(part):
    moment = torch.arange(8.0).view(4, 2)
    found = after(Importance(part, lambda: moment, False), 100, lambda number: [])
    np.testing.assert_allclose(found, moment + 0.5 * 3.5)


def test_it_goes_on_from_a_state_as_if_nothing_had_been(part):
    moment, moves = torch.rand(4, 2), lambda number: [number % 4]
    importance, twin = (Importance(part, lambda: moment, True) for _ in range(2))
    after(importance, 22, moves)
    twin.restore(copy.deepcopy(importance.state()))
    assert (after(twin, 9, moves) == after(importance, 9, moves)).all()
