"""What Gaussians add up to in the cells of a grid: extinction, and means of any per-Gaussian channels.

A Gaussian of 3DGS has an opacity, no density. On a ray it is drawn with alpha = o exp(-m^2 / 2), o being its opacity
and m the ray's least distance from its centre in standard deviations: an optical thickness of -log(1 - alpha). Along
direction d with standard deviation s_d, the field ``Li_1/2(o G(x)) / (sqrt(2 pi) s_d)`` has just this integral on
every parallel ray: the polylogarithm Li_n(z) = sum z^k / k^n turns into Li_(n + 1/2) when its Gaussian argument is
integrated over a line, and Li_1(z) = -log(1 - z). A cell serves all directions, so 1 / s_d is averaged over the
sphere. Cauchy's formula gives that mean as S / (4 pi s1 s2 s3), S being the surface of the ellipsoid of one standard
deviation: a random ray meets the right thickness on average, a plane seen face on looks half as dense, one seen
along itself denser. In all a Gaussian holds S / 2 * (Li_2(o) - Li_2(1/255)) of extinction; the second term is what
the rasteriser leaves out where alpha is below 1/255.

A Gaussian counts in exactly the cells that hold a point where its alpha is at least 1/255. Its extinction is laid out
on a lattice along its own principal axes, half a cell or 1.25 standard deviations apart, whatever is less (but at most
64 nodes a side, a tenth of a standard deviation apart); each node is a box of the lattice's second moments and is
shared among the cells it overlaps. Axes much thinner than a cell have one node. So a Gaussian far smaller than a cell
leaves everything in its cell, flat ones where their plane runs, and the sum over cells is its total but for shares
that fall outside the grid or beside the cells it reaches. A Gaussian that is at least a cell wide along every axis
is smooth enough to be sampled at the cells' centres instead, scaled so that it has its total; the lattice would ripple.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from kernels.dispatch import resolve
from kernels.gaussians.cell_distance import THINNEST, cell_ranges, nearest_distances
from kernels.gaussians.gaussian_statistics_numba import (
    BOX,
    BROAD,
    MOST_NODES,
    SPACING,
    SPACING_STD,
    TABLE,
    statistics_numba,
    touched_numba,
)
from kernels.gaussians.rasterize_forward_numba import ALPHA_MAX

_SHELLS = 256  # of the integral over a Gaussian
_BROAD_TOGETHER = 1 << 12  # broad Gaussians that are integrated over: 15 KiB each
VISIBLE_ALPHA = 1 / 255  # under it the 3DGS rasteriser draws nothing


@dataclass(frozen=True)
class CellStatistics:
    """What Gaussians add up to in M occupied cells of a grid, stored for those alone: 12 + 4 C bytes per cell.

    Attributes:
        shape: X, Y, Z cells.
        indices: (M,) int64, ascending: (x * Y + y) * Z + z of each cell.
        density: (M,) extinction averaged over the cell and over directions, 1 / world unit.
        channels: (M, C) means of per-Gaussian values, weighted by extinction; 0 where density is 0.
    """

    shape: tuple[int, int, int]
    indices: Tensor
    density: Tensor
    channels: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def coordinates(self) -> Tensor:
        """(M, 3) int64 x, y, z of each cell."""
        return torch.stack(torch.unravel_index(self.indices, self.shape), dim=-1)

    def mask(self) -> Tensor:
        """(X, Y, Z) uint8, dense: 1 in the cells."""
        cells = torch.zeros(self.shape, dtype=torch.uint8, device=self.indices.device)
        cells.view(-1)[self.indices] = 1
        return cells


def visible_radii(opacities: Tensor) -> Tensor:
    """(N,) standard deviations at which alpha falls to 1/255, as float64; 0 where it never reaches that."""
    return torch.sqrt(2 * torch.log((opacities.double() / VISIBLE_ALPHA).clamp(min=1)))


def polylogarithm(order: float, z: Tensor) -> Tensor:
    """Li_order(z), elementwise for z in [0, 0.99], by its series, to 1e-12 of the sum."""
    parts = z.double().reshape(-1).clamp(min=1e-300).split(128)  # each with as many terms as its largest z asks for
    return torch.cat([_series(order, part) for part in parts]).reshape(z.shape)


def _series(order: float, z: Tensor) -> Tensor:
    """Sum of z^k / k^order, for (N,) z > 0, up to a term of which z^k is 1e-12."""
    logarithm = z.log()
    terms = math.ceil(math.log(1e-12) / float(logarithm.max()))
    k = torch.arange(1, terms + 1, dtype=torch.float64)
    return torch.exp(logarithm[:, None] * k - order * k.log()).sum(-1)


def ellipsoid_surface(scales: Tensor) -> Tensor:
    """(N,) surface of ellipsoids of half-axes (N, 3): Thomsen's formula, within 1.1 %."""
    power = 1.6075
    a, b, c = (scales.double() ** power).unbind(-1)
    return 4 * math.pi * ((a * b + b * c + c * a) / 3) ** (1 / power)


