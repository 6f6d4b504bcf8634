"""Vectors of lanes against numpy, lane by lane."""

import numpy as np
import pytest
from numba import njit

from kernels.simd import (
    LANES,
    exponential,
    joined,
    load,
    load_part,
    maximum,
    minimum,
    prefetch,
    splat,
    store,
    store_part,
    to_float,
    to_integer,
    trailing_zeros,
    widest,
)


@njit
def arithmetic(a, b, factor, like, out):
    n = len(like)
    x, y = load(a, 1, like), load(b, 0, like)
    prefetch(a, 0)
    store(out, 0, x + y)
    store(out, n, x - y)
    store(out, 2 * n, x * splat(factor, like))
    store(out, 3 * n, minimum(x, y))
    store(out, 4 * n, maximum(x, y))
    store(out, 5 * n, to_float(to_integer(x)))


@njit
def integers(a, b, like, out):
    n = len(like)
    x, y = load(a, 0, like), load(b, 0, like)
    store(out, 0, x + y)
    store(out, n, x - y)
    store(out, 2 * n, x * y)
    store(out, 3 * n, x ^ y)
    store(out, 4 * n, x & y)
    store(out, 5 * n, minimum(x, y))


@njit
def put_together(values, other, like, out):
    store(out, 0, joined(load(values, 1, like), load(other, 0, like)))


@njit
def widened(values, like, out):
    store(out, 0, load(values, 2, like))


@njit
def part_copied(values, first, count, out, to, stored):
    store_part(out, to, load_part(values, first, count), stored)


@pytest.mark.parametrize("stored", [0, 3, LANES])
@pytest.mark.parametrize("count", [0, 1, 5, LANES, LANES + 9])
def test_parts_of_vectors(count, stored):
    """Zeros stand behind what is loaded; nothing behind what is stored is touched."""
    values, out = np.arange(1, LANES + 3, dtype=np.float32), np.full(LANES + 4, -1, np.float32)
    part_copied(values, 2, count, out, 3, stored)
    held = np.where(np.arange(LANES) < count, values[2:], 0)
    assert out.tolist() == [-1] * 3 + held[:stored].tolist() + [-1] * (LANES + 1 - stored)


@pytest.mark.parametrize("lanes", [1, 2, 3, 4, 8, 16])
def test_floats(lanes):
    a, b = np.random.default_rng(0).normal(0, 9, (2, lanes + 1)).astype(np.float32)
    out = np.empty(6 * lanes, np.float32)
    arithmetic(a, b, np.float32(2.5), (0,) * lanes, out)
    x, y = a[1:], b[:lanes]
    expected = [x + y, x - y, x * np.float32(2.5), np.minimum(x, y), np.maximum(x, y), np.trunc(x)]
    np.testing.assert_array_equal(out.reshape(6, lanes), expected)


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_vectors_put_together(lanes, dtype):
    values, other, out = (
        np.arange(lanes + 1, dtype=dtype),
        np.arange(50, 50 + lanes, dtype=dtype),
        np.empty(2 * lanes, dtype),
    )
    put_together(values, other, (0,) * lanes, out)
    assert out.tolist() == [*range(1, lanes + 1), *range(50, 50 + lanes)]


def test_integers_wrap_round_and_the_lesser_is_the_unsigned_one():
    a = np.array([2**31 - 1, -1, 5, -7], np.int32)
    b = np.array([2, 1, -2, -9], np.int32)
    out = np.empty(24, np.int32)
    integers(a, b, (0,) * 4, out)
    lesser = np.minimum(a.view(np.uint32), b.view(np.uint32)).view(np.int32)
    np.testing.assert_array_equal(out.reshape(6, 4), [a + b, a - b, a * b, a ^ b, a & b, lesser])


def test_the_bits_of_a_float16_are_loaded_as_floats():
    halves, out = np.array([0, 0, 1.5, -65504, 6e-8, 0.333], np.float16), np.empty(4, np.float32)
    widened(halves.view(np.int16), (0,) * 4, out)
    np.testing.assert_array_equal(out, halves[2:].astype(np.float32))


@njit
def exponentials(values, out):
    for i in range(0, len(values), LANES):
        store(out, i, exponential(load(values, i, LANES)))


def test_exponentials():
    values = np.append(np.linspace(-87, 88, 399), np.nan).astype(np.float32)
    out = np.empty_like(values)
    exponentials(values, out)
    np.testing.assert_allclose(out, np.exp(values), rtol=1e-5)
    near = np.abs(values) < 1
    np.testing.assert_allclose(out[near], np.exp(values[near]), rtol=1e-6)
    exponentials(np.array([-1e30, -88, 89, 1e30, 0, 1, -1, np.inf], np.float32), out)
    np.testing.assert_allclose(out[:8], np.exp([-87, -87, 88, 88, 0, 1, -1, 88]), rtol=1e-5)


@pytest.mark.parametrize(("features", "lanes"), [("+avx2,-avx512f", 8), ("+sse2,+avx512f,+avx2", 16), ("", 8)])
def test_vectors_are_as_wide_as_the_processors_registers(features, lanes):
    assert widest(features) == lanes


@njit
def lowest(bits):
    return trailing_zeros(bits)


@pytest.mark.parametrize(("bits", "zeros"), [(1, 0), (0b1011000, 3), (1 << 63, 63), (2**64 - 2, 1)])
def test_trailing_zeros(bits, zeros):
    assert lowest(np.uint64(bits)) == zeros
