"""Which cells of a grid Gaussians reach."""

from __future__ import annotations

import itertools

import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.threads import parallel_for

_THINNEST = 1e-3  # standard deviation in cells that is added to every axis, so that flat Gaussians can be inverted


def voxelize_gaussians(
    means: Tensor,
    covariances: Tensor,
    radii: Tensor,
    lower: tuple[float, float, float],
    cell_size: float,
    shape: tuple[int, int, int],
    *,
    implementation: str = "auto",
) -> Tensor:
    """Cells that hold a point within ``radii`` standard deviations of any Gaussian, however flat it is.

    Args:
        means: (N, 3) world; covariances: (N, 3, 3) world units squared; radii: (N,) in standard deviations,
            Gaussians of radius 0 are left out.
        lower: world position of the grid's corner; cell_size: world units; shape: cells per axis.

    Returns:
        (X, Y, Z) uint8.
    """
    name = resolve("voxelize", implementation, means.device, ("torch", "numba"))
    alive = radii > 0
    means, covariances, radii = means[alive].double(), covariances[alive].double(), radii[alive].double()
    means = (means - means.new_tensor(lower)) / cell_size
    covariances = covariances / cell_size**2 + _THINNEST**2 * torch.eye(3, device=means.device)
    reach = radii[:, None] * covariances.diagonal(dim1=1, dim2=2).sqrt()
    limit = torch.tensor(shape, device=means.device)
    first = torch.floor(means - reach).long().clamp(min=0).minimum(limit)
    last = torch.ceil(means + reach).long().clamp(min=0).minimum(limit)
    cells = torch.zeros(shape, dtype=torch.uint8, device=means.device)
    arguments = [means, torch.linalg.inv(covariances), radii, first, last]
    if name == "torch":
        _mark_torch(*arguments, cells)
    else:
        arrays = [part.contiguous().numpy() for part in arguments]
        parallel_for(_mark, len(means), *arrays, cells.numpy(), grain=4096)
    return cells


# A cell's nearest point to the mean, in the Gaussian's own metric m, minimises a convex quadratic over a box. It is on
# a face turned to the mean: at the face's own minimum, or on an edge turned to that. So: hold an axis a at its nearest
# value, then another, b, at its nearest to the face's minimum, and let the last, c, follow. Each such point is in the
# cell and one of the six is the minimum, so the test is exact.


def _mark_torch(means, inverse, radii, first, last, cells) -> None:
    for mean, m, radius, low, high in zip(means, inverse, radii, first.tolist(), last.tolist(), strict=True):
        axes = [torch.arange(a, b, device=means.device) for a, b in zip(low, high, strict=True)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        near, far = grid - mean, grid + 1 - mean
        nearest = torch.zeros_like(near).clamp(near, far)
        least = torch.full(grid.shape[:3], torch.inf, dtype=means.dtype, device=means.device)
        for a, b, c in itertools.permutations(range(3)):
            point = nearest.clone()
            free = point[..., a] * (m[b, c] * m[a, c] - m[a, b] * m[c, c]) / (m[b, b] * m[c, c] - m[b, c] ** 2)
            point[..., b] = free.clamp(near[..., b], far[..., b])
            free = -(point[..., a] * m[a, c] + point[..., b] * m[b, c]) / m[c, c]
            point[..., c] = free.clamp(near[..., c], far[..., c])
            least = least.minimum(torch.einsum("...i,ij,...j->...", point, m, point))
        x, y, z = grid[least <= radius**2].unbind(-1)
        cells[x, y, z] = 1


@njit(cache=True, nogil=True, error_model="numpy")
def _reaches(m, limit, x, y, z):
    """Whether the unit cell with its corner at (x, y, z) from the mean holds a point of m-norm squared <= limit."""
    corner = (x, y, z)
    for a in range(3):
        pa = min(max(0.0, corner[a]), corner[a] + 1)
        for turn in range(1, 3):
            b, c = (a + turn) % 3, (a + 3 - turn) % 3
            pb = pa * (m[b, c] * m[a, c] - m[a, b] * m[c, c]) / (m[b, b] * m[c, c] - m[b, c] * m[b, c])
            pb = min(max(pb, corner[b]), corner[b] + 1)
            pc = -(pa * m[a, c] + pb * m[b, c]) / m[c, c]
            pc = min(max(pc, corner[c]), corner[c] + 1)
            distance = pa * (m[a, a] * pa + 2 * (m[a, b] * pb + m[a, c] * pc))
            if distance + pb * (m[b, b] * pb + 2 * m[b, c] * pc) + m[c, c] * pc * pc <= limit:
                return True
    return False


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(start, stop, means, inverse, radii, first, last, cells):
    for g in range(start, stop):
        m = inverse[g]
        limit = radii[g] * radii[g]
        for x in range(first[g, 0], last[g, 0]):
            for y in range(first[g, 1], last[g, 1]):
                for z in range(first[g, 2], last[g, 2]):
                    if cells[x, y, z] == 0 and _reaches(m, limit, x - means[g, 0], y - means[g, 1], z - means[g, 2]):
                        cells[x, y, z] = 1
