"""Interpolation between a few cells by hand, and the numba twin against the reference."""

import pytest
import torch

from kernels.gaussians.sparse_volume import sparse_volume

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
LOWER, SIZE = (-1.0, 0.0, 2.0), 0.5


def volume(cells, rows, shape=(3, 4, 5)):
    index = torch.zeros([extent + 2 for extent in shape], dtype=torch.int32)
    for row, (x, y, z) in enumerate(cells):
        index[x + 1, y + 1, z + 1] = row + 1
    return index, torch.cat([torch.zeros(1, len(rows[0])), torch.tensor(rows)])


def random_volume(features, shape=(7, 6, 9)):
    cells = torch.rand(shape).lt(0.4).nonzero()
    rows = torch.rand(len(cells), 2 + features)
    rows[::5, 0] = 0
    return volume(cells.tolist(), rows.tolist(), shape)


@IMPLEMENTATIONS
def test_between_two_cells_by_hand(implementation):
    index, table = volume([(0, 0, 0), (1, 0, 0)], [[2.0, 0.5, 10.0, -1.0], [6.0, 1.0, 30.0, 1.0]])
    centre, along = torch.tensor([-0.75, 0.25, 2.25]), torch.tensor([0.5, 0, 0])
    positions = torch.stack([centre, centre + along, centre + 0.25 * along, centre + torch.tensor([0, 0.25, 0])])
    found = sparse_volume(positions, index, table, LOWER, SIZE, implementation=implementation)
    # A quarter of the way: density 0.75 * 2 + 0.25 * 6, features weighted by 1.5 and 1.5. Aside: an empty cell
    # halves density and confidence and leaves the features alone.
    assert found.density.tolist() == pytest.approx([2.0, 6.0, 3.0, 1.0])
    assert found.confidence.tolist() == pytest.approx([0.5, 1.0, 0.625, 0.25])
    assert found.features[:, 0].tolist() == pytest.approx([10.0, 30.0, 20.0, 10.0])
    assert found.features[:, 1].tolist() == pytest.approx([-1.0, 1.0, 0.0, -1.0])


@IMPLEMENTATIONS
def test_the_rim_and_beyond(implementation):
    index, table = volume([(2, 3, 4)], [[4.0, 1.0, 7.0]])
    corner = torch.tensor([0.5, 2.0, 4.5])
    positions = torch.stack([corner, corner + 0.2499, corner + 0.25, corner + 9, corner * float("nan")])
    found = sparse_volume(positions, index, table, LOWER, SIZE, implementation=implementation)
    assert found.density.tolist() == pytest.approx([4 / 8, 0, 0, 0, 0], abs=1e-6)
    assert found.features[:, 0].tolist() == pytest.approx([7.0, found.features[1, 0].item(), 0, 0, 0], abs=1e-6)
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("features", [0, 1, 4, 52])
@pytest.mark.parametrize("count", [0, 1, 2500])
def test_numba_equals_torch(features, count):
    index, table = random_volume(features)
    positions = torch.rand(count, 3) * torch.tensor([4.5, 4.0, 5.5]) + torch.tensor([-1.5, -0.5, 1.5])
    one, other = (
        sparse_volume(positions, index, table, LOWER, SIZE, implementation=name) for name in ("numba", "torch")
    )
    assert one.features.shape == (count, features) and one.density.shape == one.confidence.shape == (count,)
    for found, expected in zip(one, other, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_threads_do_not_change_a_bit_and_nothing_has_a_gradient(use_threads):
    index, table = random_volume(3)
    positions = torch.rand(5000, 3, requires_grad=True)
    found = []
    for threads in (1, 2):
        use_threads(threads)
        found.append(sparse_volume(positions, index, table, LOWER, SIZE, implementation="numba"))
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(*found, strict=True))


def test_an_empty_volume():
    index, table = torch.zeros(3, 3, 3, dtype=torch.int32), torch.zeros(1, 4)
    for name in ("numba", "torch"):
        found = sparse_volume(torch.rand(6, 3), index, table, (0.0, 0.0, 0.0), 1.0, implementation=name)
        assert all(part.abs().sum() == 0 for part in found)
    with pytest.raises(ValueError, match="sparse_volume: implementation 'fortran'"):
        sparse_volume(torch.rand(6, 3), index, table, (0.0, 0.0, 0.0), 1.0, implementation="fortran")
