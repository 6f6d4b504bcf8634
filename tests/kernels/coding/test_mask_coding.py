"""Occupied cells as bits and back."""

import numpy as np
import pytest

from kernels.coding.mask_coding import code_mask
from kernels.coding.range_coding import DECODE, ENCODE, finish, new_coder, place_of


def encoded(cells):
    data = np.zeros(cells.size + 64, np.uint8)
    coder = new_coder(ENCODE, data)
    code_mask(ENCODE, coder, data, cells)
    finish(coder, data)
    return data[: place_of(coder)]


def decoded(data, shape):
    cells = np.zeros(shape, np.uint8)
    code_mask(DECODE, new_coder(DECODE, data), data, cells)
    return cells


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 1, 9)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_cells_come_back(shape, share):
    cells = (np.random.default_rng(0).random(shape) < share).astype(np.uint8)
    assert (decoded(encoded(cells), shape) == cells).all()


def test_a_ball_takes_a_quarter_of_its_bitmap():
    place = np.stack(np.meshgrid(*[np.linspace(-1, 1, 48)] * 3, indexing="ij"))
    cells = ((place**2).sum(0) < 0.7).astype(np.uint8)
    data = encoded(cells)
    assert len(data) < cells.size / 8 / 4
    assert (decoded(data, cells.shape) == cells).all()
