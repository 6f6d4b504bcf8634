"""What rays lose to Gaussians in cells, by hand and against the rasteriser."""

import math

import pytest
import torch

from kernels.gaussian_statistics import visible_radii
from kernels.gaussian_visibility import trace_gaussians

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
SHAPE = (8, 6, 7)


def trace(means, stds, opacities, origins, directions, kept=None, implementation="numba", shape=SHAPE):
    """Round Gaussians in a grid of cells of edge 1 from (0, 0, 0)."""
    means, opacities = torch.tensor(means).reshape(-1, 3), torch.tensor(opacities)
    covariances = torch.tensor(stds).square()[:, None, None] * torch.eye(3)
    if kept is None:
        kept = torch.ones(shape, dtype=torch.uint8)
    return trace_gaussians(
        means, covariances, opacities, visible_radii(opacities), torch.tensor(origins),
        torch.nn.functional.normalize(torch.tensor(directions), dim=1), (0.0, 0.0, 0.0), 1.0, kept,
        implementation=implementation,
    )  # fmt: skip


@IMPLEMENTATIONS
def test_a_ray_through_one_gaussian_by_hand(implementation):
    kept = torch.ones(SHAPE, dtype=torch.uint8)
    kept[3] = 0
    # The peak is on the face between the cells 3 and 4; the ray misses it by half a standard deviation.
    result = trace([(4.0, 2.5, 3.5)], [0.2], [0.8], [(-1.0, 2.6, 3.5)], [(1.0, 0, 0)], kept, implementation)
    alpha = 0.8 * math.exp(-0.125)
    assert result.alpha.item() == pytest.approx(alpha, rel=1e-4)
    assert result.kept_alpha.item() == pytest.approx(1 - math.sqrt(1 - alpha), rel=1e-4)
    assert result.cells.nonzero().tolist() == [[3, 2, 3], [4, 2, 3]]
    assert result.gaussians.tolist() == [1]


@IMPLEMENTATIONS
def test_what_is_behind_opaque_ones_is_not_seen(implementation):
    wall = [(float(x) + 0.5, 2.5, 3.5) for x in (1, 2, 3)]
    means, opacities = [*wall, (6.5, 2.5, 3.5)], [0.99, 0.99, 0.99, 0.5]
    result = trace(means, [0.1] * 4, opacities, [(-1.0, 2.5, 3.5)], [(1.0, 0, 0)], None, implementation)
    # 0.01 of the light is left for the second, 0.0001 for the third.
    assert result.gaussians.tolist() == [1, 1, 0, 0]
    assert result.cells.nonzero().tolist() == [[1, 2, 3], [2, 2, 3]]
    other = trace(means, [0.1] * 4, opacities, [(9.0, 2.5, 3.5)], [(-1.0, 0, 0)], None, implementation)
    assert other.gaussians.tolist() == [0, 1, 1, 1]


@IMPLEMENTATIONS
def test_rays_that_miss_start_inside_or_run_along_an_axis(implementation):
    origins = [(-1.0, 9.0, 3.5), (4.5, 2.5, 3.5), (2.0, 2.5, 3.5), (2.0, 2.5, 3.5)]
    directions = [(1.0, 0, 0), (1.0, 0, 0), (1.0, 0, 0), (-1.0, 0, 0)]
    result = trace([(4.5, 2.5, 3.5)], [0.1], [0.6], origins, directions, None, implementation)
    # One that starts at the centre sees half of the thickness.
    assert result.alpha.tolist() == pytest.approx([0, 1 - math.sqrt(0.4), 0.6, 0], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 40])
def test_numba_equals_torch(count):
    means = (torch.rand(count, 3) * torch.tensor(SHAPE)).tolist()
    stds, opacities = (0.1 + 0.6 * torch.rand(count)).tolist(), torch.rand(count).tolist()
    origins = (torch.randn(60, 3) * 6 + 3).tolist()
    directions = (torch.rand(60, 3) * torch.tensor(SHAPE) - torch.tensor(origins)).tolist()
    kept = (torch.rand(SHAPE) < 0.5).to(torch.uint8)
    one, other = (trace(means, stds, opacities, origins, directions, kept, name) for name in ("numba", "torch"))
    assert torch.equal(one.cells, other.cells)
    assert torch.equal(one.gaussians, other.gaussians)
    assert torch.allclose(one.alpha, other.alpha, atol=2e-4)  # an ended ray has 1e-4 left
    assert torch.allclose(one.kept_alpha, other.kept_alpha, atol=2e-3)
    assert (one.alpha > 0.5).any() == (count == 40)


def test_same_cells_for_any_number_of_threads(use_threads):
    means = (torch.rand(50, 3) * torch.tensor(SHAPE)).tolist()
    origins = (torch.randn(2000, 3) * 6 + 3).tolist()
    arguments = means, [0.3] * 50, [0.7] * 50, origins, (3 - torch.tensor(origins)).tolist()
    use_threads(1)
    single = trace(*arguments)
    use_threads(2)
    double = trace(*arguments)
    assert all(torch.equal(one, other) for one, other in zip(single, double, strict=True))
    assert single.cells.any()
