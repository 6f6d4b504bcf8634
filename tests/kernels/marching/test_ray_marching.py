"""Places by hand on a row of four cells, then the fast twins against the torch reference on random grids."""

import numpy as np
import pytest
import torch

from kernels.marching.ray_marching import seed_from_ray
from kernels.marching.ray_marching_numba import _leave, cell_direction
from kernels.marching.ray_samples import Cells
from tests.kernels.marching.marching_cases import IMPLEMENTATIONS, along_x, random_cells, random_rays, row_of_cells, run
from tests.triton_device import TRITON, device_of, needs_gpu, needs_triton

TWINS = pytest.mark.parametrize("twin", ["numba", TRITON])


def keys(samples, near, step):
    """One number per sample: its ray and bin."""
    bins = ((samples.t - near[samples.ray_index]) / step + 1e-4).floor().long()
    return samples.ray_index * 100_000 + bins


def assert_same_samples(ours, theirs, rays, cells, step):
    """The same (ray, bin) pairs, but for places so near to a cell's face or to ``far`` that rounding decides."""
    origins, _, near, far = rays
    mine, other = keys(ours, near, step), keys(theirs, near, step)
    for one, ones, twos in ((ours, mine, other), (theirs, other, mine)):
        odd = ~torch.isin(ones, twos)
        place = (one.positions[odd] - torch.tensor(cells.lower)) / cells.size
        gap = torch.minimum((place - place.round()).abs().amin(1), (one.t[odd] - far[one.ray_index[odd]]).abs())
        assert (gap < 1e-3).all()
        assert odd.sum() <= 0.001 * len(odd) + 1
    both = torch.isin(mine, other)
    torch.testing.assert_close(ours.t[both], theirs.t[torch.isin(other, mine)], atol=2e-5, rtol=0)


@IMPLEMENTATIONS
def test_centres_of_bins_by_hand(implementation):
    samples = run(implementation, along_x(), row_of_cells(1, 0, 1, 0), step=0.5)
    # Bin centres are at x = 0.25, 0.75, ...; cells 0 and 2 are occupied.
    assert samples.t.tolist() == pytest.approx([1.25, 1.75, 3.25, 3.75])
    assert samples.positions.tolist() == [[t - 1, 0.5, 0.5] for t in (1.25, 1.75, 3.25, 3.75)]
    assert samples.dt.tolist() == [0.5] * 4
    assert samples.ray_index.tolist() == [0] * 4
    assert samples.offsets.tolist() == [0, 4]
    assert samples.next_bin.tolist() == [-1]


@IMPLEMENTATIONS
def test_a_sample_at_the_very_end_is_none(implementation):
    samples = run(implementation, along_x(far=3.25), row_of_cells(1, 1, 1, 1), step=0.5)
    assert samples.t.tolist() == [1.25, 1.75, 2.25, 2.75]


@IMPLEMENTATIONS
def test_limit_and_where_to_go_on_by_hand(implementation):
    cells = row_of_cells(1, 0, 1, 0)
    samples = run(implementation, along_x(), cells, step=0.5, limit=3)
    assert samples.t.tolist() == pytest.approx([1.25, 1.75, 3.25])
    assert samples.next_bin.tolist() == [5]  # 3.25 is the centre of bin 4
    rest = run(implementation, along_x(), cells, step=0.5, limit=3, first_bin=samples.next_bin)
    assert rest.t.tolist() == pytest.approx([3.75])
    assert rest.next_bin.tolist() == [-1]
    assert len(run(implementation, along_x(), cells, step=0.5, limit=3, first_bin=rest.next_bin).t) == 0


@IMPLEMENTATIONS
def test_a_limit_beyond_all_memory_is_that_of_the_grids_bins(implementation):
    rays, cells = random_rays(40), random_cells(fraction=1.0)
    expected, found = (run(implementation, rays, cells, limit=limit) for limit in (1000, 1 << 40))
    assert len(expected.t) > 500 and torch.equal(found.t, expected.t)
    assert (found.next_bin == -1).all()


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("ray", "expected"),
    [
        (along_x(far=3.5), [1.25, 1.75, 3.25]),
        (along_x(near=2.0, far=2.0), []),
        (along_x(near=5.0, far=1.0), []),
        (along_x(y=1.5), []),  # beside the grid
        (along_x(near=0.0, far=100.0), [1.25, 1.75, 3.25, 3.75]),
    ],
)
def test_interval_by_hand(implementation, ray, expected):
    samples = run(implementation, ray, row_of_cells(1, 0, 1, 0), step=0.5)
    assert samples.t.tolist() == pytest.approx(expected)


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0), [0.05, 0.15, 0.25, 0.35]),  # from x = 0.1, in cell 0, to its end at 0.5
        ((-1, 0, 0), [0.05]),
        ((0, 1, 0), [0.05, 0.15, 0.25, 0.35]),
        ((0, 0, -1), [0.05]),
    ],
)
def test_camera_inside_a_cell_and_zero_components(implementation, direction, expected):
    cells = Cells((0.0, 0.0, 0.0), 0.5, torch.tensor([1, 0], dtype=torch.uint8).view(2, 1, 1))
    ray = torch.tensor([[0.1, 0.1, 0.1]]), torch.tensor([direction]).float(), torch.zeros(1), torch.ones(1) * 9
    assert run(implementation, ray, cells, step=0.1).t.tolist() == pytest.approx(expected, abs=1e-6)


