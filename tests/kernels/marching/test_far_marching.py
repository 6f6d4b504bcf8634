"""Bins by hand along one axis, then the fast twin against the torch reference."""

import pytest
import torch
from torch.nn.functional import normalize

from kernels.marching.far_marching import bin_edges, march_far
from kernels.marching.ray_samples import Cells

FULL = Cells((-2.0, -2.0, -2.0), 0.25, torch.ones(16, 16, 16, dtype=torch.uint8))
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])


def along_x(lengths, cells=FULL, implementation="torch"):
    """A ray from x = -8 through a box of half side 2 about the origin, in bins that double."""
    starts, lengths = torch.tensor([[6.0], [10.0]]), torch.tensor(lengths)[:, None]
    where = torch.tensor([[-8.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), starts, lengths
    frame = {"middle": (0.0, 0.0, 0.0), "half": 2.0, "edges": tuple(bin_edges(2.0, 1.0, 14.0))}
    return march_far(*where, cells, **frame, implementation=implementation)


def test_bins_grow_with_the_distance_from_the_middle():
    assert bin_edges(2.0, 1.0, 14.0) == [0, 2, 6, 14]
    assert bin_edges(2.0, 1.0, 15.0)[-1] == 30  # as far as the reach at least


@IMPLEMENTATIONS
def test_both_parts_of_a_ray_are_front_to_back_and_contracted(implementation):
    samples = along_x([6.0, 14.0], implementation=implementation)
    assert samples.offsets.tolist() == [0, 2, 5]
    # Before: bins of 2 and 4 away from x = -2; behind: of 2, 4 and 8 away from x = 2.
    assert samples.t.tolist() == [2, 5, 11, 14, 20]
    x = [-6.0, -3.0, 3.0, 6.0, 12.0]
    contracted = [2 - 1 / 3, 2 - 1 / 1.5, 2 - 1 / 1.5, 2 - 1 / 3, 2 - 1 / 6]
    assert samples.positions[:, 0].abs().tolist() == pytest.approx(contracted)
    assert samples.positions[:, 0].sign().tolist() == [-1, -1, 1, 1, 1]
    assert samples.dt.tolist() == pytest.approx([size / abs(at) for size, at in zip((4, 2, 2, 4, 8), x, strict=True)])
    assert samples.ray_index.tolist() == [0] * 5


@IMPLEMENTATIONS
def test_empty_cells_and_what_is_past_the_end_are_left_out(implementation):
    cells = Cells(FULL.lower, FULL.size, FULL.occupied.clone())
    cells.occupied[:8] = 0  # x < 0
    samples = along_x([6.0, 4.0], cells, implementation)
    assert samples.offsets.tolist() == [0, 0, 1]
    assert samples.t.tolist() == [11]


@pytest.mark.parametrize("seed", [None, 7])
def test_the_fast_twin_places_the_same_samples(seed):
    rays = 300  # more than one thread's share
    cells = Cells(FULL.lower, FULL.size, (torch.rand(16, 16, 16) < 0.5).to(torch.uint8))
    origins, directions = 3 * torch.randn(rays, 3), normalize(torch.randn(rays, 3), dim=1)
    where = origins, directions, 5 * torch.rand(2, rays), 70 * (torch.rand(2, rays) - 0.1)
    frame = {"middle": (0.1, 0.2, 0.3), "half": 1.5, "edges": tuple(bin_edges(1.5, 0.05, 60.0)), "seed": seed}
    reference, twin = (march_far(*where, cells, **frame, implementation=name) for name in ("torch", "numba"))
    assert len(reference.t) > 5000
    for expected, found in zip(reference, twin, strict=True):
        assert torch.equal(expected, found)
    if seed is not None:
        assert reference.t.frac().std() > 0.1 and not torch.equal(
            reference.t, march_far(*where, cells, **{**frame, "seed": 8}, implementation="torch").t
        )
