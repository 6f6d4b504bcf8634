"""No visible point of a Gaussian lies in an unmarked cell, and no cell is marked without reason."""

import pytest
import torch

from kernels.voxelize import voxelize_gaussians

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["torch", "numba"])
LOWER, SIZE, SHAPE = (-1.0, -0.5, -0.7), 0.1, (20, 11, 14)


def random_gaussians(count, thickness=1.0):
    """Means, principal axes times scales (N, 3, 3), radii; ``thickness`` multiplies the third scale."""
    means = torch.rand(count, 3) * torch.tensor([2.4, 1.5, 1.8]) - torch.tensor([1.2, 0.7, 0.9])
    axes = torch.linalg.qr(torch.randn(count, 3, 3)).Q
    scales = 0.02 + 0.12 * torch.rand(count, 3)
    scales[:, 2] *= thickness
    return means, axes * scales[:, None], 0.5 + 2.8 * torch.rand(count)


def marked(means, half, radii, implementation="numba", lower=LOWER, size=SIZE, shape=SHAPE):
    return voxelize_gaussians(
        means, half @ half.transpose(1, 2), radii, lower, size, shape, implementation=implementation
    )


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


@pytest.mark.parametrize("thickness", [1.0, 0.0])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 1001])
def test_numba_equals_torch(count, thickness):
    means, half, radii = random_gaussians(count, thickness)
    radii[::5] = 0
    cells = marked(means, half, radii, "numba")
    assert torch.equal(cells, marked(means, half, radii, "torch"))
    assert cells.any() == (count > 1)


@IMPLEMENTATIONS
def test_a_far_larger_gaussian_marks_the_whole_grid(implementation):
    mean, half, radius = sphere((50.0, 0.0, 0.0), 3.0)
    assert marked(mean, 40 * half, radius, implementation).all()


def test_same_cells_for_any_number_of_threads(use_threads):
    gaussians = random_gaussians(9000, 0.1)
    gaussians = gaussians[0], 0.1 * gaussians[1], gaussians[2]
    use_threads(1)
    single = marked(*gaussians)
    use_threads(2)
    assert torch.equal(single, marked(*gaussians))
    assert 0 < single.float().mean() < 1
