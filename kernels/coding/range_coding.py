"""Integers as bits: an adaptive binary range coder (after LZMA's), in whole numbers throughout.

Each binary decision is coded with the probability that its model, a place in ``models``, has learnt so far. Encoder and
decoder learn alike, so no statistics are stored, and the same bytes give the same integers on any machine.

An integer is these decisions: is it zero; its sign; one for each further unit of its magnitude up to ``UNARY``; the
rest as an Exp-Golomb code.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.threads import COMPILED, FIRST, INNER, SECOND

ENCODE, DECODE, COUNT = 0, 1, 2
UNARY = 14
_TAIL = 20  # most bits of what is beyond ``UNARY``
LARGEST = UNARY + (1 << _TAIL) - 1
"""Most magnitude of an integer."""
MODELS = 1 + UNARY + _TAIL
"""Models that an integer takes in one context, that of its sign apart."""
# A probability, of 2**32, stays this far from 0 and 1: no decision is for free, so bytes bound what they can hold.
_LEAST = 1 << 22
DECISIONS_PER_BYTE = 6000
"""No byte holds more decisions: the surest takes -log2(1 - 2**-10) bits."""
_SLOWEST = 250
# The n-th thing seen moves a probability by 1 / (n + 1.6) of its distance to it, in the end by 1 / _SLOWEST, of 2**16.
_RATES = (65536 / (np.arange(_SLOWEST) + 1.6)).astype(np.int64)
_UNIT = 65536  # of counted bits
_COSTS = np.rint(-_UNIT * np.log2((np.arange(4096) + 0.5) / 4096)).astype(np.int64)
_LOW, _RANGE, _HELD, _HELD_BYTES, _PLACE, _CODE, _BITS = range(7)


def new_models(contexts: int, signs: int) -> np.ndarray:
    """(contexts * MODELS + signs,) int64: what the models of some contexts, then of some signs, know: nothing."""
    return np.full(contexts * MODELS + signs, 1 << 31 << 8, dtype=np.int64)


def new_coder(mode: int, data: np.ndarray) -> np.ndarray:
    """(7,) int64: the state of a coder at the beginning of ``data``, bytes that it writes or reads.

    Counting, it leaves them alone, and ``counted_bits`` says how long they would be.
    """
    coder = np.array([0, 0xFFFFFFFF, 0, 1, 0, 0, 0], dtype=np.int64)
    if mode == DECODE:  # the first byte is the carry's, always 0
        coder[_PLACE] = 5
        coder[_CODE] = int.from_bytes(bytes(data[1:5]).ljust(4, b"\0"), "big")
    return coder


def counted_bits(coder: np.ndarray) -> float:
    """Bits of all that was counted."""
    return float(coder[_BITS]) / _UNIT


def place_of(coder: np.ndarray) -> int:
    """Bytes written so far, more than there was room for where it ran out; or read, more than there are likewise."""
    return int(coder[_PLACE])


@njit(**COMPILED)
def finish(coder, data):
    """Writes what the encoder still holds."""
    for _ in range(5):
        _shift(coder, data)


@njit(**COMPILED, **INNER)
def _shift(coder, data):
    """Moves the top byte of the low end towards ``data``; while a carry may still come it is held back."""
    low = coder[_LOW]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry, byte = low >> 32, coder[_HELD]
        while coder[_HELD_BYTES] > 0:
            if coder[_PLACE] < len(data):
                data[coder[_PLACE]] = (byte + carry) & 0xFF
            coder[_PLACE] += 1
            byte = 0xFF
            coder[_HELD_BYTES] -= 1
        coder[_HELD] = (low >> 24) & 0xFF
    coder[_HELD_BYTES] += 1
    coder[_LOW] = (low & 0x00FFFFFF) << 8


@njit(**COMPILED, **INNER)
def _cost(models, place, bit):
    """What a decision would take, in counted bits' unit."""
    chance = models[place] >> 28  # of a zero, in 4096ths
    return _COSTS[4095 - chance] if bit else _COSTS[chance]


@njit(**COMPILED, **INNER)
def decide(mode, coder, data, models, place, bit):
    """Codes one decision, 0 or 1, and learns from it; gives it back."""
    model = models[place]
    chance, seen = model >> 8, model & 0xFF
    if mode == COUNT:
        coder[_BITS] += _cost(models, place, bit)
    else:
        bound = (coder[_RANGE] >> 16) * (chance >> 16)
        if mode == DECODE:
            bit = 0 if coder[_CODE] < bound else 1
        if bit:
            coder[_RANGE] -= bound
            coder[_CODE if mode == DECODE else _LOW] += -bound if mode == DECODE else bound
        else:
            coder[_RANGE] = bound
        while coder[_RANGE] < 1 << 24:
            coder[_RANGE] <<= 8
            if mode == DECODE:
                coder[_CODE] = (coder[_CODE] << 8) | (data[coder[_PLACE]] if coder[_PLACE] < len(data) else 0)
                coder[_PLACE] += 1
            else:
                _shift(coder, data)
    target = _LEAST if bit else (1 << 32) - _LEAST
    chance += ((target - chance) * _RATES[seen]) >> 16
    models[place] = (chance << 8) | min(seen + 1, _SLOWEST - 1)
    return bit


@njit(**COMPILED)
def code_integer(mode, coder, data, models, context, sign, value):
    """Codes an integer of at most ``LARGEST`` in magnitude with the models of a context; gives it back.

    ``sign`` is the place of the model of its sign.
    """
    place = context * MODELS
    if not decide(mode, coder, data, models, place, 1 if value else 0):
        return 0
    negative = decide(mode, coder, data, models, sign, 1 if value < 0 else 0)
    size, found = abs(value), 1
    while found <= UNARY and decide(mode, coder, data, models, place + found, 1 if size > found else 0):
        found += 1
    if found > UNARY:
        found += _code_tail(mode, coder, data, models, place + 1 + UNARY, size - found)
    return -found if negative else found


@njit(**COMPILED, **INNER)
def _code_tail(mode, coder, data, models, place, value):
    """Exp-Golomb: how many bits ``value + 1`` has after its first, in unary, then these, by one model."""
    value, bits = value + 1, 0
    while bits < _TAIL - 1 and decide(mode, coder, data, models, place + bits, 1 if value >> (bits + 1) else 0):
        bits += 1
    found = 1
    for k in range(bits - 1, -1, -1):
        found = (found << 1) | decide(mode, coder, data, models, place + _TAIL - 1, (value >> k) & 1)
    return found - 1


@njit(**COMPILED)
def bits_of_integer(models, context, sign, value):
    """Bits that an integer would take; of what is beyond ``UNARY``, about."""
    place = context * MODELS
    if not value:
        return _cost(models, place, FIRST) / _UNIT
    cost = _cost(models, place, SECOND) + _cost(models, sign, SECOND if value < 0 else FIRST)
    size, found = abs(value), 1
    while found <= UNARY and size > found:
        cost += _cost(models, place + found, SECOND)
        found += 1
    if found > UNARY:
        return cost / _UNIT + 2 * np.log2(size - UNARY + 1.0)
    return (cost + _cost(models, place + found, FIRST)) / _UNIT
