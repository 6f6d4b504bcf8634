"""Cells, places and weights by hand, then numba against the torch reference."""

import pytest
import torch

from kernels.networks.cell_routing import route_to_cells
from tests.triton_device import DEVICE, needs_triton

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
# Cells of 0.5 x 1 x 2.
BOX = torch.tensor([[-1.0, 0.0, 2.0], [0.0, 3.0, 10.0]])
GRID = (2, 3, 4)


@IMPLEMENTATIONS
def test_cell_and_place_by_hand(implementation):
    positions = torch.tensor([[-0.875, 2.5, 9.0], [-0.25, 0.75, 4.5], [-1, 0, 2], [0, 3, 10], [0.25, -1, 12]])
    routed = route_to_cells(positions, BOX, GRID, 0.0, implementation=implementation)
    assert routed.cell.tolist() == [2 * 4 + 3, 12 + 1, 0, 23, 12 + 3]
    # The last is outside: the nearest cell, and a place beyond its faces.
    expected = [[-0.5, 0, 0], [0, 0.5, -0.5], [-1, -1, -1], [1, 1, 1], [2, -3, 3]]
    torch.testing.assert_close(routed.local, torch.tensor(expected))
    assert routed.point is None and routed.weight is None


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("place", "expected"),  # in units of cells, from the lower corner; cell -> weight
    [
        ((0.5, 1.5, 2.5), {(0, 1, 2): 1}),
        ((0.9, 1.5, 2.5), {(0, 1, 2): 0.75, (1, 1, 2): 0.25}),
        ((1.1, 1.5, 2.5), {(1, 1, 2): 0.75, (0, 1, 2): 0.25}),
        ((1.0, 1.5, 2.5), {(1, 1, 2): 0.5, (0, 1, 2): 0.5}),
        ((0.05, 1.5, 3.95), {(0, 1, 3): 1}),  # at the box's own faces there is nothing to blend with
        ((0.5, 0.95, 3.1), {(0, 0, 3): 0.46875, (0, 1, 3): 0.28125, (0, 0, 2): 0.15625, (0, 1, 2): 0.09375}),
        ((1, 2, 3), {(x, y, z): 0.125 for x in (0, 1) for y in (1, 2) for z in (2, 3)}),
    ],
)
def test_weights_by_hand(implementation, place, expected):
    position = BOX[0] + torch.tensor([place]) * torch.tensor([0.5, 1, 2])
    routed = route_to_cells(position, BOX, GRID, 0.2, implementation=implementation)
    cells = {(x * 3 + y) * 4 + z: (x, y, z) for x in range(2) for y in range(3) for z in range(4)}
    found = {cells[index]: weight for index, weight in zip(routed.cell.tolist(), routed.weight.tolist(), strict=True)}
    assert found == pytest.approx(expected, abs=2e-6)
    # Every cell is asked about the same place, in its own coordinates.
    corner = torch.tensor([cells[index] for index in routed.cell.tolist()], dtype=torch.float32)
    torch.testing.assert_close(corner + (routed.local + 1) / 2, torch.tensor([place]).expand_as(corner).float())
    assert not routed.point.any()


@pytest.mark.parametrize("blend", [0.0, 0.07, 0.5])
@pytest.mark.parametrize("count", [0, 1, 20011])
def test_numba_matches_torch(blend, count):
    positions = BOX[0] + torch.rand(count, 3) * 1.1 * (BOX[1] - BOX[0])
    expected = route_to_cells(positions, BOX, GRID, blend, implementation="torch")
    found = route_to_cells(positions, BOX, GRID, blend, implementation="numba")
    assert torch.equal(found.cell, expected.cell)
    torch.testing.assert_close(found.local, expected.local, atol=2e-6, rtol=1e-6)
    if blend == 0:
        assert found.point is None and expected.point is None
        return
    assert torch.equal(found.point, expected.point)
    torch.testing.assert_close(found.weight, expected.weight, atol=2e-5, rtol=0)
    total = torch.zeros(count).index_add(0, found.point, found.weight)
    torch.testing.assert_close(total, torch.ones(count))


@needs_triton
@pytest.mark.parametrize("count", [0, 1, 2011])
@pytest.mark.parametrize(("grid", "kind"), [(GRID, torch.int16), ((20, 50, 40), torch.int32)])
def test_triton_matches_torch_where_nothing_is_blended(count, grid, kind):
    positions = BOX[0] + (torch.rand(3, count).t() * 1.2 - 0.1) * (BOX[1] - BOX[0])  # channel-major, as samples are
    expected = route_to_cells(positions, BOX, grid, 0.0, implementation="torch")
    found = route_to_cells(positions.to(DEVICE), BOX.to(DEVICE), grid, 0.0, implementation="triton")
    assert found.point is None and found.weight is None and found.cell.dtype == kind
    # On a face rounding decides.
    same = found.cell.cpu() == expected.cell
    assert same.float().mean() > 0.999 or not count
    torch.testing.assert_close(found.local.cpu()[same], expected.local[same], atol=2e-5, rtol=1e-5)


@needs_triton
def test_blending_asked_of_triton_is_numbas_or_torchs():
    positions = (BOX[0] + torch.rand(50, 3) * (BOX[1] - BOX[0])).to(DEVICE)
    box = BOX.to(DEVICE)
    expected, found = (route_to_cells(positions, box, GRID, 0.2, implementation=name) for name in ("auto", "triton"))
    assert all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))


def test_margins_as_wide_as_half_a_cell_ask_eight_cells_everywhere_inside():
    positions = torch.rand(100, 3) * 2 + 0.5  # never nearer than half a cell to the box's own faces
    box = torch.tensor([[0.0] * 3, [3.0] * 3])
    assert len(route_to_cells(positions, box, (3, 3, 3), 0.5).cell) == 800


def test_same_bits_for_one_and_two_threads(use_threads):
    positions = BOX[0] + torch.rand(30000, 3) * (BOX[1] - BOX[0])
    results = []
    for threads in (1, 2):
        use_threads(threads)
        results.append(route_to_cells(positions, BOX, GRID, 0.1, implementation="numba"))
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)
