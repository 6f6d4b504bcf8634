"""An order by hand, then the Triton twin against the torch reference, bit for bit."""

import pytest
import torch

from kernels.rays.interleaving import interleaved, interleaving
from tests.triton_device import TRITON, device_of

CPU = torch.device("cpu")


@pytest.mark.parametrize(("first", "second"), [(20, 20), (80, 20), (3, 7), (100, 1), (0, 5), (5, 0), (0, 0)])
def test_however_many_rays_are_left_out_they_are_of_both_kinds_alike(first, second):
    found = interleaving(first, second, CPU)
    assert sorted(found.tolist()) == list(range(first + second))
    of_second = found >= first
    # Each kind in its own order, and in any of the first or the last rays as many of each as is their share.
    assert (found[of_second].diff() > 0).all() and (found[~of_second].diff() > 0).all()
    expected = (torch.arange(first + second) + 1) * second / max(1, first + second)
    assert ((of_second.cumsum(0) - expected).abs() < 1).all()


@pytest.mark.parametrize("implementation", ["torch", TRITON])
def test_columns_by_hand(implementation):
    device = device_of(implementation)
    first = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0]), None, None]
    second = [torch.tensor([[7.0, 8.0]]), None, torch.tensor([9.0]), None]
    lists = ([None if column is None else column.to(device) for column in columns] for columns in (first, second))
    pair, one, other, none = interleaved(*lists, (2, 1), (0.0, -1.0, torch.inf, 0.0), implementation=implementation)
    assert pair.tolist() == [[1.0, 2.0], [3.0, 4.0], [7.0, 8.0]]
    assert one.tolist() == [5.0, 6.0, -1.0] and other.tolist() == [torch.inf, torch.inf, 9.0] and none is None


@pytest.mark.parametrize("implementation", [TRITON])
@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (5, 0), (1, 16), (200, 57), (57, 200)])
def test_the_twin_matches_torch(implementation, counts):
    """Of columns that are whole, of one row for all, as a background, and not contiguous."""
    shared = torch.rand(3)
    lists = [
        [torch.rand(count, 3), torch.rand(3, count).t(), shared.expand(count, 3), torch.rand(count), known]
        for count, known in zip(counts, (None, torch.rand(counts[1])), strict=True)
    ]
    unknown = (0.0, 0.0, 0.0, 0.0, torch.inf)
    expected = interleaved(*lists, counts, unknown, implementation="torch")
    device = device_of(implementation)
    there = [[None if column is None else column.to(device) for column in columns] for columns in lists]
    found = interleaved(*there, counts, unknown, implementation=implementation)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one.cpu(), two)


@pytest.mark.parametrize("implementation", [TRITON])
@pytest.mark.parametrize("width", [1, 5, 16])
def test_columns_are_as_wide_as_they_are(implementation, width):
    lists = [[torch.rand(count, width), torch.rand(count)] for count in (5, 3)]
    expected = interleaved(*lists, (5, 3), (0.0, 0.0), implementation="torch")
    device = device_of(implementation)
    there = [[column.to(device) for column in columns] for columns in lists]
    found = interleaved(*there, (5, 3), (0.0, 0.0), implementation=implementation)
    assert all(torch.equal(one.cpu(), two) for one, two in zip(found, expected, strict=True))
