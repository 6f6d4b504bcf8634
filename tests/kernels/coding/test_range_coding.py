"""Integers as bits and back, the same by the compiled coder as by the interpreted one."""

import numpy as np
import pytest

from kernels.coding import range_coding
from kernels.coding.range_coding import (
    COUNT,
    DECISIONS_PER_BYTE,
    DECODE,
    ENCODE,
    LARGEST,
    MODELS,
    UNARY,
    bits_of_integer,
    code_integer,
    counted_bits,
    finish,
    new_coder,
    new_models,
    place_of,
)

EDGES = [0, 1, -1, UNARY, -UNARY, UNARY + 1, UNARY + 2, -UNARY - 3, LARGEST, -LARGEST, LARGEST - 1]


def encoded(integers, code=code_integer, end=finish):
    data, models = np.zeros(100 + 12 * len(integers), np.uint8), new_models(1, 1)
    coder = new_coder(ENCODE, data)
    for value in integers:
        code(ENCODE, coder, data, models, 0, MODELS, value)
    end(coder, data)
    return data[: place_of(coder)]


def decoded(data, count, code=code_integer):
    coder, models = new_coder(DECODE, data), new_models(1, 1)
    return [code(DECODE, coder, data, models, 0, MODELS, 0) for _ in range(count)], place_of(coder)


def test_integers_come_back_with_all_bytes_read_and_no_more():
    rng = np.random.default_rng(0)
    integers = [*EDGES, *np.rint(rng.laplace(size=2000) * 3).astype(int).tolist()]
    data = encoded(integers)
    assert decoded(data, len(integers)) == (integers, len(data))


def test_a_carry_runs_through_bytes_that_are_held_back():
    """Sure decisions push the low end up to the edge of many bytes of 255."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        integers = (rng.random(3000) < 0.003).astype(int).tolist() + [LARGEST] * 3
        data = encoded(integers)
        assert decoded(data, len(integers)) == (integers, len(data))


def test_the_interpreted_coder_writes_the_same_bytes(monkeypatch):
    rng = np.random.default_rng(1)
    integers = [*EDGES, *np.rint(rng.laplace(size=300) * 2).astype(int).tolist()]
    compiled = encoded(integers)
    for name in ("_shift", "_cost", "decide", "_code_tail"):
        monkeypatch.setattr(range_coding, name, getattr(range_coding, name).py_func)
    assert encoded(integers, code_integer.py_func, finish.py_func).tolist() == compiled.tolist()
    assert decoded(compiled, len(integers), code_integer.py_func)[0] == integers


def test_bytes_are_close_to_the_entropy_and_counted_exactly():
    rng = np.random.default_rng(2)
    integers = np.rint(rng.laplace(size=20_000) * 0.5).astype(int)
    shares = np.unique(integers, return_counts=True)[1] / len(integers)
    entropy = -(shares * np.log2(shares)).sum() * len(integers)
    coder, models = new_coder(COUNT, np.zeros(0, np.uint8)), new_models(1, 1)
    for value in integers:
        code_integer(COUNT, coder, np.zeros(0, np.uint8), models, 0, MODELS, value)
    written = 8 * len(encoded(integers.tolist()))
    assert written < 1.02 * entropy
    assert counted_bits(coder) == pytest.approx(written, rel=1e-3, abs=48)


def test_the_bits_an_integer_would_take_are_those_it_takes():
    models = new_models(1, 1)
    for value in [3, 0, 0, -2, 5, 0, UNARY]:
        expected = bits_of_integer(models, 0, MODELS, value)
        coder = new_coder(COUNT, np.zeros(0, np.uint8))
        code_integer(COUNT, coder, np.zeros(0, np.uint8), models, 0, MODELS, value)
        assert counted_bits(coder) == pytest.approx(expected)


def test_no_byte_holds_more_than_it_is_said_to():
    """The bound that a reader makes room by."""
    data = encoded([0] * 200_000)
    assert DECISIONS_PER_BYTE * len(data) > 200_000
    endless, _ = decoded(np.zeros(40, np.uint8), 10_000)
    assert len(endless) == 10_000  # whatever the bytes, a decoder ends
