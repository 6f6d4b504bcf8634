"""Parts of a student as bytes, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from distill.compact.parts import LARGEST_EXPONENT, Block, Integers, Part
from kernels.mask_coding import code_mask
from kernels.range_coding import COUNT, DECODE, ENCODE, LARGEST, counted_bits, finish, new_coder, place_of
from kernels.row_coding import code_rows, models_of

_NOTHING = np.zeros(0, dtype=np.uint8)


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
            _code_exponents(ENCODE, coder, data, integers.exponents.copy())
            _code_values(ENCODE, coder, data, part, integers.values)

    centres = b"".join(each.centre.astype("<f2").tobytes() for each in content if each.centre is not None)
    return centres + _written(write, sum(part.integers for part in parts))


def decode_parts(parts: Sequence[Part], section: bytes) -> list[Integers]:
    """What ``encode_parts`` was given.

    Raises:
        ValueError: there are more or fewer bytes than these parts take.
    """
    centres = []
    for part in parts:
        width = 2 * part.shape[1] if part.centred else 0
        centres.append(np.frombuffer(section[:width], dtype="<f2").astype(np.float16) if part.centred else None)
        if len(section) < width:
            raise ValueError("bytes end too early")
        section = section[width:]
    content = []
    with _reading(section) as (coder, data):
        for part, centre in zip(parts, centres, strict=True):
            if centre is not None and not np.isfinite(centre).all():
                raise ValueError(f"{part.name}: a centre that is not a number")
            exponents = np.zeros(part.exponents_shape, dtype=np.int32)
            _code_exponents(DECODE, coder, data, exponents)
            values = np.zeros(part.shape, dtype=np.int32)
            _code_values(DECODE, coder, data, part, values)
            content.append(Integers(values, exponents, centre))
    return content


def bits_of_values(part: Part, values: np.ndarray) -> float:
    """Bits that a part's integers take."""
    coder = new_coder(COUNT, _NOTHING)
    _code_values(COUNT, coder, _NOTHING, part, values)
    return counted_bits(coder)


def block_of(part: Part, block: Block) -> tuple[np.ndarray, int, int, np.ndarray, np.ndarray]:
    """What the kernels of ``row_coding`` ask of a block: stored, first, last, strides, classes."""
    return part.stored, block.first, block.last, np.array(block.strides, dtype=np.int64), part.classes


def _code_values(mode: int, coder: np.ndarray, data: np.ndarray, part: Part, values: np.ndarray) -> None:
    if mode != DECODE and np.abs(values).max(initial=0) > LARGEST:
        raise ValueError(f"{part.name}: integers beyond {LARGEST}: its steps are too fine")
    for block in part.blocks:
        code_rows(mode, coder, data, models_of(part.classes), values, *block_of(part, block))


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
