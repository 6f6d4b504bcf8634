"""Matrices of integers as bits, and the choice of integers."""

import numpy as np
import pytest

from kernels.coding.matrix_coding import code_matrices, matrix_models, round_matrices
from kernels.coding.range_coding import COUNT, DECODE, ENCODE, counted_bits, finish, new_coder, place_of
from tests.kernels.coding.interpreted import interpreted_modules

NOTHING = np.zeros(0, np.uint8)
SHAPES = np.array([[6, 5], [3, 1]])
STRIDES = np.array([1, 4, 12])


def rows_of(seed=0, rows=80):
    rng = np.random.default_rng(seed)
    stored = rng.random(rows) < 0.6
    values = np.rint(rng.laplace(size=(rows, 33)) * 2).astype(np.int32) * stored[:, None]
    return values.astype(np.int32), stored


def counted(values, stored):
    coder = new_coder(COUNT, NOTHING)
    code_matrices(COUNT, coder, NOTHING, matrix_models(2), values, stored, SHAPES, STRIDES)
    return counted_bits(coder)


def test_matrices_come_back_and_rows_that_are_not_stored_take_nothing():
    values, stored = rows_of()
    data = np.zeros(9000, np.uint8)
    coder = new_coder(ENCODE, data)
    code_matrices(ENCODE, coder, data, matrix_models(2), values, stored, SHAPES, STRIDES)
    finish(coder, data)
    found = np.zeros_like(values)
    reader = new_coder(DECODE, data)
    code_matrices(DECODE, reader, data, matrix_models(2), found, stored, SHAPES, STRIDES)
    assert (found == values).all() and place_of(reader) == place_of(coder)
    assert counted(values, stored) == pytest.approx(8 * place_of(coder), rel=0.01)
    assert counted(values, np.zeros_like(stored)) == 0


def test_magnitudes_that_change_smoothly_take_fewer_bits_than_the_same_in_another_order():
    rng = np.random.default_rng(1)
    spread = np.outer(np.geomspace(8, 0.2, 6), np.geomspace(2, 0.2, 5)).ravel()
    values = np.zeros((300, 33), np.int32)
    values[:, :30] = np.rint(rng.laplace(size=(300, 30)) * spread)
    shuffled = values.copy()
    for row in shuffled:
        rng.shuffle(row[:30])
    stored = np.ones(300, np.bool_)
    assert counted(values, stored) < 0.9 * counted(shuffled, stored)


def test_signs_like_those_of_the_rows_before_take_few_bits():
    signs, stored, bits = np.random.default_rng(2).choice([-1, 1], (200, 33)), np.ones(200, np.bool_), []
    for alike in (signs, np.repeat(signs[::20], 20, axis=0)):
        bits.append(counted(alike.astype(np.int32), stored))
    assert bits[1] < 0.5 * bits[0]


@pytest.mark.parametrize(("worth", "expected"), [(1e6, "nearest"), (0.0, "zero")])
def test_an_integer_is_the_nearest_where_errors_count_and_zero_where_they_do_not(worth, expected):
    scaled = (3 * np.random.default_rng(3).standard_normal((50, 33))).astype(np.float32)
    values, stored = np.zeros((50, 33), np.int32), np.ones(50, np.bool_)
    importance = np.full_like(scaled, worth)
    round_matrices(new_coder(COUNT, NOTHING), matrix_models(2), scaled, importance, values, stored, SHAPES, STRIDES)
    assert (values == (np.rint(scaled) if expected == "nearest" else 0)).all()


def test_rounding_trades_errors_for_bits_and_counts_them_as_they_are_written():
    scaled = np.random.default_rng(4).laplace(size=(100, 33)).astype(np.float32)
    stored, bits = np.ones(100, np.bool_), []
    for worth in (100.0, 3.0):
        values, coder = np.zeros((100, 33), np.int32), new_coder(COUNT, NOTHING)
        round_matrices(coder, matrix_models(2), scaled, np.full_like(scaled, worth), values, stored, SHAPES, STRIDES)
        assert counted_bits(coder) == counted(values, stored)
        assert (np.abs(values) <= np.abs(np.rint(scaled))).all()
        bits.append(counted_bits(coder))
    assert bits[1] < 0.9 * bits[0]


@pytest.fixture
def interpreted(monkeypatch):
    """The modules of both coders as plain Python: nothing compiled."""
    return interpreted_modules(monkeypatch, "kernels.coding.range_coding", "kernels.coding.matrix_coding")


def test_compiled_and_interpreted_coders_write_the_same_bytes_and_read_the_same_integers(interpreted):
    ranges, matrices = interpreted
    assert not hasattr(matrices.code_matrices, "py_func") and hasattr(code_matrices, "py_func")
    values, stored = rows_of(seed=5, rows=12)
    values[values > 5] = 3000  # beyond the unary codes too
    compiled, plain = np.zeros(3000, np.uint8), np.zeros(3000, np.uint8)
    coder = new_coder(ENCODE, compiled)
    code_matrices(ENCODE, coder, compiled, matrix_models(2), values, stored, SHAPES, STRIDES)
    finish(coder, compiled)
    coder = ranges.new_coder(ENCODE, plain)
    matrices.code_matrices(ENCODE, coder, plain, matrices.matrix_models(2), values, stored, SHAPES, STRIDES)
    ranges.finish(coder, plain)
    assert (plain == compiled).all() and compiled.any()
    found = np.zeros_like(values)
    reader = ranges.new_coder(DECODE, plain)
    matrices.code_matrices(DECODE, reader, plain, matrices.matrix_models(2), found, stored, SHAPES, STRIDES)
    assert (found == values).all()
