"""Matrices of integers as bits, many of the same shape, whose magnitudes vary smoothly along rows and columns; and the
integers worth their bits.

How large an integer is likely to be follows from those around it that come before: a weighted mean of magnitudes in its
row and in the three above it, finely told apart; and from whether that is more or less than its place had in the
matrices before. Its sign is judged by the sum of those of its place in neighbouring rows: ``strides`` (3,) says how
many rows back these are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.coding.range_coding import COUNT, code_integer, new_models
from kernels.coding.row_coding import worth_its_bits
from kernels.threads import COMPILED, INNER, UNCALLED

# Of the row of an integer and of those above it: weights of the columns from four before it to four behind it.
_AROUND = np.array(
    [[1, 2, 2, 3, 0, 0, 0, 0, 0], [0, 1, 1, 2, 3, 2, 1, 1, 0], [0, 0, 0, 1, 2, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0, 0, 0]]
)
_HALF = 4
_MOST = 255  # of a magnitude, as far as it says something of others
_UNIT = 16  # of means of magnitudes
# 3 * log2(1 + mean / 8), rounded: whole numbers, since logarithms differ from machine to machine.
_STARTS = np.array(
    [0, 1, 4, 7, 10, 15, 21, 28, 38, 50, 64, 83, 107, 136, 174, 221, 280, 355, 449, 567, 717], dtype=np.int64
)
_SIZES = np.searchsorted(_STARTS, np.arange(_MOST * _UNIT + 1), side="right") - 1
_LEVELS = len(_STARTS)
_CHANGES = 3  # less than half of what the place had before, about that, more than twice
_SIDE = 3  # most of the neighbours' sum that signs are told apart by
_SIDES = 2 * _SIDE + 1


def matrix_models(matrices: int) -> np.ndarray:
    """Fresh models for rows of so many matrices."""
    return new_models(matrices * _LEVELS * _CHANGES, matrices * _SIDES)


@njit(**COMPILED, **INNER)
def _context(integers, row, column, width, usual, matrix):
    """By magnitudes around a place of ``integers`` (height * width,)."""
    total = weights = 0
    for i in range(min(row, 3) + 1):
        for j in range(max(0, _HALF - column), min(2 * _HALF + 1, width - column + _HALF)):
            weight = _AROUND[i, j]
            if weight:
                total += weight * min(abs(integers[(row - i) * width + column + j - _HALF]), _MOST)
                weights += weight
    mean = total * _UNIT // weights if weights else usual
    change = 0 if mean > 2 * usual else (2 if 2 * mean < usual else 1)
    return (matrix * _LEVELS + _SIZES[mean]) * _CHANGES + change


@njit(**COMPILED, **INNER)
def _sign(models, values, row, place, strides, matrix):
    """The place of a sign's model."""
    side = np.int64(0)
    for stride in strides:
        if row >= stride:
            side += values[row - stride, place]
    return len(models) - (matrix + 1) * _SIDES + _SIDE + min(max(side, -_SIDE), _SIDE)


@njit(**COMPILED, **INNER)
def _learn(usual, place, value, seen):
    """Moves what a place usually has towards what it has now."""
    usual[place] += (min(abs(value), _MOST) * _UNIT - usual[place]) // min(seen + 1, 16)


@njit(**COMPILED)
def code_matrices(mode, coder, data, models, values, stored, shapes, strides):
    """Codes the rows of ``values`` (rows, columns) int32 that are ``stored`` (rows,) bool, matrix after matrix of
    ``shapes`` (matrices, 2), height and width.

    Decoding, it fills them in; other rows must be 0.
    """
    nothing = np.zeros((0, 0), np.float32)
    _code(mode, coder, data, models, nothing, nothing, values, stored, shapes, strides)


@njit(**COMPILED)
def round_matrices(coder, models, scaled, worth, values, stored, shapes, strides):
    """Rounds rows as ``row_coding.round_rows`` does, for ``code_matrices``."""
    _code(COUNT, coder, np.zeros(0, np.uint8), models, scaled, worth, values, stored, shapes, strides)


@njit(**COMPILED, **UNCALLED)
def _code(mode, coder, data, models, scaled, worth, values, stored, shapes, strides):
    """Codes integers, of ``scaled`` if there are any: those worth their bits, which it fills in."""
    usual, seen = np.zeros(values.shape[1], np.int64), 0
    for row in range(len(values)):
        if stored[row]:
            start = 0
            for matrix in range(len(shapes)):
                height, width = shapes[matrix]
                integers = values[row, start : start + height * width]
                for place in range(height * width):
                    y, x = place // width, place % width
                    context = _context(integers, y, x, width, usual[start + place], matrix)
                    sign = _sign(models, values, row, start + place, strides, matrix)
                    wanted = np.int64(integers[place])
                    if len(scaled) > 0:
                        one, value = scaled[row, start + place], worth[row, start + place]
                        wanted = worth_its_bits(models, context, sign, one, value)
                    integers[place] = code_integer(mode, coder, data, models, context, sign, wanted)
                    _learn(usual, start + place, integers[place], seen)
                start += height * width
            seen += 1
