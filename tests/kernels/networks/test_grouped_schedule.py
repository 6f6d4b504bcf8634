"""Points sorted by cell and cut into pieces, by hand and for random cells."""

import pytest
import torch

from tests.triton_device import DEVICE, needs_triton


def schedule(*arguments):
    from kernels.networks.grouped_schedule_triton import schedule

    return schedule(*arguments)


@needs_triton
def test_a_schedule_by_hand():
    plan = schedule(torch.tensor([2, 0, 2, 2, 3, 2, 2], device=DEVICE), 4, 2)
    assert plan.order.tolist() == [1, 0, 2, 3, 5, 6, 4]
    # Cell, first, last + 1, gradient row: cell 2 has its own row and two spare ones. The last two have no points.
    assert plan.pieces[:5].tolist() == [[0, 0, 1, 0], [2, 1, 3, 2], [2, 3, 5, 4], [2, 5, 6, 5], [3, 6, 7, 3]]
    assert len(plan.pieces) == 7 and (plan.pieces[5:, 1] == plan.pieces[5:, 2]).all()
    assert plan.spare.tolist() == [[4, 0], [4, 0], [4, 2], [6, 0]]
    assert plan.spares == 3


@needs_triton
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.int16])
@pytest.mark.parametrize(("count", "cells", "most"), [(0, 5, 4), (1, 1, 4), (300, 7, 4), (300, 2500, 2), (64, 3, 512)])
def test_every_point_is_in_one_piece_of_its_cell(monkeypatch, kind, count, cells, most):
    monkeypatch.setattr("kernels.networks.grouped_schedule_triton._CELLS", 1024)
    cell_index = torch.randint(-1, cells + 1, (count,)).to(kind)  # some are of no cell
    plan = schedule(cell_index.to(DEVICE), cells, most)
    seen, rows = [], []
    for cell, first, last, row in plan.pieces.tolist():
        points = plan.order[first:last].tolist()
        assert len(points) <= most and all(cell_index[point] == cell for point in points)
        seen += points
        if points:
            rows.append((row, cell))
    assert sorted(seen) == [point for point in range(count) if 0 <= cell_index[point] < cells]
    # No two pieces add to one row: the first of a cell to its own, the others to the spare rows that are the cell's.
    assert len({row for row, _ in rows}) == len(rows) and all(row < cells + plan.spares for row, _ in rows)
    spare = plan.spare.tolist()
    assert all(row == cell or 0 <= row - spare[cell][0] < spare[cell][1] for row, cell in rows)
    assert sum(further for _, further in spare) == len(rows) - len({cell for _, cell in rows})
