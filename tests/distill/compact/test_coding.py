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
