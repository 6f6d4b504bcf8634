"""Integers of parts as bytes and back."""

import numpy as np
import pytest

from distill.compact.coding import decode_parts, encode_parts
from distill.compact.parts import LARGEST_EXPONENT, Block, Integers, Part


@pytest.fixture
def part():
    """Of 40 rows in two groups, with two classes of columns."""
    blocks = Block(0, 20, (1, 0, 0)), Block(20, 40, (1, 0, 0))
    return Part("table", np.arange(40) % 5 > 0, blocks, np.repeat([0, 1], 20), np.array([0, 1, 1]))


def integers_of(part, exponents):
    values = np.random.default_rng(0).integers(-9, 9, part.shape).astype(np.int32) * part.stored[:, None]
    return Integers(values, np.array(exponents, dtype=np.int32))


def test_every_group_and_class_keeps_its_step(part):
    content = integers_of(part, [[-8, 3], [16, -LARGEST_EXPONENT]])
    (found,) = decode_parts([part], encode_parts([part], [content]))
    assert found.exponents.tolist() == [[-8, 3], [16, -LARGEST_EXPONENT]]
    assert np.array_equal(found.values, content.values)


def test_a_step_beyond_what_numbers_hold_is_refused(part):
    section = encode_parts([part], [integers_of(part, [[0, 0], [LARGEST_EXPONENT + 1, 0]])])
    with pytest.raises(ValueError, match=r"a step of 2\*\*\(801 / 8\)"):
        decode_parts([part], section)


def with_map(columns):
    """A part of a network of one matrix, and its integers, with a map from the left."""
    part = Part("cells", np.ones(3, bool), (), np.arange(3), np.zeros(2, np.int64), ((2, 1),))
    values, centre = np.arange(6, dtype=np.int32).reshape(3, 2), np.array([5, -7], dtype=np.int32)
    maps = np.array(columns, dtype=np.int32), np.ones((1, 1), dtype=np.int32)
    return [part], [Integers(values, np.zeros((3, 1), np.int32), centre, maps)]


def test_a_map_comes_back_with_columns_of_the_largest_power_and_entry():
    parts, content = with_map([[1 << 12, 32767], [3 << 12, 1]])
    (found,) = decode_parts(parts, encode_parts(parts, content))
    assert all(np.array_equal(one, other) for one, other in zip(found.maps, content[0].maps, strict=True))
    assert found.centre.tolist() == [5, -7] and np.array_equal(found.values, content[0].values)


@pytest.mark.parametrize(
    ("columns", "found"), [([[1 << 13, 1], [0, 1]], "powers of two from 0 to 13"), ([[32769, 0], [1, 1]], "of 32769")]
)
def test_a_map_beyond_what_a_reader_takes_is_not_written(columns, found):
    with pytest.raises(ValueError, match=found):
        encode_parts(*with_map(columns))