def extinction_of(opacities: Tensor, scales: Tensor) -> Tensor:
    """(N,) float64 world units squared: the volume integral of each Gaussian's extinction, as far as it is drawn."""
    alphas = opacities.double().clamp(max=ALPHA_MAX)
    drawn = _look_up(_tables()[3].to(alphas.device), alphas.clamp(min=VISIBLE_ALPHA))
    return 0.5 * ellipsoid_surface(scales) * (drawn - polylogarithm(2, torch.tensor(VISIBLE_ALPHA)))


def gaussian_statistics(
    means: Tensor,
    half_axes: Tensor,
    opacities: Tensor,
    lower: tuple[float, float, float],
    cell_size: float,
    shape: tuple[int, int, int],
    *,
    channels: Tensor | None = None,
    implementation: str = "auto",
) -> CellStatistics:
    """Statistics of the cells that Gaussians reach with alpha >= 1/255.

    Memory beside the result, in the numba implementation: 350 bytes per Gaussian, 4 bytes per pair of a Gaussian and a
    brick of 8^3 cells that it may reach, 1 byte per cell of the bricks that have any such, about 80 bytes per occupied
    cell while the result is put in order, 24 bytes per brick of the whole grid (50 MB at 1024^3). The reference is
    dense.

    Args:
        means: (N, 3) world.
        half_axes: (N, 3, 3) world; the columns are the principal axes times their standard deviations.
        opacities: (N,) in [0, 1]; under 1/255 a Gaussian is left out.
        lower: world position of the grid's corner; cell_size: world units; shape: cells per axis.
        channels: (N, C) of any meaning, averaged with each Gaussian's extinction in the cell as weight.
        implementation: "auto", "torch" or "numba"; the result does not depend on the number of threads.
    """
    name = resolve("gaussian_statistics", implementation, means.device, ("torch", "numba"))
    if channels is None:
        channels = means.new_empty(len(means), 0)
    alive = opacities > VISIBLE_ALPHA
    means, half, opacities = means[alive].double(), half_axes[alive].double(), opacities[alive].double()
    scales = half.norm(dim=1)
    radii = visible_radii(opacities)
    corner = means.new_tensor(lower)
    arguments = [
        (means - corner) / cell_size,
        half.div_(cell_size),
        opacities.clamp(max=ALPHA_MAX),
        radii,
        extinction_of(opacities, scales) / cell_size**3,
        _sampled_extinction(opacities.clamp(max=ALPHA_MAX), scales / cell_size, radii) / cell_size,
        channels[alive].double(),
    ]
    run = _statistics_torch if name == "torch" else statistics_numba
    return CellStatistics(tuple(shape), *run(*arguments, tuple(shape), _tables().to(means.device)))


def touched_cells(
    means: Tensor,
    half_axes: Tensor,
    opacities: Tensor,
    lower: tuple[float, float, float],
    cell_size: float,
    shape: tuple[int, int, int],
    *,
    implementation: str = "auto",
) -> Tensor:
    """(M,) int64: the ``indices`` of ``gaussian_statistics``, alone and sooner. Args: as there."""
    name = resolve("gaussian_statistics", implementation, means.device, ("torch", "numba"))
    alive = opacities > VISIBLE_ALPHA
    means = means[alive].double()
    places, half = (means - means.new_tensor(lower)) / cell_size, half_axes[alive].double() / cell_size
    run = _touched_torch if name == "torch" else touched_numba
    return run(places, half, visible_radii(opacities[alive]), tuple(shape))


def _touched_torch(means, half, radii, shape):
    touched = torch.zeros(math.prod(shape), dtype=torch.bool, device=means.device)
    for _, _, flat in _reached_torch(means, half, radii, shape):
        touched[flat] = True
    return touched.nonzero()[:, 0]


def _reached_torch(means, half, radii, shape):
    """For each Gaussian: its range of cells, which of them it reaches, those cells' flat indices."""
    covariances = half @ half.transpose(1, 2) + THINNEST**2 * torch.eye(3, device=means.device)
    for g, bounds in enumerate(cell_ranges(means, covariances, radii, shape).tolist()):
        grid, least = nearest_distances(means[g], torch.linalg.inv(covariances[g]), *bounds)
        reached = least <= radii[g] ** 2
        x, y, z = grid[reached].unbind(-1)
        yield bounds, reached, (x * shape[1] + y) * shape[2] + z


@lru_cache(maxsize=1)
def _tables() -> Tensor:
    """(4, TABLE + 1) Li_1/2, Li_1, Li_3/2, Li_2 at 0, ..., 1 of ALPHA_MAX: the weight of a node by collapsed axes."""
    z = torch.linspace(0, ALPHA_MAX, TABLE + 1, dtype=torch.float64)
    return torch.stack([polylogarithm(0.5 * (1 + collapsed), z) for collapsed in range(4)])


