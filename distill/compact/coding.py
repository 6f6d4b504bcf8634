"""Parts of a student as bytes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from distill.compact.parts import LARGEST_EXPONENT, Block, Integers, Part
from kernels.coding.mask_coding import code_mask
from kernels.coding.matrix_coding import code_matrices, matrix_models
from kernels.coding.range_coding import DECODE, ENCODE, LARGEST, finish, new_coder, place_of
from kernels.coding.row_coding import code_rows, models_of

_LARGEST_POWER, _LARGEST_ENTRY = 12, 1 << 15  # of two, in a map's columns, and of what these leave


def encode_mask(cells: np.ndarray) -> bytes:
    """(X, Y, Z) uint8, 0 or 1."""
    return _written(lambda coder, data: code_mask(ENCODE, coder, data, cells), cells.size // 4)


def decode_mask(section: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """What ``encode_mask`` was given.

    Raises:
        ValueError: there are more or fewer bytes than these cells take.
    """
    cells = np.zeros(shape, dtype=np.uint8)
    with _reading(section) as (coder, data):
        code_mask(DECODE, coder, data, cells)
    return cells


def encode_parts(parts: Sequence[Part], content: Sequence[Integers]) -> bytes:
    """The integers of the parts, one part after another."""
    pairs = [*zip(parts, content, strict=True)]

    def write(coder: np.ndarray, data: np.ndarray) -> None:
        for part, integers in pairs:
            _code_common(ENCODE, coder, data, part, integers)
            _code_exponents(ENCODE, coder, data, integers.exponents.copy())
            _code_values(ENCODE, coder, data, part, integers.values)

    return _written(write, sum(part.integers + part.common_integers for part in parts))


def decode_parts(parts: Sequence[Part], section: bytes) -> list[Integers]:
    """What ``encode_parts`` was given.

    Raises:
        ValueError: there are more or fewer bytes than these parts take.
    """
    content = []
    with _reading(section) as (coder, data):
        for part in parts:
            exponents = np.zeros(part.exponents_shape, dtype=np.int32)
            values = np.zeros(part.shape, dtype=np.int32)
            centre, maps = _code_common(DECODE, coder, data, part, None)
            _code_exponents(DECODE, coder, data, exponents)
            _code_values(DECODE, coder, data, part, values)
            content.append(Integers(values, exponents, centre, maps))
    return content


def block_of(part: Part, block: Block) -> tuple[np.ndarray, int, int, np.ndarray, np.ndarray]:
    """What the kernels of ``row_coding`` ask of a block: stored, first, last, strides, classes."""
    return part.stored, block.first, block.last, np.array(block.strides, dtype=np.int64), part.classes


def _code_values(mode: int, coder: np.ndarray, data: np.ndarray, part: Part, values: np.ndarray) -> None:
    if mode != DECODE:
        _check_size(part, values, "its steps are too fine")
    if part.matrices:
        shapes = np.array(part.matrices)
        code_matrices(mode, coder, data, matrix_models(len(shapes)), values, part.stored, shapes, part.strides)
    for block in part.blocks:
        code_rows(mode, coder, data, models_of(part.classes), values, *block_of(part, block))


def _check_size(part: Part, values: np.ndarray, reason: str) -> None:
    """Raises:
    ValueError: integers are larger than can be coded.
    """
    if max(int(values.max(initial=0)), -int(values.min(initial=0))) > LARGEST:
        raise ValueError(f"{part.name}: integers beyond {LARGEST}: {reason}")


def _code_common(
    mode: int, coder: np.ndarray, data: np.ndarray, part: Part, integers: Integers | None
) -> tuple[np.ndarray | None, tuple[np.ndarray, ...]]:
    """What rows have in common, the centre and the maps; decoding, there are no ``integers`` yet."""
    if not part.matrices:
        return None, ()
    centre = np.zeros((1, part.shape[1]), dtype=np.int32)
    if integers is not None:
        centre[0] = integers.centre
        _check_size(part, centre, "its weights are too large")
    _code_matrix(mode, coder, data, centre)
    maps, sides = [], [side for matrix in part.matrices for side in matrix]
    for k, side in enumerate(sides):
        columns = np.zeros((side, side), dtype=np.int32) if integers is None else integers.maps[k]
        powers = np.zeros((1, side), dtype=np.int32)
        if integers is not None:
            lowest = np.bitwise_or.reduce(columns, axis=0)
            powers[0] = np.log2(np.maximum(lowest & -lowest, 1))
        _code_matrix(mode, coder, data, powers)
        if not 0 <= powers.min() <= powers.max() <= _LARGEST_POWER:
            raise ValueError(f"{part.name}: a map with powers of two from {powers.min()} to {powers.max()}")
        shifted = columns >> powers
        _code_matrix(mode, coder, data, shifted)
        if np.abs(shifted).max() > _LARGEST_ENTRY:
            raise ValueError(f"{part.name}: a map with entries of {np.abs(shifted).max()}")
        maps.append(shifted << powers)
    return centre[0], tuple(maps)


def _code_matrix(mode: int, coder: np.ndarray, data: np.ndarray, values: np.ndarray) -> None:
    rows, columns = values.shape
    classes, strides = np.zeros(columns, dtype=np.int64), np.array([1, 0, 0])
    code_rows(mode, coder, data, models_of(classes), values, np.ones(rows, np.bool_), 0, rows, strides, classes)


def _code_exponents(mode: int, coder: np.ndarray, data: np.ndarray, exponents: np.ndarray) -> None:
    """As differences from the row before, in place."""
    rows, columns = exponents.shape
    if mode != DECODE:
        exponents[1:] -= exponents[:-1].copy()
    classes, strides = np.arange(columns), np.array([1, 0, 0])
    code_rows(mode, coder, data, models_of(classes), exponents, np.ones(rows, np.bool_), 0, rows, strides, classes)
    if mode == DECODE:
        total = np.cumsum(exponents, axis=0, dtype=np.int64)
        if np.abs(total).max(initial=0) > LARGEST_EXPONENT:
            raise ValueError(f"a step of 2**({np.abs(total).max()} / 8)")
        exponents[...] = total


def _written(write: Callable[[np.ndarray, np.ndarray], None], integers: int) -> bytes:
    """What ``write(coder, data)`` writes, first tried with as many bytes as there are integers."""
    room = integers + 1024
    while True:
        data = np.zeros(room, dtype=np.uint8)
        coder = new_coder(ENCODE, data)
        write(coder, data)
        finish(coder, data)
        if place_of(coder) <= room:
            return data[: place_of(coder)].tobytes()
        room = place_of(coder)


@contextmanager
def _reading(section: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A decoder of a section and its bytes, which must be used up in the end."""
    data = np.frombuffer(section, dtype=np.uint8).copy()  # one type with what is written: compiled once
    coder = new_coder(DECODE, data)
    yield coder, data
    if place_of(coder) != len(data):
        raise ValueError(f"{len(data)} bytes, of which {place_of(coder)} would be read")
