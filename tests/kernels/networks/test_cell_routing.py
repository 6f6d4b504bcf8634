"""Cells and places by hand, then the twins against the torch reference."""

import pytest
import torch

from kernels.networks.cell_routing import route_to_cells
from tests.triton_device import DEVICE, needs_triton

# Cells of 0.5 x 1 x 2.
BOX = torch.tensor([[-1.0, 0.0, 2.0], [0.0, 3.0, 10.0]])
GRID = (2, 3, 4)


@pytest.mark.parametrize("implementation", ["torch", "numba"])
def test_cell_and_place_by_hand(implementation):
    positions = torch.tensor([[-0.875, 2.5, 9.0], [-0.25, 0.75, 4.5], [-1, 0, 2], [0, 3, 10], [0.25, -1, 12]])
    local, cell = route_to_cells(positions, BOX, GRID, implementation=implementation)
    assert cell.tolist() == [2 * 4 + 3, 12 + 1, 0, 23, 12 + 3]
    # The last is outside: the nearest cell, and a place beyond its faces.
    expected = [[-0.5, 0, 0], [0, 0.5, -0.5], [-1, -1, -1], [1, 1, 1], [2, -3, 3]]
    torch.testing.assert_close(local, torch.tensor(expected))


@pytest.mark.parametrize("count", [0, 1, 20011])
def test_numba_matches_torch(count):
    positions = BOX[0] + torch.rand(count, 3) * 1.1 * (BOX[1] - BOX[0])
    local, cell = route_to_cells(positions, BOX, GRID, implementation="torch")
    found, found_cell = route_to_cells(positions, BOX, GRID, implementation="numba")
    assert torch.equal(found_cell, cell)
    torch.testing.assert_close(found, local, atol=2e-6, rtol=1e-6)


@needs_triton
@pytest.mark.parametrize("count", [0, 1, 2011])
@pytest.mark.parametrize(("grid", "kind"), [(GRID, torch.int16), ((20, 50, 40), torch.int32)])
def test_triton_matches_torch(count, grid, kind):
    positions = BOX[0] + (torch.rand(3, count).t() * 1.2 - 0.1) * (BOX[1] - BOX[0])  # channel-major, as samples are
    local, cell = route_to_cells(positions, BOX, grid, implementation="torch")
    found, found_cell = route_to_cells(positions.to(DEVICE), BOX.to(DEVICE), grid, implementation="triton")
    assert found_cell.dtype == kind
    # On a face rounding decides.
    same = found_cell.cpu() == cell
    assert same.float().mean() > 0.999 or not count
    torch.testing.assert_close(found.cpu()[same], local[same], atol=2e-5, rtol=1e-5)


def test_same_bits_for_one_and_two_threads(use_threads):
    positions = BOX[0] + torch.rand(30000, 3) * (BOX[1] - BOX[0])
    results = []
    for threads in (1, 2):
        use_threads(threads)
        results.append(route_to_cells(positions, BOX, GRID, implementation="numba"))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
