"""How far a Gaussian is from the cells of a grid, in its own standard deviations: exact for any shape.

A cell's nearest point to the mean, in the Gaussian's own metric m, minimises a convex quadratic over a box. It is on
a face turned to the mean: at the face's own minimum, or on an edge turned to that. So: hold an axis a at its nearest
value, then another, b, at its nearest to the face's minimum, and let the last, c, follow. Each such point is in the
cell and one of the six is the minimum.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

# Standard deviation in cells that is added to every axis of a Gaussian, so that flat ones can be inverted.
THINNEST = 1e-3


def cell_ranges(means: Tensor, covariances: Tensor, radii: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """(N, 2, 3) int64: first and past-the-last cell along each axis that Gaussians can reach, within the grid.

    Args:
        means: (N, 3) in cells; covariances: (N, 3, 3) in cells squared; radii: (N,) in standard deviations.
    """
    reach = radii[:, None] * covariances.diagonal(dim1=1, dim2=2).sqrt()
    limit = torch.tensor(shape, device=means.device)
    first, last = torch.floor(means - reach), torch.ceil(means + reach)
    return torch.stack([first, last], dim=1).clamp(min=0).minimum(limit).long()


def nearest_distances(mean: Tensor, m: Tensor, first: list[int], last: list[int]) -> tuple[Tensor, Tensor]:
    """Cells (X, Y, Z, 3) of the range from ``first`` to before ``last``, and their squared distances (X, Y, Z).

    Args:
        mean: (3,) in cells; m: (3, 3) the metric, in 1 / cells squared.
    """
    axes = [torch.arange(a, b, device=mean.device) for a, b in zip(first, last, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    near, far = grid - mean, grid + 1 - mean
    nearest = torch.zeros_like(near).clamp(near, far)
    least = torch.full(grid.shape[:3], torch.inf, dtype=mean.dtype, device=mean.device)
    for a, b, c in itertools.permutations(range(3)):
        point = nearest.clone()
        free = point[..., a] * (m[b, c] * m[a, c] - m[a, b] * m[c, c]) / (m[b, b] * m[c, c] - m[b, c] ** 2)
        point[..., b] = free.clamp(near[..., b], far[..., b])
        free = -(point[..., a] * m[a, c] + point[..., b] * m[b, c]) / m[c, c]
        point[..., c] = free.clamp(near[..., c], far[..., c])
        least = least.minimum(torch.einsum("...i,ij,...j->...", point, m, point))
    return grid, least
