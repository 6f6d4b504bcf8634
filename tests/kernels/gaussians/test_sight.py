"""Where rays are blocked and which cells they see, by hand and against the reference."""

from dataclasses import replace
from math import hypot, inf

import pytest
import torch

from kernels.gaussians.sight import sight
from kernels.marching.ray_samples import Cells
from tests.kernels.gaussians.gaussian_scenes import IMPLEMENTATIONS, VIEW, random_scene, random_view, scene


def cells(resolution=64, lower=-2.0, edge=4.0):
    return Cells((lower,) * 3, edge / resolution, torch.zeros((resolution,) * 3, dtype=torch.uint8))


def look(means, sigma=0.04, opacities=0.95, implementation="numba", view=VIEW, half_axes=None, **options):
    means, covariances, opacities, _ = scene(means, sigma, opacities)
    if half_axes is None:
        half_axes = torch.eye(3).expand(len(means), 3, 3) * sigma
    else:
        covariances = half_axes @ half_axes.transpose(1, 2)
    return sight(
        means, half_axes, covariances, opacities, view, implementation=implementation, **{"blocked": 0.1} | options
    )


@IMPLEMENTATIONS
def test_a_ray_ends_at_the_gaussian_that_blocks_it(implementation):
    # 0.5 leaves half of the light, 0.95 of that leaves 0.025; what is behind does not show.
    means = [[0, 0, -1.5], [0, 0, -1.7], [0, 0, -1.9]]
    reach = look(means, opacities=torch.tensor([0.5, 0.95, 0.9]), implementation=implementation)
    assert reach[4, 4].item() == pytest.approx(1.7, abs=1e-6)
    # The ray beside it comes nearest to the centre a little earlier, if it is blocked at all.
    assert 1.69 < reach[4, 5] < 1.7


@IMPLEMENTATIONS
def test_a_ray_that_is_not_blocked_sees_all_the_way(implementation):
    assert (look([[0, 0, -1.5]], opacities=0.5, implementation=implementation) == inf).all()
    assert (look([], implementation=implementation) == inf).all()


@IMPLEMENTATIONS
def test_the_cells_that_show_are_marked(implementation):
    seen = cells()
    means = [[0, 0, -1.2], [0, 0, -1.5], [0, 0, -1.8]]
    opacities = torch.tensor([0.04, 0.99, 0.99])
    view = replace(VIEW, width=1, height=1, cx=0.5, cy=0.5)
    look(means, opacities=opacities, implementation=implementation, seen=seen, least_weight=0.1, view=view)
    # The first weighs 0.04, the third lies behind what blocks.
    assert seen.occupied.nonzero().tolist() == [[32, 32, 8]]


@IMPLEMENTATIONS
def test_a_tilted_disc_is_met_on_its_plane(implementation):
    # A disc of radius 1 in the plane z = -2 + x, thin across it. Column 8 looks along (0.04, 0, -1): t from the axis
    # follows from -t = -2 + 0.04 t.
    half_axes = torch.tensor([[[1.0, 0, 1e-4], [0, 1.0, 0], [1.0, 0, -1e-4]]])
    reach = look([[0, 0, -2.0]], opacities=0.99, implementation=implementation, half_axes=half_axes)
    assert reach[4, 4].item() == pytest.approx(2, abs=1e-4)
    assert reach[4, 8].item() == pytest.approx(2 / 1.04 * hypot(1, 0.04), abs=1e-3)


@IMPLEMENTATIONS
def test_what_is_thinner_than_a_pixel_is_met_beside_it(implementation):
    # A disc seen from its edge, half a pixel above the ray: on its plane, the ray would meet it at the camera.
    half_axes = torch.tensor([[[0.1, 0, 0], [0, 0, 1e-6], [0, 0.1, 0]]])
    reach = look([[0, 0.01, -2.0]], opacities=0.99, implementation=implementation, half_axes=half_axes, blocked=0.5)
    assert reach[4, 4].item() == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize(("width", "height"), [(33, 17), (16, 16), (1, 40), (65, 5)])
def test_numba_against_torch(width, height):
    means, covariances, opacities, _ = random_scene(600, 0, seed=width)
    variances, axes = torch.linalg.eigh(covariances)
    half_axes = axes * variances.clamp(min=1e-10).sqrt()[:, None, :]
    grids, reaches = [], []
    for name in ("torch", "numba"):
        grids.append(cells(32))
        reaches.append(
            sight(
                means, half_axes, covariances, opacities, random_view(width, height), blocked=0.5,
                seen=grids[-1], least_weight=0.05, implementation=name,
            )
        )  # fmt: skip
    reference, fast = reaches
    assert reference.isfinite().any() and reference.isinf().any() and grids[0].occupied.sum() > 20
    assert torch.equal(reference.isinf(), fast.isinf())
    both = reference.isfinite()
    assert (fast[both] - reference[both]).abs().quantile(0.99) < 1e-4
    assert (grids[0].occupied != grids[1].occupied).sum() <= 2
