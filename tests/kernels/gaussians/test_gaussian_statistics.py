"""No visible point of a Gaussian lies in an absent cell, none is there without reason, and nothing of it is lost."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.gaussians import gaussian_statistics as module
from kernels.gaussians import gaussian_statistics_numba as numba_module
from kernels.gaussians.gaussian_statistics import (
    VISIBLE_ALPHA,
    CellStatistics,
    ellipsoid_surface,
    extinction_of,
    gaussian_statistics,
    polylogarithm,
    touched_cells,
    visible_radii,
)
from kernels.gaussians.rasterize_forward_numba import ALPHA_MAX

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
LOWER, SIZE, SHAPE = (-1.0, -0.5, -0.7), 0.1, (20, 11, 14)


def random_gaussians(count, thickness=1.0):
    """Means, principal axes times scales (N, 3, 3), radii; ``thickness`` multiplies the third scale."""
    means = torch.rand(count, 3) * torch.tensor([2.4, 1.5, 1.8]) - torch.tensor([1.2, 0.7, 0.9])
    axes = torch.linalg.qr(torch.randn(count, 3, 3)).Q
    scales = 0.02 + 0.12 * torch.rand(count, 3)
    scales[:, 2] *= thickness
    return means, axes * scales[:, None], 0.5 + 2.8 * torch.rand(count)


def statistics(means, half, opacities, implementation="numba", lower=LOWER, size=SIZE, shape=SHAPE, channels=None):
    return gaussian_statistics(
        means, half, opacities, lower, size, shape, channels=channels, implementation=implementation
    )


def marked(means, half, radii, implementation="numba", lower=LOWER, size=SIZE, shape=SHAPE):
    """(X, Y, Z) cells of Gaussians whose alpha falls to 1/255 at ``radii`` standard deviations."""
    opacities = torch.where(radii > 0, VISIBLE_ALPHA * torch.exp(0.5 * radii.double() ** 2), 0)
    return statistics(means, half, opacities, implementation, lower, size, shape).mask()


def sphere(mean, radius):
    """One Gaussian of standard deviation 1."""
    return torch.tensor([mean]), torch.eye(3)[None], torch.tensor([radius])


@IMPLEMENTATIONS
@pytest.mark.parametrize(
    ("mean", "radius", "expected"),
    [
        ((2.5, 2.5, 2.5), 0.4, [(2, 2, 2)]),
        # Reaches 0.1 beyond the faces, but not the edges.
        ((2.5, 2.5, 2.5), 0.6, [(1, 2, 2), (2, 1, 2), (2, 2, 1), (2, 2, 2), (2, 2, 3), (2, 3, 2), (3, 2, 2)]),
        # 0.2 from two faces, sqrt(0.08) = 0.283 from their edge.
        ((2.8, 2.8, 2.5), 0.25, [(2, 2, 2), (2, 3, 2), (3, 2, 2)]),
        ((2.8, 2.8, 2.5), 0.29, [(2, 2, 2), (2, 3, 2), (3, 2, 2), (3, 3, 2)]),
        # 0.2 from three faces, sqrt(0.12) = 0.346 from the corner.
        ((2.8, 2.8, 2.8), 0.34, [(2, 2, 2), (2, 2, 3), (2, 3, 2), (2, 3, 3), (3, 2, 2), (3, 2, 3), (3, 3, 2)]),
        ((2.5, 2.5, 2.5), 0.0, []),
        ((-0.3, 0.5, 0.5), 0.2, []),  # outside of the grid, short of it
        ((-0.3, 0.5, 0.5), 0.4, [(0, 0, 0)]),  # outside, reaching in
        ((5.4, 4.5, 4.5), 0.45, [(4, 4, 4)]),
        ((90.0, 0.5, 0.5), 3.0, []),
    ],
)
def test_spheres_by_hand(implementation, mean, radius, expected):
    cells = marked(*sphere(mean, radius), implementation, (0.0, 0.0, 0.0), 1.0, (5, 5, 5))
    assert [tuple(cell) for cell in cells.nonzero().tolist()] == expected


@IMPLEMENTATIONS
def test_a_flat_gaussian_marks_every_cell_it_cuts_and_no_other(implementation):
    # A disc of radius 3 in the plane x + y = 9.2, which its own thickness of 0 does not widen.
    normal = torch.tensor([1.0, 1, 0]) / 2**0.5
    half = torch.stack([torch.tensor([1.0, -1, 0]) / 2**0.5, torch.tensor([0.0, 0, 1]), torch.zeros(3)], dim=1)[None]
    mean = torch.tensor([[4.6, 4.6, 4.5]])
    cells = marked(mean, half, torch.tensor([3.0]), implementation, (0.0, 0.0, 0.0), 1.0, (10, 10, 10))
    x, y, _ = cells.nonzero().unbind(1)
    assert ((x + y == 8) | (x + y == 9)).all()  # the plane crosses x + y < 9.2 < x + y + 2
    offsets = torch.randn(20_000, 3)
    offsets = offsets - (offsets @ normal)[:, None] * normal
    points = mean + 2.999 * torch.rand(20_000, 1).sqrt() * torch.nn.functional.normalize(offsets, dim=1)
    cut = torch.zeros_like(cells)
    cut[tuple(points.long().unbind(1))] = 1
    assert not (cut & ~cells.bool()).any()
    assert cells.sum() <= cut.sum() + 4  # samples miss a few slivers


@IMPLEMENTATIONS
@pytest.mark.parametrize("thickness", [1.0, 0.05, 0.0])
def test_no_visible_point_in_an_unmarked_cell(implementation, thickness):
    means, half, radii = random_gaussians(60, thickness)
    for one in range(len(means)):  # singly: neighbours would hide a gap
        part = slice(one, one + 1)
        cells = marked(means[part], half[part], radii[part], implementation)
        unit = torch.nn.functional.normalize(torch.randn(400, 3), dim=1) * torch.rand(400, 1) ** 0.2
        points = means[part] + 0.9999 * radii[one] * unit @ half[one].T
        cell = ((points - torch.tensor(LOWER)) / SIZE).floor().long()
        cell = cell[((cell >= 0) & (cell < torch.tensor(SHAPE))).all(1)]
        assert (cells[tuple(cell.unbind(1))] == 1).all()


@IMPLEMENTATIONS
def test_a_far_larger_gaussian_marks_the_whole_grid(implementation):
    mean, half, radius = sphere((50.0, 0.0, 0.0), 3.0)
    assert marked(mean, 40 * half, radius, implementation).all()


def test_polylogarithms_by_their_closed_forms():
    z = torch.tensor([0.0, 0.01, 0.5, 0.9, 0.99], dtype=torch.float64)
    assert torch.allclose(polylogarithm(1, z), -torch.log1p(-z), rtol=1e-10)
    many = 0.99 * torch.rand(3, 100, dtype=torch.float64)
    assert torch.allclose(polylogarithm(1, many), -torch.log1p(-many), rtol=1e-12)
    half = torch.tensor(0.5, dtype=torch.float64)
    assert polylogarithm(2, half).item() == pytest.approx(math.pi**2 / 12 - math.log(2) ** 2 / 2, rel=1e-12)


def test_surface_of_a_sphere_a_disc_and_a_rod():
    scales = torch.tensor([[2.0, 2, 2], [3, 3, 1e-6], [1e-6, 1e-6, 5]])
    expected = torch.tensor([16 * math.pi, 18 * math.pi, math.pi**2 * 1e-6 * 5], dtype=torch.float64)
    assert torch.allclose(ellipsoid_surface(scales), expected, rtol=0.012)


@pytest.mark.parametrize("opacity", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("miss", [0.0, 0.7, 2.0])
def test_the_field_has_the_thickness_that_is_drawn_on_every_ray(opacity, miss):
    t = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    field = polylogarithm(0.5, opacity * torch.exp(-0.5 * (t**2 + miss**2))) / math.sqrt(2 * math.pi)
    drawn = -math.log1p(-opacity * math.exp(-0.5 * miss**2))
    assert torch.trapezoid(field, t).item() == pytest.approx(drawn, rel=1e-6)


def test_extinction_is_the_mean_thickness_of_random_rays_times_their_area():
    # Pictures of one Gaussian from random directions, 1/255 cut off: their mean integral over the picture's plane.
    scales, opacity = torch.tensor([0.3, 0.2, 0.05], dtype=torch.float64), 0.8
    axis = torch.linspace(-1.2, 1.2, 161, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    totals = []
    for direction in torch.nn.functional.normalize(torch.randn(500, 3, dtype=torch.float64), dim=1):
        across = torch.linalg.qr(torch.stack([direction, *torch.eye(3)[:2].double()], dim=1)).Q[:, 1:]
        covariance = across.T @ torch.diag(scales**2) @ across
        alpha = opacity * torch.exp(-0.5 * torch.einsum("ni,ij,nj->n", plane, torch.linalg.inv(covariance), plane))
        totals.append((torch.where(alpha >= VISIBLE_ALPHA, -torch.log1p(-alpha), 0).sum() * 0.015**2).item())
    expected = extinction_of(torch.tensor([opacity]), scales[None]).item()
    # Cut off where alpha is 1/255, a picture still holds the rim's thickness that the closed form subtracts.
    area = 0.5 * ellipsoid_surface(scales[None]).item()
    rim = area * VISIBLE_ALPHA * 0.5 * visible_radii(torch.tensor([opacity])).item() ** 2
    assert sum(totals) / 500 == pytest.approx(expected, abs=0.03 * expected + rim)


@IMPLEMENTATIONS
def test_a_small_gaussian_leaves_all_it_has_in_its_cell(implementation):
    opacity, scales = torch.tensor([0.9]), torch.tensor([[0.004, 0.002, 0.001]])
    axes = torch.linalg.qr(torch.randn(3, 3)).Q
    result = statistics(torch.tensor([[0.05, 0.05, 0.05]]), axes[None] * scales[:, None], opacity, implementation)
    assert result.coordinates().tolist() == [[10, 5, 7]]
    expected = extinction_of(opacity, scales).item() / SIZE**3
    assert result.density.item() == pytest.approx(expected, rel=1e-5)


@IMPLEMENTATIONS
def test_density_of_a_large_gaussian_is_the_field_at_the_cell(implementation):
    opacity, std = 0.6, 0.35
    mean = torch.tensor([[0.02, 0.03, 0.01]])
    result = statistics(mean, std * torch.eye(3)[None], torch.tensor([opacity]), implementation)
    centres = (result.coordinates() + 0.5) * SIZE + torch.tensor(LOWER)
    squared = ((centres - mean) / std).square().sum(1)
    expected = polylogarithm(0.5, opacity * torch.exp(-0.5 * squared)) / (math.sqrt(2 * math.pi) * std)
    near = squared < 4
    assert near.sum() > 500
    assert torch.allclose(result.density[near].double(), expected[near], rtol=0.05)


@IMPLEMENTATIONS
def test_a_flat_gaussian_is_spread_over_the_cells_its_plane_runs_through(implementation):
    # A disc of standard deviation 0.25 across z at z = 0.02, in the layer of cells from 0 to 0.1.
    half = torch.diag(torch.tensor([0.25, 0.25, 1e-5]))[None]
    result = statistics(torch.tensor([[0.0, 0.05, 0.02]]), half, torch.tensor([0.5]), implementation)
    x, y, z = result.coordinates().unbind(1)
    assert (z == 7).all()
    centres = torch.stack([(x + 0.5) * SIZE + LOWER[0], (y + 0.5) * SIZE + LOWER[1] - 0.05], dim=1) / 0.25
    squared = centres.square().sum(1)
    # A plane seen along its normal has -log(1 - alpha); over all directions half of that per cell.
    expected = 0.5 * -torch.log1p(-0.5 * torch.exp(-0.5 * squared)) / SIZE
    near = squared < 3
    assert torch.allclose(result.density[near], expected[near], rtol=0.06)


@IMPLEMENTATIONS
@pytest.mark.parametrize("thickness", [1.0, 0.05, 0.0])
def test_nothing_is_lost_inside_the_grid(implementation, thickness):
    means, half, _ = random_gaussians(40, thickness)
    opacities = torch.rand(40).clamp(min=0.03)
    lower, shape = (-3.0, -2.5, -2.7), (60, 50, 54)
    result = statistics(means, half, opacities, implementation, lower, SIZE, shape)
    total = extinction_of(opacities, half.norm(dim=1)).sum().item()
    assert result.density.double().sum().item() * SIZE**3 == pytest.approx(total, rel=0.01)


@IMPLEMENTATIONS
def test_what_lies_outside_the_grid_is_not_pushed_inside(implementation):
    mean = torch.tensor([[-1.0, 0.0, 0.0]])  # on the grid's face
    result = statistics(mean, 0.1 * torch.eye(3)[None], torch.tensor([0.7]), implementation)
    total = extinction_of(torch.tensor([0.7]), torch.full((1, 3), 0.1)).item()
    assert result.density.sum().item() * SIZE**3 == pytest.approx(0.5 * total, rel=0.02)


@IMPLEMENTATIONS
def test_channels_are_averaged_by_extinction(implementation):
    # Two small ones in one cell; surfaces of 4:1 at the same opacity. A third one alone.
    means = torch.tensor([[0.03, 0.05, 0.05], [0.07, 0.05, 0.05], [0.45, 0.05, 0.05]])
    half = torch.tensor([0.002, 0.001, 0.001])[:, None, None] * torch.eye(3)
    channels = torch.tensor([[1.0, 0], [6, 0], [3, 7]])
    result = statistics(means, half, torch.full((3,), 0.5), implementation, channels=channels)
    assert torch.allclose(result.channels, torch.tensor([[2.0, 0], [3, 7]]), atol=1e-5)


@pytest.mark.parametrize("thickness", [1.0, 0.05, 0.0])
@pytest.mark.parametrize("count", [0, 1, 63, 250])
def test_numba_equals_torch(count, thickness):
    means, half, _ = random_gaussians(count, thickness)
    opacities, channels = torch.rand(count), torch.randn(count, 3)
    opacities[::5] = 0.001
    opacities[1::7] = 1.0
    one, other = (statistics(means, half, opacities, name, channels=channels) for name in ("numba", "torch"))
    assert torch.equal(one.indices, other.indices)
    assert (len(one) > 0) == (count > 1)
    for field in ("density", "channels"):
        assert torch.allclose(getattr(one, field), getattr(other, field), rtol=1e-4, atol=1e-5), field
    assert one.channels.shape == (len(one), 3)


def test_same_bits_for_any_number_of_threads(use_threads):
    means, half, _ = random_gaussians(9000, 0.1)
    arguments = means, 0.1 * half, torch.rand(9000)
    use_threads(1)
    single = statistics(*arguments, channels=means)
    use_threads(2)
    double = statistics(*arguments, channels=means)
    assert 0 < len(single) < math.prod(SHAPE)
    for field in ("indices", "density", "channels"):
        assert torch.equal(getattr(single, field), getattr(double, field)), field


def test_many_are_looked_at_some_at_a_time_to_the_same_end(monkeypatch):
    """Of a million broad ones the shells that are integrated over would take 15 GB."""
    means, half, _ = random_gaussians(40)
    half, opacities = torch.cat([half[:20], 8 * half[20:]]), torch.rand(40)
    whole = statistics(means, half, opacities, channels=means)
    sizes = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            result = operator(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.ndim == 2 and result.shape[1] == module._SHELLS:
                sizes.append(len(result))
            return result

    monkeypatch.setattr(module, "_BROAD_TOGETHER", 3)
    monkeypatch.setattr(numba_module, "_TOGETHER", 7)
    with Sizes():
        parts = statistics(means, half, opacities, channels=means)
    assert max(sizes) == 3
    for field in ("indices", "density", "channels"):
        assert torch.equal(getattr(parts, field), getattr(whole, field)), field


def test_a_thousand_cells_a_side_cost_what_is_occupied():
    means = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.9, 0.9]])
    result = statistics(
        means, 0.001 * torch.eye(3).expand(2, 3, 3), torch.full((2,), 0.9), "numba", (0, 0, 0), 1 / 1024, (1024,) * 3
    )
    assert 100 < len(result) < 2000
    assert sum(part.nbytes for part in (result.indices, result.density, result.channels)) == 12 * len(result)


def test_coordinates_and_mask_by_hand():
    result = CellStatistics((3, 4, 5), torch.tensor([3, 30, 59]), torch.ones(3), torch.zeros(3, 2))
    assert result.coordinates().tolist() == [[0, 0, 3], [1, 2, 0], [2, 3, 4]]
    assert result.mask().shape == (3, 4, 5)
    assert result.mask().nonzero().tolist() == [[0, 0, 3], [1, 2, 0], [2, 3, 4]]


def test_no_gaussians_leave_an_empty_mask():
    result = statistics(torch.zeros(0, 3), torch.zeros(0, 3, 3), torch.zeros(0))
    assert len(result) == 0 and result.coordinates().shape == (0, 3)
    assert not result.mask().any()


def test_the_lookup_table_keeps_to_the_series():
    z = torch.rand(200, dtype=torch.float64) * ALPHA_MAX
    for collapsed, table in enumerate(module._tables()):
        exact = polylogarithm(0.5 * (1 + collapsed), z)
        assert torch.allclose(module._look_up(table, z), exact, rtol=1e-3, atol=1e-6)


@IMPLEMENTATIONS
@pytest.mark.parametrize("count", [0, 1, 30])
def test_touched_cells_are_those_of_the_statistics(implementation, count):
    means, half, _ = random_gaussians(count, thickness=0.1)
    gaussians = means, half, torch.rand(count)
    found = touched_cells(*gaussians, LOWER, SIZE, SHAPE, implementation=implementation)
    assert torch.equal(found, statistics(*gaussians, implementation).indices)


@IMPLEMENTATIONS
def test_a_broad_gaussian_is_its_extinction_at_the_centres_of_cells(implementation):
    # The lattice of such a one, of at most 64 nodes a side, would ripple by more than a tenth.
    axes = torch.linalg.qr(torch.randn(3, 3)).Q
    scales = torch.tensor([4.0, 7.0, 10.0])
    gaussian = torch.tensor([[30.3, 29.6, 31.1]]), (axes * scales)[None], torch.tensor([0.9])
    found = statistics(*gaussian, implementation, (0.0, 0.0, 0.0), 1.0, (62, 62, 62))
    total = extinction_of(gaussian[2], scales[None]).item()
    offset = (found.coordinates() + 0.5 - gaussian[0]) @ axes / scales
    inside = offset.norm(dim=1) < 3
    assert inside.sum() > 20000
    # Li_1/2 by its series, of which 200 terms are enough for alphas of at most 0.9.
    k = torch.arange(1, 201)
    alphas = 0.9 * torch.exp(-0.5 * offset[inside].square().sum(1))
    thickness = (alphas[:, None].double() ** k / k.sqrt()).sum(1)
    expected = thickness * ellipsoid_surface(scales[None]) / (4 * math.pi * scales.prod() * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found.density[inside].double(), expected, rtol=0.01, atol=0)
    assert found.density.sum().item() <= total * 1.001


def test_broad_gaussians_are_the_same_in_both_implementations():
    means, half, _ = random_gaussians(8)
    gaussians = means, 4 * half, torch.rand(8)
    one, other = (statistics(*gaussians, name, channels=torch.ones(8, 1)) for name in ("torch", "numba"))
    assert (half.norm(dim=1).amin(1) * 4 >= SIZE).sum() >= 4, "most of them are sampled"
    torch.testing.assert_close(one.density, other.density, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(one.channels, other.channels)
