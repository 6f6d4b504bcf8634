"""What rays lose of their light to Gaussians, cell by cell: which cells and which Gaussians matter to a picture.

Each Gaussian is an extinction field: on a ray it has the optical thickness -log(1 - alpha) that 3DGS draws it with,
spread along the ray as its own normal distribution. So no order has to be found and light is lost where it is in
space, in whichever cells a ray crosses. Unlike the rasteriser, rays are infinitely thin (no 0.3 px^2 of dilation) and
alpha is exact, not that of a projection linearised at the Gaussian's centre.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from kernels.cell_distance import THINNEST, cell_ranges, nearest_distances, squared_distance_to_cell
from kernels.dispatch import resolve
from kernels.threads import parallel_for

ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
_OPEN = 1e-4  # transmittance at which a ray ends, the rasteriser's


class Visibility(NamedTuple):
    """What R rays see of N Gaussians.

    Attributes:
        cells: (X, Y, Z) uint8, 1 where some ray loses more than 1/255 of its light.
        gaussians: (N,) uint8, 1 where alpha times the light left in front of it exceeds 1/255 on some ray.
        alpha: (R,) share of the ray's light that is lost in all.
        kept_alpha: (R,) the same when Gaussians are absent outside the kept cells.
    """

    cells: Tensor
    gaussians: Tensor
    alpha: Tensor
    kept_alpha: Tensor


def trace_gaussians(
    means: Tensor,
    covariances: Tensor,
    opacities: Tensor,
    radii: Tensor,
    origins: Tensor,
    directions: Tensor,
    lower: tuple[float, float, float],
    cell_size: float,
    kept: Tensor,
    *,
    implementation: str = "auto",
) -> Visibility:
    """Follows rays through a grid.

    Args:
        means: (N, 3) world; covariances: (N, 3, 3) world units squared; opacities: (N,) in [0, 1]; radii: (N,)
            standard deviations at which a Gaussian ends, 0 leaves it out.
        origins, directions: (R, 3) world; directions are unit. Rays run from their origin on.
        lower: world position of the grid's corner; cell_size: world units.
        kept: (X, Y, Z) uint8, the cells that count for ``kept_alpha``.
    """
    name = resolve("gaussian_visibility", implementation, means.device, ("torch", "numba"))
    corner = means.new_tensor(lower).double()
    arguments = [
        (means.double() - corner) / cell_size,
        torch.linalg.inv(covariances.double() / cell_size**2 + THINNEST**2 * torch.eye(3, device=means.device)),
        opacities.double().clamp(max=ALPHA_MAX),
        radii.double(),
        (origins.double() - corner) / cell_size,
        directions.double(),
        kept,
    ]
    return (_trace_torch if name == "torch" else _trace_numba)(*arguments)


def _trace_torch(means, metrics, opacities, radii, origins, directions, kept) -> Visibility:
    lists = torch.zeros(*kept.shape, len(means), dtype=torch.bool)
    for g in range(len(means)):
        grid, least = nearest_distances(means[g], metrics[g], [0, 0, 0], list(kept.shape))
        lists[..., g] = (least <= radii[g] ** 2) & (radii[g] > 0)
    cells, seen = torch.zeros_like(kept), torch.zeros(len(means), dtype=torch.uint8)
    alpha, kept_alpha = torch.zeros(len(origins)), torch.zeros(len(origins))
    for ray, (origin, direction) in enumerate(zip(origins, directions, strict=True)):
        offset = origin - means
        a = torch.einsum("i,nij,j->n", direction, metrics, direction)
        b = torch.einsum("i,nij,nj->n", direction, metrics, offset)
        c = torch.einsum("ni,nij,nj->n", offset, metrics, offset)
        drawn = opacities * torch.exp(-0.5 * (c - b * b / a))
        thickness = torch.where(drawn >= ALPHA_MIN, -torch.log1p(-drawn), 0)
        faces = torch.cat([(torch.arange(n + 1) - origin[j]) / direction[j] for j, n in enumerate(kept.shape)])
        faces = torch.cat([torch.zeros(1), faces[torch.isfinite(faces) & (faces > 0)]]).sort().values
        transmittance, kept_thickness = 1.0, 0.0
        for t0, t1 in zip(faces[:-1], faces[1:], strict=True):
            cell = torch.floor(origin + 0.5 * (t0 + t1) * direction).long()
            if (cell < 0).any() or (cell >= torch.tensor(kept.shape)).any():
                continue
            x, y, z = cell.tolist()
            here = lists[x, y, z]
            ends = torch.special.ndtr((torch.stack([t0, t1])[:, None] + b / a) * a.sqrt())
            lost = (thickness * (ends[1] - ends[0]))[here].sum().item()
            seen |= (here & (-b / a >= t0) & (-b / a < t1) & (drawn * transmittance > ALPHA_MIN)).to(torch.uint8)
            weight = transmittance * -math.expm1(-lost)
            cells[x, y, z] |= weight > ALPHA_MIN
            transmittance -= weight
            kept_thickness += lost if kept[x, y, z] else 0.0
            if transmittance < _OPEN:
                break
        alpha[ray], kept_alpha[ray] = 1 - transmittance, -math.expm1(-kept_thickness)
    return Visibility(cells, seen, alpha, kept_alpha)


def _trace_numba(means, metrics, opacities, radii, origins, directions, kept) -> Visibility:
    shape = np.array(kept.shape)
    bounds = cell_ranges(means, torch.linalg.inv(metrics), radii, tuple(kept.shape))
    shapes = [part.contiguous().numpy() for part in (means, metrics, radii)]
    starts, members = _cell_lists(*shapes, bounds.numpy(), shape)
    cells, seen = torch.zeros_like(kept), torch.zeros(len(means), dtype=torch.uint8)
    alpha, kept_alpha = torch.zeros(len(origins)), torch.zeros(len(origins))
    arrays = [part.contiguous().numpy() for part in (opacities, origins, directions, kept)]
    parallel_for(
        _trace, len(origins), *shapes[:2], *arrays, starts, members,
        cells.numpy(), seen.numpy(), alpha.numpy(), kept_alpha.numpy(), grain=256,
    )  # fmt: skip
    return Visibility(cells, seen, alpha, kept_alpha)


@njit(cache=True, nogil=True, error_model="numpy")
def _cell_lists(means, metrics, radii, bounds, shape):
    """Gaussians that reach each cell, in their order: those of cell c are members[starts[c] : starts[c + 1]]."""
    starts = np.zeros(shape[0] * shape[1] * shape[2] + 2, np.int64)
    members = np.empty(0, np.int32)
    for writing in range(2):
        if writing:
            starts = np.cumsum(starts)
            members = np.empty(starts[-1], np.int32)
        for g in range(len(means)):
            if radii[g] <= 0:
                continue
            for x in range(bounds[g, 0, 0], bounds[g, 1, 0]):
                for y in range(bounds[g, 0, 1], bounds[g, 1, 1]):
                    for z in range(bounds[g, 0, 2], bounds[g, 1, 2]):
                        squared = squared_distance_to_cell(
                            metrics[g], x - means[g, 0], y - means[g, 1], z - means[g, 2]
                        )
                        if squared <= radii[g] * radii[g]:
                            # starts[cell + 1] runs from the cell's first slot to where the next cell's begin.
                            cell = (x * shape[1] + y) * shape[2] + z
                            if writing:
                                members[starts[cell + 1]] = g
                                starts[cell + 1] += 1
                            else:
                                starts[cell + 2] += 1
    return starts, members


@njit(cache=True, nogil=True, error_model="numpy")
def _enter(origin, direction, shape):
    """Where a ray is inside the grid, in cells along it; empty when the second is not larger."""
    near, far = 0.0, np.inf
    for j in range(3):
        if direction[j] != 0:
            a, b = -origin[j] / direction[j], (shape[j] - origin[j]) / direction[j]
            near, far = max(near, min(a, b)), min(far, max(a, b))
        elif not 0 <= origin[j] < shape[j]:
            return 0.0, 0.0
    return near, far


@njit(cache=True, nogil=True, error_model="numpy")
def _exit(origin, direction, cell):
    """Where a ray leaves a cell, and by which axis."""
    leave, axis = np.inf, 0
    for j in range(3):
        if direction[j] != 0:
            t = (cell[j] + (direction[j] > 0) - origin[j]) / direction[j]
            if t < leave:
                leave, axis = t, j
    return leave, axis


@njit(cache=True, nogil=True, error_model="numpy")
def _on_ray(m, mean, opacity, origin, direction):
    """Where a Gaussian peaks on a ray, its standard deviation along it, and its alpha."""
    a, b, c = 0.0, 0.0, 0.0
    for i in range(3):
        for j in range(3):
            a += direction[i] * m[i, j] * direction[j]
            b += direction[i] * m[i, j] * (origin[j] - mean[j])
            c += (origin[i] - mean[i]) * m[i, j] * (origin[j] - mean[j])
    return -b / a, 1 / math.sqrt(a), opacity * math.exp(-0.5 * (c - b * b / a))


@njit(cache=True, nogil=True, error_model="numpy")
def _trace(
    start, stop, means, metrics, opacities, origins, directions, kept, starts, members,
    cells, seen, alpha_out, kept_alpha_out,
):  # fmt: skip
    """The rays [start, stop). Threads share ``cells`` and ``seen``, into which all of them write nothing but 1."""
    shape, root = kept.shape, math.sqrt(0.5)
    cell = np.empty(3, np.int64)
    for ray in range(start, stop):
        origin, direction = origins[ray], directions[ray]
        near, far = _enter(origin, direction, shape)
        if far <= near:
            continue
        for j in range(3):
            cell[j] = min(max(int(math.floor(origin[j] + near * direction[j])), 0), shape[j] - 1)
        t0, transmittance, kept_thickness = near, 1.0, 0.0
        while transmittance >= _OPEN:
            t1, axis = _exit(origin, direction, cell)
            flat = (cell[0] * shape[1] + cell[1]) * shape[2] + cell[2]
            lost = 0.0
            for slot in range(starts[flat], starts[flat + 1]):
                g = members[slot]
                peak, std, alpha = _on_ray(metrics[g], means[g], opacities[g], origin, direction)
                if alpha < ALPHA_MIN:
                    continue
                if t0 <= peak < t1 and alpha * transmittance > ALPHA_MIN:
                    seen[g] = 1
                share = math.erf((t1 - peak) / std * root) - math.erf((t0 - peak) / std * root)
                lost -= 0.5 * share * math.log1p(-alpha)
            weight = -transmittance * math.expm1(-lost)
            if weight > ALPHA_MIN:
                cells[cell[0], cell[1], cell[2]] = 1
            transmittance -= weight
            if kept[cell[0], cell[1], cell[2]]:
                kept_thickness += lost
            cell[axis] += 1 if direction[axis] > 0 else -1
            if cell[axis] < 0 or cell[axis] >= shape[axis]:
                break
            t0 = t1
        alpha_out[ray], kept_alpha_out[ray] = 1 - transmittance, -math.expm1(-kept_thickness)
