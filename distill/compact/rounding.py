"""Which integers stand for weights: steps as fine as the weights matter, and integers that are worth their bits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from distill.compact.coding import block_of
from distill.compact.parts import LARGEST_EXPONENT, Block, Part, steps_of
from kernels.coding.matrix_coding import matrix_models, round_matrices
from kernels.coding.range_coding import COUNT, LARGEST, counted_bits, new_coder
from kernels.coding.row_coding import models_of, round_rows
from kernels.threads import parallel_for

_LARGEST_INTEGER = LARGEST / 2  # of those that weights begin with: they move in training
_MOST_WORTH = np.float32(1e30)  # finite: times an error of nothing it is nothing
_COARSEST = 20 * 8  # the exponent of steps for weights that do not matter at all


def means_of(part: Part, importance: np.ndarray) -> np.ndarray:
    """(groups, classes) means over what is stored; 0 where nothing is."""
    sums = np.add.reduceat(importance * part.stored[:, None], part.firsts, axis=0, dtype=np.float64)
    of_class = part.classes[:, None] == np.arange(part.exponents_shape[1])
    return sums @ of_class / np.maximum(part.counts[:, None] * of_class.sum(0), 1)


def exponents_of(part: Part, importance: np.ndarray, coarseness: float, largest: float) -> np.ndarray:
    """Exponents of steps by which rounding costs each group and class about the same.

    Args:
        importance: (rows, columns) what a weight's error, squared, costs.
        coarseness: the root of what an error of a step costs.
        largest: magnitude of a weight; no step is so fine that its integer could not be coded.
    """
    with np.errstate(divide="ignore"):
        exponents = np.rint(8 * np.log2(coarseness / np.sqrt(means_of(part, importance))))
    finest = math.ceil(8 * math.log2(largest / _LARGEST_INTEGER)) if largest > 0 else -LARGEST_EXPONENT
    exponents = np.where(np.isfinite(exponents), exponents, _COARSEST)
    return exponents.clip(max(finest, -LARGEST_EXPONENT), _COARSEST).astype(np.int32)


def round_part(
    part: Part, scaled: np.ndarray, importance: np.ndarray, exponents: np.ndarray, price: float
) -> tuple[np.ndarray, float]:
    """Integers (rows, columns) int32 for weights in steps, and the bits they take.

    Args:
        scaled: (rows, columns) float32 weights, less the centre, in steps.
        importance: as for ``exponents_of``.
        price: of a bit, in the unit of ``importance`` times a weight's square.
    """
    with np.errstate(over="ignore"):  # where steps cannot be as fine as is asked
        worth = (importance * part.spread(steps_of(exponents) ** 2 / np.float32(price))).astype(np.float32, copy=False)
    np.minimum(worth, _MOST_WORTH, out=worth)
    values = np.zeros(part.shape, dtype=np.int32)
    if part.matrices:
        coder, shapes = new_coder(COUNT, np.zeros(0, dtype=np.uint8)), np.array(part.matrices)
        round_matrices(coder, matrix_models(len(shapes)), scaled, worth, values, part.stored, shapes, part.strides)
        return values, counted_bits(coder)
    coders = [new_coder(COUNT, np.zeros(0, dtype=np.uint8)) for _ in part.blocks]

    def round_blocks(start: int, stop: int) -> None:
        for block, coder in zip(part.blocks[start:stop], coders[start:stop], strict=True):
            round_rows(coder, models_of(part.classes), scaled, worth, values, *block_of(part, block))

    parallel_for(round_blocks, len(coders), grain=1)
    return values, sum(map(counted_bits, coders))


def compile_rounding(part: Part) -> None:
    """Rounds a row of zeros as ``round_part`` does a part, so that numba has compiled what that takes."""
    blocks = tuple(Block(0, 1, block.strides) for block in part.blocks[:1])
    row = replace(part, stored=part.stored[:1], blocks=blocks, groups=part.groups[:1])
    zeros = np.zeros(row.shape, dtype=np.float32)
    round_part(row, zeros, zeros, np.zeros(row.exponents_shape, dtype=np.int32), 1.0)
