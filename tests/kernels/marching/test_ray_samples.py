"""Cells looked at in blocks: which have some, and how far the next of these is; rays that there is room for."""

import pytest
import torch

from kernels.marching.ray_samples import Cells, fit


@pytest.mark.parametrize("fraction", [0.0, 0.002, 0.02, 1.0])
def test_empty_blocks_are_as_far_from_occupied_ones_as_a_search_says(fraction):
    torch.manual_seed(1)
    cells = Cells((-0.4, -0.3, -1.1), 0.1, (torch.rand(37, 9, 52) < fraction).to(torch.uint8))
    places, occupied = (part.nonzero().float() for part in (cells.coarse < 2, cells.coarse))
    want = torch.full((len(places),), 255)
    if len(occupied):
        want = torch.cdist(places, occupied, p=torch.inf).amin(dim=1).round().long()
    assert cells.empty_blocks.dtype == "uint8" and cells.empty_blocks.ravel().tolist() == want.tolist()


def test_a_distance_of_more_blocks_than_a_byte_holds_is_255():
    row = torch.zeros(4 * 300, 1, 1, dtype=torch.uint8)
    row[0] = 1
    away = Cells((0.0, 0.0, 0.0), 1.0, row).empty_blocks
    assert away.ravel()[[0, 1, 254, 255, 299]].tolist() == [0, 1, 254, 255, 255]


def test_the_most_bins_of_a_ray_are_those_of_the_grids_diagonal_by_hand():
    cells = Cells((0.0, 0.0, 0.0), 0.5, torch.zeros(2, 3, 6, dtype=torch.uint8))  # 3.5 from corner to corner
    assert (cells.most_bins(0.1), cells.most_bins(1.0), cells.most_bins(100.0)) == (37, 6, 3)


def test_coarse_cells_of_a_grid_that_is_no_multiple_of_four():
    occupied = torch.zeros(5, 4, 9, dtype=torch.uint8)
    occupied[4, 0, 8] = occupied[0, 3, 3] = 1
    coarse = Cells((0.0, 0.0, 0.0), 1.0, occupied).coarse
    assert coarse.shape == (2, 1, 3)
    assert coarse.nonzero().tolist() == [[0, 0, 0], [1, 0, 2]]


def test_rays_fit_up_to_the_last_sample_that_there_is_room_for():
    offsets, kept, wanted = fit(torch.tensor([2, 3, 0, 1, 0]), 5)
    assert offsets.tolist() == [0, 2, 5, 5, 5, 5]
    assert kept.tolist() == [True, True, True, False, True] and wanted == 6
