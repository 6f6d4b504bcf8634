"""Finding statistics by position: nearest, trilinear, beside the grid, in an empty one."""

import pytest
import torch

from kernels.cell_statistics import CellStatistics


def of_cells(cells, shape=(3, 4, 5), lower=(-1.0, 0.0, 2.0), size=0.5):
    """Statistics of the given cells (M, 3), ascending; density is 1, 2, ..."""
    x, y, z = torch.tensor(cells, dtype=torch.int64).reshape(-1, 3).unbind(1)
    count = len(cells)
    ones = torch.ones(count)
    density = torch.arange(1.0, count + 1)
    flat = (x * shape[1] + y) * shape[2] + z
    return CellStatistics(lower, size, shape, flat, density, ones, 2 * ones, ones.int() * 4, torch.zeros(count, 2))


def test_cells_coordinates_and_mask_by_hand():
    result = of_cells([(0, 0, 3), (1, 2, 0), (2, 3, 4)])
    assert result.indices.tolist() == [3, 30, 59]
    assert result.coordinates().tolist() == [[0, 0, 3], [1, 2, 0], [2, 3, 4]]
    assert result.mask().nonzero().tolist() == [[0, 0, 3], [1, 2, 0], [2, 3, 4]]
    assert result.mask(torch.tensor([True, False, True])).nonzero().tolist() == [[0, 0, 3], [2, 3, 4]]
    assert result.amplitude_mean.tolist() == [0.5, 0.5, 0.5]
    assert result.nbytes == 3 * (8 + 4 * 4 + 2 * 4)


def test_rows_of_positions_in_empty_cells_and_outside():
    result = of_cells([(0, 0, 0), (1, 2, 0)])
    positions = [(-0.99, 0.01, 2.01), (-0.51, 0.49, 2.49), (-0.25, 1.25, 2.25), (-0.49, 0.01, 2.01), (-1.01, 0.1, 2.1)]
    # The last lies beside the grid, where its flat index alone would name another cell.
    assert result.rows(torch.tensor([*positions, (-0.75, 0.25, 4.51)])).tolist() == [0, 0, 1, -1, -1, -1]


def test_interpolation_by_hand():
    result = of_cells([(0, 0, 0), (1, 0, 0)])
    centre = torch.tensor([-0.75, 0.25, 2.25])
    along = torch.tensor([0.5, 0, 0])
    positions = torch.stack([centre, centre + along, centre + 0.25 * along, centre + torch.tensor([0.0, 0.25, 0])])
    assert result.interpolate(result.density, positions).tolist() == pytest.approx([1, 2, 1.25, 0.5])
    values = torch.tensor([[4.0, 0], [0, 8]])
    assert result.interpolate(values, positions)[2].tolist() == pytest.approx([3, 2])


def test_a_linear_field_is_interpolated_exactly():
    shape = (6, 5, 4)
    everything = of_cells(torch.cartesian_prod(*map(torch.arange, shape)).tolist(), shape)
    slope = torch.tensor([0.3, -0.7, 1.1])
    centres = (everything.coordinates() + 0.5) * 0.5 + torch.tensor(everything.lower)
    positions = torch.tensor(everything.lower) + 0.25 + torch.rand(200, 3) * (torch.tensor(shape) - 1) * 0.5
    found = everything.interpolate(centres @ slope, positions)
    assert torch.allclose(found, positions @ slope, atol=1e-4)
    rows, weights = everything.corners(positions)
    assert rows.shape == weights.shape == (200, 8)
    assert torch.allclose(weights.sum(1), torch.ones(200, dtype=weights.dtype))


def test_an_empty_grid_answers_zero():
    result = of_cells([])
    assert result.rows(torch.zeros(2, 3)).tolist() == [-1, -1]
    assert result.interpolate(result.channels, torch.zeros(2, 3)).tolist() == [[0, 0], [0, 0]]
    assert not result.mask().any()
