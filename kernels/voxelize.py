"""Which cells of a grid Gaussians reach."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.dispatch import resolve
from kernels.threads import parallel_for

_HALF_DIAGONAL = 3**0.5 / 2  # of a cell of edge 1


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
    """Cells within ``radii`` standard deviations of any Gaussian.

    A cell's centre is tested against the ellipsoid widened by the cell's half diagonal, so that a flat Gaussian
    marks every cell it cuts.

    Args:
        means: (N, 3) world; covariances: (N, 3, 3) world units squared; radii: (N,) in standard deviations,
            Gaussians of radius 0 are left out.
        lower: world position of the grid's corner; cell_size: world units; shape: cells per axis.

    Returns:
        (X, Y, Z) uint8.
    """
    name = resolve("voxelize", implementation, means.device, ("torch", "numba"))
    means = (means - means.new_tensor(lower)) / cell_size
    widening = (_HALF_DIAGONAL / radii.clamp(min=1e-6)) ** 2
    covariances = covariances / cell_size**2 + widening[:, None, None] * torch.eye(3, device=means.device)
    reach = radii[:, None] * covariances.diagonal(dim1=1, dim2=2).sqrt()
    limit = torch.tensor(shape, device=means.device)
    first = torch.floor(means - reach).long().clamp(min=0).minimum(limit)
    last = torch.ceil(means + reach).long().clamp(min=0).minimum(limit)
    inverse = torch.linalg.inv(covariances)
    cells = torch.zeros(shape, dtype=torch.uint8, device=means.device)
    alive = radii > 0
    arguments = [part[alive] for part in (means, inverse, radii, first, last)]
    if name == "torch":
        _mark_torch(*arguments, cells)
    else:
        arrays = [part.contiguous().numpy() for part in arguments]
        parallel_for(_mark, len(arguments[0]), *arrays, cells.numpy(), grain=4096)
    return cells


def _mark_torch(means, inverse, radii, first, last, cells) -> None:
    for mean, matrix, radius, low, high in zip(means, inverse, radii, first.tolist(), last.tolist(), strict=True):
        axes = [torch.arange(a, b, device=means.device) for a, b in zip(low, high, strict=True)]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        offset = grid + 0.5 - mean
        inside = torch.einsum("...i,ij,...j->...", offset, matrix, offset) <= radius**2
        x, y, z = grid[inside].unbind(-1)
        cells[x, y, z] = 1


@njit(cache=True, nogil=True, error_model="numpy")
def _mark(start, stop, means, inverse, radii, first, last, cells):
    half = np.float32(0.5)
    for g in range(start, stop):
        m = inverse[g]
        limit = radii[g] * radii[g]
        for x in range(first[g, 0], last[g, 0]):
            dx = x + half - means[g, 0]
            for y in range(first[g, 1], last[g, 1]):
                dy = y + half - means[g, 1]
                for z in range(first[g, 2], last[g, 2]):
                    dz = z + half - means[g, 2]
                    distance = dx * (m[0, 0] * dx + 2 * (m[0, 1] * dy + m[0, 2] * dz))
                    distance += dy * (m[1, 1] * dy + 2 * m[1, 2] * dz) + m[2, 2] * dz * dz
                    if distance <= limit:
                        cells[x, y, z] = 1