@IMPLEMENTATIONS
def test_all_bins_of_a_ray_have_one_random_place_that_follows_the_seed(implementation):
    count = 500
    rays = [part.repeat(count, *[1] * (part.ndim - 1)) for part in along_x()]
    cells = row_of_cells(1, 1, 1, 1)

    def places(seed):
        samples = run(implementation, rays, cells, step=0.25, seed=seed)
        return ((samples.t - 1) / 0.25).view(count, 16) - torch.arange(16)

    found = places(7)
    assert ((found > -1e-5) & (found < 1 + 1e-5)).all()
    assert found.std(1).max() < 1e-5
    place = found[:, 0]
    assert place.mean() == pytest.approx(0.5, abs=0.04)
    assert place.var() == pytest.approx(1 / 12, rel=0.15)
    assert torch.equal(found, places(7))
    assert torch.corrcoef(torch.stack([place, places(8)[:, 0]]))[0, 1].abs() < 0.15
    assert torch.corrcoef(torch.stack([place[1:], place[:-1]]))[0, 1].abs() < 0.15


@IMPLEMENTATIONS
@pytest.mark.parametrize("limit", [1000, 3])
@pytest.mark.parametrize("spacing", [3, 15, 16, 17, 40])
def test_gaps_shorter_and_longer_than_a_look_by_hand(implementation, spacing, limit):
    # One cell in every ``spacing``, and a run of them; two bins a cell, of which some before ``far``.
    row = [int(cell % spacing == spacing - 1 or 70 <= cell < 90) for cell in range(160)]
    bins = [number for number in range(311) if row[number // 2]]
    samples = run(implementation, along_x(far=156.3), row_of_cells(*row), step=0.5, limit=limit)
    assert samples.t.tolist() == [1.25 + 0.5 * number for number in bins[:limit]]
    assert samples.next_bin.tolist() == ([-1] if len(bins) < limit else [bins[limit - 1] + 1])


@TWINS
@pytest.mark.parametrize("seed", [None, 0, 2**31 - 1])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 1.0])
def test_twins_equal_torch_on_random_grids(twin, fraction, seed):
    # In an almost empty grid most of the way is skipped by blocks of 4**3 cells.
    cells, rays = random_cells(fraction=fraction), random_rays(400 if twin == "numba" else 72)
    reference = run("torch", rays, cells, seed=seed)
    assert len(reference.t) > (100 if twin == "numba" else 10)
    assert_same_samples(run(twin, rays, cells, seed=seed), reference, rays, cells, 0.02)


@pytest.mark.parametrize(
    ("twin", "count"),
    [
        *(("numba", count) for count in (0, 1, 15, 16, 17, 63, 64, 65, 301)),
        # A program of Triton's takes 16 rays.
        *(pytest.param("triton", count, marks=needs_triton) for count in (0, 1, 15, 16, 17, 49)),
    ],
)
def test_twins_equal_torch_at_any_count(twin, count):
    cells, rays = random_cells(), random_rays(count)
    reference, ours = (run(name, rays, cells, step=0.05, limit=5, seed=3) for name in ("torch", twin))
    assert_same_samples(ours, reference, rays, cells, 0.05)
    for samples in (reference, ours):
        assert samples.offsets.tolist() == [0, *torch.bincount(samples.ray_index, minlength=count).cumsum(0).tolist()]
        assert samples.positions.shape == (len(samples.t), 3)
    # Rays whose counts agree also agree where to go on.
    same = reference.offsets.diff() == ours.offsets.diff()
    assert same.float().mean() > 0.99 if count else True
    assert (reference.next_bin == ours.next_bin)[same].float().mean() > 0.99 if count else True


@IMPLEMENTATIONS
@pytest.mark.parametrize("seed", [None, 5])
def test_samples_lie_on_their_rays_in_occupied_cells_in_order(implementation, seed):
    few = implementation == "triton"
    cells, rays = random_cells(), random_rays(40 if few else 150)
    samples = run(implementation, rays, cells, seed=seed)
    origins, directions, near, far = rays
    ray = samples.ray_index
    torch.testing.assert_close(
        samples.positions, origins[ray] + samples.t[:, None] * directions[ray], atol=1e-6, rtol=0
    )
    assert ((samples.t >= near[ray] - 1e-6) & (samples.t < far[ray] + 1e-6)).all()
    assert (samples.t.diff()[ray.diff() == 0] > 0).all()
    # A place on a face belongs to either side.
    place = (samples.positions - torch.tensor(cells.lower)) / cells.size
    shape = torch.tensor(cells.occupied.shape)
    found = torch.zeros(len(place), dtype=torch.bool)
    for nudge in (torch.tensor([-1e-4]), torch.tensor([0.0]), torch.tensor([1e-4])):
        cell = (place + nudge).floor().long()
        inside = ((cell >= 0) & (cell < shape)).all(1)
        x, y, z = cell.clamp(min=0).minimum(shape - 1).unbind(1)
        found |= inside & (cells.occupied[x, y, z] != 0)
    assert found.all()
    assert len(found) > (100 if few else 500)


