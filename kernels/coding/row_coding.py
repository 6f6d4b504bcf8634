"""Rows of integers as bits: a hash table's entries, the weights of cells' networks; and the integers worth their bits.

What an integer is likely to be follows from those before it: its magnitude from the integers before it in its row and
those of its column in neighbouring rows, its sign from the sum of the latter. ``strides`` (3,) says how many rows back
these are, 0 for none; ``classes`` (columns,) which columns have their statistics in common.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.coding.range_coding import COUNT, bits_of_integer, code_integer, new_models
from kernels.threads import COMPILED, INNER

_BEFORE = 4  # integers of its row that an integer is judged by
_SIZES = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 6, *[7] * 5, *[8] * 10], dtype=np.int64)
_LARGE = 9
_NEAR = 3
_SIDE = 3  # most of the neighbours' sum that signs are told apart by
_SIDES = 2 * _SIDE + 1


def models_of(classes: np.ndarray) -> np.ndarray:
    """Fresh models for rows of these columns."""
    count = int(classes.max()) + 1
    return new_models(count * (_LARGE + 1) * _NEAR, count * _SIDES)


@njit(**COMPILED, **INNER)
def _context(models, values, row, column, first, strides, classes):
    """By the magnitudes of the integers before it, and of those of its column nearby; and the place of its sign."""
    before = near = side = 0
    if column:
        for k in range(max(0, column - _BEFORE), column):
            before += abs(values[row, k])
    elif row - strides[0] >= first:
        for k in range(min(_BEFORE, values.shape[1])):
            before += abs(values[row - strides[0], k])
    for stride in strides:
        if stride and row - stride >= first:
            near += abs(values[row - stride, column])
            side += values[row - stride, column]
    size = _SIZES[before] if before < len(_SIZES) else _LARGE
    context = (classes[column] * (_LARGE + 1) + size) * _NEAR + min(near, _NEAR - 1)
    return context, len(models) - classes[column] * _SIDES - 1 - _SIDE + min(max(side, -_SIDE), _SIDE)


@njit(**COMPILED)
def code_rows(mode, coder, data, models, values, stored, first, last, strides, classes):
    """Codes the rows ``first .. last - 1`` of ``values`` (rows, columns) int32 that are ``stored`` (rows,) bool.

    Decoding, it fills them in; other rows must be 0.
    """
    for row in range(first, last):
        if stored[row]:
            for column in range(values.shape[1]):
                context, sign = _context(models, values, row, column, first, strides, classes)
                values[row, column] = code_integer(mode, coder, data, models, context, sign, values[row, column])


@njit(**COMPILED)
def round_rows(coder, models, scaled, worth, values, stored, first, last, strides, classes):
    """Rounds rows so that squared error times worth, plus bits, is small: each integer to the nearest, to one of those
    next to it towards zero, as long as each is better than the one before, or to zero.

    Args:
        coder, models: for counting; the bits are those that ``code_rows`` will take.
        scaled: (rows, columns) float32 in steps; what is not finite becomes zero.
        worth: (rows, columns) float32 bits that an error of a step, squared, is worth.
        values: (rows, columns) int32, filled in.
    """
    nothing = np.zeros(0, np.uint8)
    for row in range(first, last):
        if stored[row]:
            for column in range(values.shape[1]):
                context, sign = _context(models, values, row, column, first, strides, classes)
                best = worth_its_bits(models, context, sign, scaled[row, column], worth[row, column])
                values[row, column] = code_integer(COUNT, coder, nothing, models, context, sign, best)


@njit(**COMPILED, **INNER)
def worth_its_bits(models, context, sign, wanted, worth):
    """The integer to take for ``wanted``, see ``round_rows``."""
    candidate, best = np.int64(np.rint(wanted)), np.int64(0)
    if candidate:
        towards = np.int64(1 if candidate < 0 else -1)
        least, before = worth * wanted * wanted + bits_of_integer(models, context, sign, best), np.inf
        while candidate:
            cost = worth * (wanted - candidate) ** 2 + bits_of_integer(models, context, sign, candidate)
            if not cost < before:  # also of what is no number, which no integer is near
                break
            if cost < least:
                best, least = candidate, cost
            before = cost
            candidate += towards
    return best
