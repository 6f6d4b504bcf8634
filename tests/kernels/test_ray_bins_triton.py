"""Bins that are taken together, in empty cells and in occupied ones, against a look at every single one."""

import pytest
import torch
from torch.nn.functional import normalize

from kernels.ray_marching import march
from kernels.ray_samples import Cells
from tests.triton_device import DEVICE, GPU, needs_triton

pytestmark = needs_triton
LOWER, SIZE, SHAPE = (-0.4, -0.3, -1.1), 0.1, (13, 7, 21)
SEEDS = pytest.mark.parametrize("seed", [None, 5])


@pytest.fixture(autouse=True)
def _large_programs(monkeypatch):
    """The interpreter takes no longer for many rays than for few."""
    if not GPU:
        monkeypatch.setattr("kernels.ray_marching_triton._RAYS_TO_FIND", 128)
        monkeypatch.setattr("kernels.ray_marching_triton._RAYS_TO_FILL", 128)


def cells_of(occupied):
    return Cells(LOWER, SIZE, occupied.to(torch.uint8))


def hard_rays(count):
    """From around and within the grid towards corners of cells; along an axis, on a face, nearly along one; far off."""
    lower, shape = torch.tensor(LOWER), torch.tensor(SHAPE)
    corner = (torch.rand(count, 3) * (shape + 1)).floor()
    targets = lower + SIZE * corner
    origins = torch.rand(count, 3) * 4 - 2
    kind, axis = torch.arange(count) % 8, torch.arange(count) % 3
    rows = torch.arange(count)
    # Within the grid, a little beside a face, and on one.
    origins[kind == 1] = (targets + SIZE * torch.rand(count, 3))[kind == 1]
    beside = torch.tensor([-1e-7, 0.0, 1e-7, 1e-3])[rows // 8 % 4, None]
    origins[(kind == 2) | (kind == 3)] = (targets + beside)[(kind == 2) | (kind == 3)]
    directions = torch.randn(count, 3)
    directions[kind != 2] = (targets - origins + 1e-4 * torch.randn(count, 3))[kind != 2]
    directions = normalize(directions, dim=1)
    # Components that are zero, or so small that all the grid is within rounding of a face.
    small = torch.tensor([0.0, 1e-30, -1e-8, 3e-7])[rows // 8 % 4]
    for at in (3, 4, 5):
        directions[rows[kind == at], axis[kind == at]] = small[kind == at]
    directions[rows[kind == 5], (axis[kind == 5] + 1) % 3] = 0.0
    directions = torch.where(directions.abs() > 1e-6, normalize(directions, dim=1), directions)
    for at in (4, 5):
        origins[kind == at] = (targets + beside - directions * 1.5)[kind == at]
    origins[kind == 6] = (targets - 150 * directions)[kind == 6]
    near = torch.where(kind == 6, 147.0, 0.2 * torch.rand(count))
    length = torch.where(kind == 7, -0.1, 5 * torch.rand(count) * (rows % 5 != 0) + 0.3 * (rows % 5 == 0))
    return origins, directions, near, near + length


def marched(rays, cells, implementation="triton", **named):
    device = DEVICE if implementation == "triton" else torch.device("cpu")
    cells = Cells(cells.lower, cells.size, cells.occupied.to(device))
    return march(*(part.to(device) for part in rays), cells, implementation=implementation, **named)


def assert_same(ours, theirs):
    for name in ("t", "positions", "ray_index", "offsets", "next_bin"):
        assert torch.equal(getattr(ours, name).cpu(), getattr(theirs, name).cpu()), name


def assert_those_of_all(rays, occupied, **options):
    """What is found are the samples in occupied cells among all, to the bit: there is no other rounding."""
    found, everywhere = (marched(rays, cells_of(each), **options) for each in (occupied, torch.ones(SHAPE)))
    x, y, z = ((everywhere.positions.cpu() - torch.tensor(LOWER)) * (1 / SIZE)).floor().long().unbind(1)
    kept = occupied[x, y, z] != 0
    assert 0 < kept.sum() < len(kept)
    for name in ("t", "positions", "ray_index"):
        assert torch.equal(getattr(found, name).cpu(), getattr(everywhere, name).cpu()[kept]), name


@SEEDS
@pytest.mark.parametrize("step", [0.0071, 0.1])
@pytest.mark.parametrize("fraction", [0.004, 0.15])
def test_samples_are_to_the_bit_those_in_occupied_cells_among_all(fraction, step, seed):
    assert_those_of_all(hard_rays(96), torch.rand(SHAPE) < fraction, step=step, limit=10_000, seed=seed)


@SEEDS
@pytest.mark.parametrize("far_off", [0.0, 400.0])
def test_rounding_takes_no_bin_from_rays_that_cross_a_face_slowly(far_off, seed):
    """Along the longest axis, crossing one face within hundreds of bins, by some units in the last place."""
    slowly = 10 ** (-3 * torch.rand(96) - 4) * torch.tensor([1.0, -1.0]).repeat(48)
    directions = torch.stack([slowly, torch.zeros(96), 1 - slowly**2 / 2], dim=1)
    face = torch.tensor(LOWER) + SIZE * torch.tensor([8, 3.5, 10])
    near = torch.full((96,), far_off)
    origins = face + torch.rand(96, 1) * torch.tensor([0, 0, 0.5]) - directions * (near[:, None] + 1.1)
    occupied = torch.zeros(SHAPE)
    occupied[8:] = 1
    assert_those_of_all((origins, directions, near, near + 3), occupied, step=0.0071, limit=10_000, seed=seed)


@pytest.mark.skipif(GPU, reason="a GPU adds to a product without rounding it before")
@SEEDS
@pytest.mark.parametrize(("step", "limit"), [(0.0071, 10_000), (0.02, 7), (0.1, 10_000), (0.7, 10_000)])
def test_samples_are_to_the_bit_those_of_torch(step, limit, seed):
    rays = hard_rays(96)
    for fraction in (0.004, 0.15, 1.0):
        cells = cells_of(torch.rand(SHAPE) < fraction)
        options = {"step": step, "limit": limit, "seed": seed}
        theirs = marched(rays, cells, "torch", **options)
        assert len(theirs.t) > 3 * (fraction > 0.1)
        assert_same(marched(rays, cells, **options), theirs)


@SEEDS
@pytest.mark.parametrize("capacity", [None, 3000])
def test_rays_whose_notes_do_not_fit_into_memory_are_marched_in_parts(capacity, seed, monkeypatch):
    from kernels import ray_marching_triton

    rays, cells = hard_rays(75), cells_of(torch.rand(SHAPE) < 0.15)
    options = {"step": 0.02, "limit": 1000, "seed": seed, "capacity": capacity}
    whole, find, launched = marched(rays, cells, **options), ray_marching_triton._find, []
    assert len(whole.t) > 100

    class Counted:
        def __getitem__(self, programs):
            launched.append(programs)
            return find[programs]

    monkeypatch.setattr(ray_marching_triton, "_MOST_RUNS", 200)
    monkeypatch.setattr(ray_marching_triton, "_find", Counted())
    assert_same(marched(rays, cells, **options), whole)
    assert len(launched) > 4


def test_the_grid_bounds_the_runs_of_a_ray():
    """Occupied all over, along its diagonal, in bins that begin within a run."""
    from kernels.ray_bins_triton import most_runs

    cells = Cells((0.0, 0.0, 0.0), 0.5, torch.ones(8, 8, 8, dtype=torch.uint8))
    length = 8 * 0.5 * 3**0.5
    for shift in torch.linspace(0, 0.5, 9).tolist():
        step = 0.01
        first = int((5.0 + shift) / step)
        last = int((5.0 + shift + length) / step)
        assert last // 32 - first // 32 + 1 <= most_runs(cells, step, 10**6)
    assert most_runs(cells, 0.01, 3) == 3