@IMPLEMENTATIONS
@pytest.mark.parametrize("seed", [None, 11])
def test_short_marches_joined_equal_one_long_march(implementation, seed):
    cells, rays = random_cells(fraction=0.4), random_rays(18 if implementation == "triton" else 50)
    whole = run(implementation, rays, cells, seed=seed)
    first_bin, parts, rounds = None, [], 0
    while first_bin is None or (first_bin >= 0).any():
        part = run(implementation, rays, cells, limit=7, seed=seed, first_bin=first_bin)
        assert part.offsets.diff().max() <= 7
        parts.append((part.ray_index, part.t))
        first_bin, rounds = part.next_bin, rounds + 1
    ray, t = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    order = ray.argsort(stable=True)
    assert rounds > 3
    assert torch.equal(ray[order], whole.ray_index)
    assert torch.equal(t[order], whole.t)


@IMPLEMENTATIONS
def test_a_ray_sent_on_from_minus_one_is_skipped(implementation):
    rays = [part.repeat(3, *[1] * (part.ndim - 1)) for part in along_x()]
    first_bin = torch.tensor([0, -1, 7])
    samples = run(implementation, rays, row_of_cells(1, 1, 1, 1), step=0.5, first_bin=first_bin)
    assert samples.offsets.tolist() == [0, 8, 8, 9]
    assert samples.next_bin.tolist() == [-1, -1, -1]


@TWINS
def test_seeds_beyond_31_bits_and_far_bins(twin):
    # The ray enters the cells after 100 000 bins; every seed below 2**32 is its own, as the config allows.
    rays = [part.repeat(3, *[1] * (part.ndim - 1)) for part in along_x(near=-9_999.0)]
    first_bin = torch.tensor([99_990, 99_950, 100_001])
    seen = []
    for seed in (0, 2**31 - 1, 2**31, 2**32 - 1):
        reference, ours = (
            run(name, rays, row_of_cells(1, 1, 1, 1), step=0.1, seed=seed, first_bin=first_bin)
            for name in ("torch", twin)
        )
        assert len(ours.t) > 100
        torch.testing.assert_close(ours.t, reference.t, atol=2e-3, rtol=0)
        assert torch.equal(ours.offsets, reference.offsets)
        seen.append(ours.t)
    assert all(
        (one[: min(len(one), len(two))] != two[: len(one)]).any() for one, two in zip(seen, seen[1:], strict=False)
    )


@needs_gpu
@pytest.mark.parametrize("seed", [None, 5])
def test_triton_at_a_real_size(seed):
    cells, rays = random_cells((128, 128, 128), fraction=0.03, size=0.02), random_rays(8193)
    reference, ours = (run(name, rays, cells, step=0.005, limit=1024, seed=seed) for name in ("torch", "triton"))
    counts = reference.offsets.diff()
    same = counts == ours.offsets.diff()
    assert same.float().mean() > 0.98 and len(ours.t) > 10_000
    t, expected = ours.t[same[ours.ray_index]], reference.t[same[reference.ray_index]]
    assert ((t - expected).abs() < 1e-5).float().mean() > 0.999


@pytest.mark.parametrize("component", [0.0, -0.0, 1e-13, -1e-13])
def test_an_axis_that_a_ray_goes_along_holds_up_no_leap(component):
    _, inverse = cell_direction.py_func(np.float32(component), np.float32(1))
    assert _leave.py_func(np.float32(3.9), inverse, 0, 0) > 1e4


def test_same_bits_for_any_number_of_threads(use_threads):
    cells, rays = random_cells(), random_rays(1000)
    use_threads(1)
    single = run("numba", rays, cells, seed=2, limit=9)
    use_threads(2)
    double = run("numba", rays, cells, seed=2, limit=9)
    assert all(torch.equal(one, two) for one, two in zip(single[:6], double[:6], strict=True))


@IMPLEMENTATIONS
def test_a_seed_on_the_device_is_the_same_seed(implementation):
    rays, cells = random_rays(40), random_cells()
    seed = torch.tensor(2**31 - 5, device=device_of(implementation))
    expected, found = (run(implementation, rays, cells, seed=each) for each in (2**31 - 5, seed))
    assert torch.equal(found.t, expected.t)


@IMPLEMENTATIONS
def test_a_part_of_the_rays_has_the_places_that_it_has_among_all(implementation) -> None:
    cells, rays, first, seed = random_cells(), random_rays(60), 37, 2**31 - 5
    whole = run(implementation, rays, cells, seed=seed)
    part = run(implementation, [each[first:] for each in rays], cells, seed=seed_from_ray(seed, first))
    assert len(part.t) > 50
    assert torch.equal(part.t, whole.t[whole.offsets[first] :])
