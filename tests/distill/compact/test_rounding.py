"""Steps as fine as weights matter, and no finer than integers can be coded."""

import numpy as np
import pytest

from distill.compact.parts import Block, Part, steps_of
from distill.compact.rounding import exponents_of, means_of, round_part
from kernels.coding.range_coding import LARGEST

ROWS = 40


@pytest.fixture
def part():
    stored = np.arange(ROWS) % 4 > 0
    blocks = (Block(0, 20, (1, 0, 0)), Block(20, ROWS, (1, 0, 0)))
    return Part("table", stored, blocks, np.repeat([0, 1], 20), np.array([0, 1]))


def test_a_mean_is_of_all_columns_of_a_class_in_the_stored_rows_of_a_group():
    stored = np.array([True, True, False, True])
    of_classes = Part("weights", stored, (), np.array([0, 0, 0, 1]), np.array([0, 0, 1]))
    importance = np.array([[1, 2, 3], [4, 5, 6], [90, 90, 90], [7, 8, 9]], np.float32)
    assert means_of(of_classes, importance).tolist() == [[3.0, 4.5], [7.5, 9.0]]


@pytest.mark.parametrize(("eighths", "nearest"), [(0.4, 0), (0.6, 1), (-0.4, 0), (-0.6, -1)])
def test_exponents_are_the_nearest_eighths(part, eighths, nearest):
    ones = np.ones((ROWS, 2), np.float32)
    assert exponents_of(part, ones, 2 ** (eighths / 8), 1.0).tolist() == [[nearest] * 2] * 2


def test_steps_are_as_the_root_of_the_importance_of_what_is_stored(part):
    importance = np.ones((ROWS, 2), np.float32)
    importance[:20, 0], importance[20:, 1] = 4.0, 0.25
    importance[~part.stored] = 1e9
    steps = steps_of(exponents_of(part, importance, 0.5, 1.0))
    np.testing.assert_allclose(steps, [[0.25, 0.5], [0.5, 1.0]], rtol=0.05)


def test_what_does_not_matter_has_the_coarsest_steps_and_integers_of_zero(part):
    nothing = np.zeros((ROWS, 2), np.float32)
    exponents = exponents_of(part, nothing, 0.5, 1.0)
    assert (steps_of(exponents) == 2.0**20).all()
    values, bits = round_part(part, np.full((ROWS, 2), 3.0, np.float32), nothing, exponents, 0.1)
    assert not values.any() and bits < 40


def test_no_step_is_too_fine_for_the_largest_weight(part):
    exponents = exponents_of(part, np.ones((ROWS, 2), np.float32), 1e-30, 7.0)
    assert LARGEST / 2.2 < 7.0 / steps_of(exponents).max() <= LARGEST / 2


def test_integers_are_the_nearest_where_bits_are_cheap(part):
    weights = np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float32)
    ones = np.ones((ROWS, 2), np.float32)
    exponents = exponents_of(part, ones, 0.1, 4.0)
    scaled = weights / part.spread(steps_of(exponents))
    values, _ = round_part(part, scaled, ones, exponents, 1e-9)
    assert (values[part.stored] == np.rint(scaled[part.stored])).all() and not values[~part.stored].any()


def test_weights_that_matter_beyond_all_measure_are_the_integers_that_they_are(part):
    """Their worth times an error of nothing is nothing, not what is no number."""
    whole = np.rint(np.random.default_rng(0).normal(size=(ROWS, 2)) * 5).astype(np.float32)
    huge, exponents = np.full((ROWS, 2), 3e38, np.float32), np.zeros(part.exponents_shape, np.int32)
    values, bits = round_part(part, whole, huge, exponents, 1e-9)
    assert (values[part.stored] == whole[part.stored]).all() and np.isfinite(bits)