def _sampled_extinction(opacities: Tensor, scales: Tensor, radii: Tensor) -> Tensor:
    """(N,) extinction in a cell per Li_1/2 of the alpha at its centre, by cells; 0 for Gaussians with a lattice."""
    sampled = torch.zeros_like(radii)
    for broad in (scales.amin(1) >= BROAD).nonzero()[:, 0].split(_BROAD_TOGETHER):
        m = (torch.arange(_SHELLS, device=scales.device) + 0.5) / _SHELLS * radii[broad, None]
        inside = _look_up(_tables()[0].to(m.device), opacities[broad, None] * torch.exp(-0.5 * m * m))
        integral = 4 * math.pi * (m * m * inside).sum(1) * radii[broad] / _SHELLS
        sampled[broad] = extinction_of(opacities[broad], scales[broad]) / (integral * scales[broad].prod(1))
    return sampled


def _lattice(scales: Tensor, radius: float) -> list[int]:
    """Nodes along each principal axis of a Gaussian, 1 where it is collapsed; scales in cells."""
    needed = 2 * radius * torch.maximum(scales / SPACING, torch.full_like(scales, 1 / SPACING_STD))
    return torch.where(BOX * scales <= SPACING, 1.0, needed.ceil().clamp(max=MOST_NODES)).long().tolist()


def _statistics_torch(means, half, opacities, radii, extinction, sampled, channels, shape, tables):
    cells = math.prod(shape)
    touched = torch.zeros(cells, dtype=torch.bool, device=means.device)
    density = torch.zeros(cells, dtype=torch.float64, device=means.device)
    sums = torch.zeros(cells, channels.shape[1], dtype=torch.float64, device=means.device)
    for g, (bounds, reached, flat) in enumerate(_reached_torch(means, half, radii, shape)):
        touched[flat] = True
        if sampled[g] > 0:
            amount = _samples_torch(means[g], half[g], opacities[g], radii[g], bounds, tables[0]) * sampled[g]
        else:
            nodes = _nodes_torch(means[g], half[g], opacities[g], radii[g].item(), tables)
            amount = extinction[g] * _shares_torch(*nodes, bounds)
        amount = amount[reached]
        density[flat] += amount
        sums[flat] += amount[:, None] * channels[g]
    indices = touched.nonzero()[:, 0]
    density, sums = density[indices], sums[indices]
    return indices, density.float(), torch.where(density[:, None] > 0, sums / density[:, None], 0).float()


def _samples_torch(mean, half, opacity, radius, bounds, table):
    """(X, Y, Z) Li_1/2 of a Gaussian's alpha at the centres of a range of cells, 0 where it is not drawn."""
    axes = [torch.arange(low, high, device=mean.device) + 0.5 for low, high in zip(*bounds, strict=True)]
    offset = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) - mean
    squared = torch.linalg.solve(half, offset[..., None])[..., 0].square().sum(-1)
    return torch.where(squared <= radius**2, _look_up(table, opacity * torch.exp(-0.5 * squared)), 0)


def _shares_torch(places, edges, weights, bounds):
    """(X, Y, Z) sums of the nodes' weights in a range of cells, shared by the volume of their boxes in each."""
    overlaps = []
    for j, (low, high) in enumerate(zip(*bounds, strict=True)):
        cell = torch.arange(low, high, device=places.device)
        near, far = places[:, j, None] - edges[j] / 2, places[:, j, None] + edges[j] / 2
        overlaps.append((far.minimum(cell + 1) - near.maximum(cell)).clamp(min=0) / edges[j])
    inside = torch.stack([overlap.sum(1) for overlap in overlaps]).prod(0) > 0
    x, y, z = (overlap[inside] for overlap in overlaps)
    return torch.einsum("px,py,pz->xyz", weights[inside, None] * x, y, z)


def _nodes_torch(mean, half, opacity, radius, tables):
    """Places (P, 3) in cells, box edges (3,) in cells, weights (P,) of sum 1 of one Gaussian's lattice."""
    counts = _lattice(half.norm(dim=0), radius)
    axes = [((torch.arange(n, device=mean.device, dtype=mean.dtype) + 0.5) * 2 / n - 1) * radius for n in counts]
    u = torch.cartesian_prod(*axes)
    squared = (u * u).sum(1)
    u, squared = u[squared <= radius**2], squared[squared <= radius**2]
    spacings = [BOX if n == 1 else min(2 * radius / n, BOX) for n in counts]
    edges = (half * half.new_tensor(spacings)).norm(dim=1).clamp(min=THINNEST)
    weights = _look_up(tables[counts.count(1)], opacity * torch.exp(-0.5 * squared))
    return mean + u @ half.T, edges, weights / weights.sum()


def _look_up(table: Tensor, z: Tensor) -> Tensor:
    place = z * (TABLE / ALPHA_MAX)
    below = place.long().clamp(max=TABLE - 1)
    return table[below] + (place - below) * (table[below + 1] - table[below])
