"""Room for a fixed number of samples: who is served when it runs out, and what fills it when it does not."""

import pytest
import torch

from tests.kernels.marching.marching_cases import IMPLEMENTATIONS, along_x, random_cells, random_rays, row_of_cells, run


@IMPLEMENTATIONS
def test_rays_that_do_not_fit_into_the_capacity_have_no_samples_by_hand(implementation):
    # Four samples, none, four and none: three rays fit into seven places, the third does not.
    rays = tuple(torch.cat([along_x()[i], along_x(y=9.0)[i], along_x()[i], along_x(y=9.0)[i]]) for i in range(4))
    samples = run(implementation, rays, row_of_cells(1, 0, 1, 0), step=0.5, capacity=7)
    assert samples.offsets.tolist() == [0, 4, 4, 4, 4]
    assert samples.kept.tolist() == [True, True, False, True]
    assert samples.wanted.item() == 8
    assert samples.t.tolist() == pytest.approx([1.25, 1.75, 3.25, 3.75, 0, 0, 0])
    assert samples.dt.tolist() == [0.5] * 4 + [0.0] * 3
    assert samples.ray_index.tolist() == [0] * 7
    assert samples.positions[:4].tolist() == [[t - 1, 0.5, 0.5] for t in (1.25, 1.75, 3.25, 3.75)]
    assert samples.positions[4:].tolist() == [[0.0, 0.0, 0.0]] * 3


@IMPLEMENTATIONS
@pytest.mark.parametrize(("count", "limit"), [(0, 1000), (37, 1000), (61, 5)])
def test_ample_capacity_changes_no_sample(implementation, count, limit):
    rays, cells = random_rays(count), random_cells()
    exact = run(implementation, rays, cells, limit=limit, seed=3)
    padded = run(implementation, rays, cells, limit=limit, seed=3, capacity=len(exact.t) + 11)
    last = len(exact.t)
    for name in ("t", "dt", "ray_index"):
        assert torch.equal(getattr(padded, name)[:last], getattr(exact, name)), name
        assert not getattr(padded, name)[last:].any()
    assert torch.equal(padded.positions[:last], exact.positions)
    assert torch.equal(padded.offsets, exact.offsets)
    assert torch.equal(padded.next_bin, exact.next_bin)
    assert padded.kept.all() and padded.wanted == last


@IMPLEMENTATIONS
def test_the_first_rays_are_served_when_room_runs_out(implementation):
    rays, cells = random_rays(50), random_cells()
    exact = run(implementation, rays, cells)
    room = len(exact.t) // 2
    padded = run(implementation, rays, cells, capacity=room)
    fits = exact.offsets[1:] <= room
    served = exact.offsets[1:][fits].max()
    assert torch.equal(padded.kept, fits | (exact.offsets.diff() == 0))
    assert padded.offsets[-1] == served and len(padded.t) == room
    assert torch.equal(padded.t[:served], exact.t[:served])
    assert padded.wanted == len(exact.t)
