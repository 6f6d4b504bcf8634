"""Bins of a picture's rays (in Triton's interpreter if need be) against the marching of one ray after another."""

import pytest
import torch
from torch.nn.functional import normalize

from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Cells
from tests.triton_device import DEVICE, needs_triton

pytestmark = needs_triton
LOWER, WIDTH, HEIGHT = (-1.0, -0.8, -0.5), 11, 10


def make_rays():
    """Of a picture 11 pixels wide and 10 high, four squares; some miss the grid, some end inside it."""
    torch.manual_seed(3)
    origins = 2.5 * normalize(torch.randn(WIDTH * HEIGHT, 3), dim=1)
    directions = normalize(1.6 * (torch.rand(WIDTH * HEIGHT, 3) - 0.5) - origins, dim=1)
    near = 1.2 + 0.6 * torch.rand(WIDTH * HEIGHT)
    return origins, directions, near, near + 2.6 * torch.rand(WIDTH * HEIGHT)


def found_bins(rays, cells, step, limit):
    """Numbers of the bins of every ray, in order, from all parts; and how many parts there were."""
    from kernels.rendering import picture_bins_triton as bins

    rays = tuple(part.to(DEVICE) for part in rays)
    cells = Cells(cells.lower, cells.size, cells.occupied.to(DEVICE))
    count = WIDTH * HEIGHT
    outputs = tuple(torch.full(shape, 7.0, device=DEVICE) for shape in ((count, 2), (count,), (count,)))
    numbers, parts = [[] for _ in range(count)], 0
    for runs, order, lives, next_square, first, squares, places in bins.find_bins(
        rays, WIDTH, cells, (step, limit), outputs
    ):
        assert int(next_square) == 0 and runs.shape[1] == places
        parts += 1
        for square in range(squares):
            for place in order[square * 64 : square * 64 + int(lives[square])].tolist():
                assert place // 64 == square
                row = (first + square) // 2 * 8 + place % 64 // 8
                ray = row * WIDTH + (first + square) % 2 * 8 + place % 8
                assert not numbers[ray], "a ray is listed once"
                for packed in runs[:, place].tolist():
                    run, bits = packed >> 32, packed & 0xFFFFFFFF
                    if not bits:
                        break
                    numbers[ray] += [run * 32 + bit for bit in range(32) if bits >> bit & 1]
    dark = torch.tensor([not of_ray for of_ray in numbers])
    for output in outputs:
        assert (output.cpu()[dark] == 0).all() and (output.cpu()[~dark] == 7).all(), "only what is dark is written"
    return numbers, parts


def expected_bins(rays, cells, step, limit):
    samples = march(*rays, cells, step=step, limit=limit, implementation="torch")
    number = ((samples.t - rays[2][samples.ray_index]) / step - 0.5).round().long()
    return [part.tolist() for part in number.split(samples.offsets.diff().tolist())]


@pytest.mark.parametrize("step", [0.2, 0.025], ids=["bins_as_large_as_cells", "many_runs"])
def test_a_ray_has_the_bins_that_marching_finds(step):
    cells, rays = Cells(LOWER, 0.2, (torch.rand(10, 9, 6) < 0.2).byte()), make_rays()
    expected = expected_bins(rays, cells, step, 1000)
    assert any(expected) and not all(expected)
    found, parts = found_bins(rays, cells, step, 1000)
    assert found == expected and parts == 1


def test_a_ray_has_no_more_bins_than_are_allowed():
    cells, rays = Cells(LOWER, 0.2, torch.ones(10, 9, 6, dtype=torch.uint8)), make_rays()
    expected = expected_bins(rays, cells, 0.04, 20)
    assert max(map(len, expected)) == 20
    assert found_bins(rays, cells, 0.04, 20)[0] == expected


def test_a_picture_too_large_for_the_memory_is_taken_in_parts(monkeypatch):
    from kernels.rendering import picture_bins_triton as bins

    cells, rays = Cells(LOWER, 0.2, (torch.rand(10, 9, 6) < 0.2).byte()), make_rays()
    monkeypatch.setattr(bins, "_MOST_RUNS", 2 * 64 * 4)
    found, parts = found_bins(rays, cells, 0.05, 1000)
    assert parts == 2
    assert found == expected_bins(rays, cells, 0.05, 1000)


def test_the_grid_bounds_the_runs_of_a_ray():
    """Occupied all over, along its diagonal, in bins that begin within a run."""
    from kernels.rendering import picture_bins_triton as bins

    cells = Cells((0.0, 0.0, 0.0), 0.5, torch.ones(8, 8, 8, dtype=torch.uint8))
    length = 8 * 0.5 * 3**0.5
    for shift in torch.linspace(0, 0.5, 9).tolist():
        step = 0.01
        first = int((5.0 + shift) / step)
        last = int((5.0 + shift + length) / step)
        assert last // 32 - first // 32 + 1 <= bins._most_runs(cells, step, 10**6)
    assert bins._most_runs(cells, 0.01, 3) == 3
