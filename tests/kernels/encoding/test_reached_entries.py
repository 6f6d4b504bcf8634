"""Entries that samples in occupied cells can reach, against those that interpolation reads."""

import numpy as np
import pytest
import torch

from kernels.encoding.hash_encoding import hash_encode
from kernels.encoding.hash_layout import HashLayout
from kernels.encoding.reached_entries import reached_entries

LAYOUT = HashLayout(levels=4, features=1, table_size=512, base_resolution=4, finest_resolution=40, planes=(9, 60))
RESOLUTION = 9


def read_entries(places):
    table = torch.zeros(LAYOUT.entries, 1, requires_grad=True)
    hash_encode(places, table, LAYOUT, implementation="torch").sum().backward()
    return (table.grad[:, 0] != 0).numpy()


def some_cells(seed, shape=(9, 6, 9), share=0.02):
    return (np.random.default_rng(seed).random(shape) < share).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_anywhere_in_the_cells_is_reached_and_little_else(seed):
    cells = some_cells(seed)
    corners = torch.from_numpy(np.argwhere(cells)).float()
    places = (corners[:, None] + torch.rand(len(corners), 4000, 3)).view(-1, 3) / RESOLUTION
    reached = reached_entries(cells, RESOLUTION, LAYOUT, LAYOUT.scales)
    read = read_entries(places)
    assert not (read & ~reached).any()
    assert reached.sum() <= 1.1 * read.sum()


def test_a_long_run_of_cells_reaches_what_its_cells_do_one_by_one():
    cells = np.zeros((4, 4, 9), np.uint8)
    cells[1, 2, 2:8] = 1
    together = np.zeros(LAYOUT.entries, bool)
    for z in range(2, 8):
        single = np.zeros_like(cells)
        single[1, 2, z] = 1
        together |= reached_entries(single, RESOLUTION, LAYOUT, LAYOUT.scales)
    assert (reached_entries(cells, RESOLUTION, LAYOUT, LAYOUT.scales) == together).all()


def test_a_cell_of_countless_vertices_reaches_a_full_table_at_once():
    layout = HashLayout(levels=1, features=1, table_size=512, base_resolution=1_000_000, finest_resolution=1_000_000)
    assert reached_entries(np.ones((1, 1, 9), np.uint8), RESOLUTION, layout, layout.scales).all()


def test_no_cells_reach_nothing_and_all_reach_a_full_table():
    assert not reached_entries(np.zeros((9, 9, 9), np.uint8), RESOLUTION, LAYOUT, LAYOUT.scales).any()
    everywhere = reached_entries(np.ones((9, 9, 9), np.uint8), RESOLUTION, LAYOUT, LAYOUT.scales)
    assert everywhere[LAYOUT.offsets[2] :].all()


@pytest.mark.parametrize(("scale", "expected"), [(4.0, {0, 1, 2, 3}), (4 * (1 - 5e-6), {0, 1, 2, 3}), (3.0, {0, 1, 2})])
def test_a_sample_that_lies_outside_of_its_cell_by_rounding_reads_what_is_reached(scale, expected):
    """Vertices of x along an edge of eight cells, the second and third of which are occupied, from 1/8 to 3/8.

    At a scale of 4 they begin where vertex 0 is just not read, at 0.5 + 0.5, and end where vertex 3 is, at 1.5 + 0.5,
    or, of a scale a little smaller, just is not.
    """
    layout = HashLayout(levels=1, features=1, table_size=512, base_resolution=5, finest_resolution=5)
    cells = np.zeros((8, 8, 8), np.uint8)
    cells[1:3, 0, 0] = 1
    reached = reached_entries(cells, 8, layout, np.array([scale], np.float32))[: 5**3].reshape(5, 5, 5)
    assert set(reached.any((0, 1)).nonzero()[0].tolist()) == expected
