"""Rows of integers as bits, and the choice of integers."""

import numpy as np
import pytest

from kernels.coding.range_coding import COUNT, DECODE, ENCODE, counted_bits, finish, new_coder, place_of
from kernels.coding.row_coding import code_rows, models_of, round_rows
from tests.kernels.coding.interpreted import interpreted_modules

NOTHING = np.zeros(0, np.uint8)
CLASSES = np.array([0, 1, 1])
STRIDES = np.array([1, 4, 0])


def rows_of(seed=0, rows=200):
    rng = np.random.default_rng(seed)
    stored = rng.random(rows) < 0.6
    values = np.rint(rng.laplace(size=(rows, 3)) * 2).astype(np.int32) * stored[:, None]
    return values.astype(np.int32), stored


def block(stored):
    return stored, 0, len(stored), STRIDES, CLASSES


def test_rows_come_back_and_those_that_are_not_stored_take_nothing():
    values, stored = rows_of()
    data = np.zeros(4000, np.uint8)
    coder = new_coder(ENCODE, data)
    code_rows(ENCODE, coder, data, models_of(CLASSES), values, *block(stored))
    finish(coder, data)
    found = np.zeros_like(values)
    reader = new_coder(DECODE, data)
    code_rows(DECODE, reader, data, models_of(CLASSES), found, *block(stored))
    assert (found == values).all() and place_of(reader) == place_of(coder)
    coder = new_coder(COUNT, NOTHING)
    code_rows(COUNT, coder, NOTHING, models_of(CLASSES), values, *block(np.zeros_like(stored)))
    assert counted_bits(coder) == 0


def test_signs_like_those_of_the_rows_before_take_few_bits():
    signs, stored, bits = np.random.default_rng(1).choice([-1, 1], (400, 1)), np.ones(400, np.bool_), []
    for alike in (signs, np.repeat(signs[::20], 20, axis=0)):
        values, coder = np.tile(alike, 3).astype(np.int32), new_coder(COUNT, NOTHING)
        code_rows(COUNT, coder, NOTHING, models_of(CLASSES), values, *block(stored))
        bits.append(counted_bits(coder))
    assert bits[1] < 0.6 * bits[0]


@pytest.mark.parametrize(("worth", "expected"), [(1e6, "nearest"), (0.0, "zero")])
def test_an_integer_is_the_nearest_where_errors_count_and_zero_where_they_do_not(worth, expected):
    rng = np.random.default_rng(3)
    scaled = (3 * rng.standard_normal((50, 3))).astype(np.float32)
    values, stored = np.zeros((50, 3), np.int32), np.ones(50, np.bool_)
    importance = np.full_like(scaled, worth)
    round_rows(new_coder(COUNT, NOTHING), models_of(CLASSES), scaled, importance, values, *block(stored))
    assert (values == (np.rint(scaled) if expected == "nearest" else 0)).all()


def test_rounding_trades_errors_for_bits_and_counts_them_as_they_are_written():
    rng = np.random.default_rng(4)
    scaled = rng.laplace(size=(500, 3)).astype(np.float32)
    stored, bits = np.ones(500, np.bool_), []
    for worth in (100.0, 3.0):
        values = np.zeros((500, 3), np.int32)
        coder, counter = new_coder(COUNT, NOTHING), new_coder(COUNT, NOTHING)
        round_rows(coder, models_of(CLASSES), scaled, np.full_like(scaled, worth), values, *block(stored))
        code_rows(COUNT, counter, NOTHING, models_of(CLASSES), values, *block(stored))
        assert counted_bits(coder) == counted_bits(counter)
        assert (np.abs(values) <= np.abs(np.rint(scaled))).all()
        bits.append(counted_bits(coder))
    assert bits[1] < 0.9 * bits[0]


@pytest.mark.parametrize("wanted", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_zero_and_keeps_nobody_waiting(wanted):
    scaled, values, stored = np.full((2, 3), 2.0, np.float32), np.zeros((2, 3), np.int32), np.ones(2, np.bool_)
    scaled[0, 1] = wanted
    round_rows(new_coder(COUNT, NOTHING), models_of(CLASSES), scaled, np.full_like(scaled, 1e6), values, *block(stored))
    assert values.tolist() == [[2, 0, 2], [2, 2, 2]]


@pytest.mark.parametrize("wanted", [9.0, -9.0])
def test_an_integer_is_as_much_nearer_to_zero_as_each_unit_saves_more_bits_than_its_error_is_worth(wanted):
    values, scaled = np.zeros((1, 1), np.int32), np.full((1, 1), wanted, np.float32)
    classes, stored = np.zeros(1, np.int64), np.ones(1, np.bool_)
    worth = np.full_like(scaled, 0.25)  # the second unit adds 0.75 bits of error, the third 1.25; each saves 1 bit
    round_rows(new_coder(COUNT, NOTHING), models_of(classes), scaled, worth, values, stored, 0, 1, STRIDES, classes)
    assert values[0, 0] == np.sign(wanted) * 7


@pytest.fixture
def interpreted(monkeypatch):
    """The modules of both coders as plain Python: nothing compiled."""
    return interpreted_modules(monkeypatch, "kernels.coding.range_coding", "kernels.coding.row_coding")


def test_compiled_and_interpreted_coders_write_the_same_bytes_and_read_the_same_integers(interpreted):
    ranges, rows = interpreted
    assert not hasattr(rows.code_rows, "py_func") and hasattr(code_rows, "py_func")
    values, stored = rows_of(seed=5, rows=60)
    values[values > 5] = 3000  # beyond the unary codes too
    compiled, plain = np.zeros(2000, np.uint8), np.zeros(2000, np.uint8)
    coder = new_coder(ENCODE, compiled)
    code_rows(ENCODE, coder, compiled, models_of(CLASSES), values, *block(stored))
    finish(coder, compiled)
    coder = ranges.new_coder(ENCODE, plain)
    rows.code_rows(ENCODE, coder, plain, rows.models_of(CLASSES), values, *block(stored))
    ranges.finish(coder, plain)
    assert (plain == compiled).all() and compiled.any()
    found = np.zeros_like(values)
    rows.code_rows(DECODE, ranges.new_coder(DECODE, plain), plain, rows.models_of(CLASSES), found, *block(stored))
    assert (found == values).all()
