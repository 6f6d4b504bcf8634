"""Samples along rays outside a box: steps grow with the distance from it, and empty contracted cells are left out.

A ray has two parts: before the box, from its origin's side, and behind it. Both are cut into bins from the box on; bin
k ends at ``edges[k + 1]`` (instant-ngp's cone, Müller et al. 2022, with its apex at the box's middle, since the cells
of contracted space grow so).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.device_constants import constant
from kernels.dispatch import resolve
from kernels.marching.contraction import contract, radius_of
from kernels.marching.far_marching_numba import march_far_numba
from kernels.marching.ray_marching import place_in_bins
from kernels.marching.ray_samples import Cells


class FarSamples(NamedTuple):
    """Packed samples of 2R parts of rays, front to back in each: those before the box of R rays, then those behind.

    Those of part p are ``offsets[p] : offsets[p + 1]``.
    """

    positions: Tensor  # (N, 3) contracted
    t: Tensor  # (N,) distance along the ray, world units
    dt: Tensor  # (N,) the bin's length as a share of the distance from the box's middle, at least half a side
    ray_index: Tensor  # (N,) int64 in [0, R)
    offsets: Tensor  # (2R + 1,) int64


def bin_edges(half: float, growth: float, reach: float) -> list[float]:
    """Distances from the box between which bins lie: the k-th is ``half * ((1 + growth)^k - 1)``, up to ``reach``."""
    bins = math.ceil(math.log1p(reach / half) / math.log1p(growth) - 1e-6)
    return [half * ((1 + growth) ** k - 1) for k in range(bins + 1)]


def march_far(
    origins: Tensor,
    directions: Tensor,
    starts: Tensor,
    lengths: Tensor,
    cells: Cells,
    *,
    middle: tuple[float, float, float],
    half: float,
    edges: tuple[float, ...],
    seed: int | Tensor | None = None,
    implementation: str = "auto",
) -> FarSamples:
    """Places one sample in each bin whose sample's cell is occupied.

    Args:
        origins, directions: (R, 3) world; directions are unit.
        starts: (2, R) distance along the ray from which the parts before and behind the box go away from it.
        lengths: (2, R) how far they go; 0 for no samples.
        cells: over the contracted cube.
        middle, half: the box's middle, and half of its longest side, world units.
        edges: see ``bin_edges``.
        seed: a random place in all bins of a part, as for ``ray_marching.march``; None takes the centres.
        implementation: "auto", "torch" or "numba".
    """
    name = resolve("far_marching", implementation, origins.device, ("torch", "numba"))
    run = march_far_numba if name == "numba" else _march_far_torch
    return FarSamples(*run(origins, directions, starts, lengths, cells, middle, half, edges, seed))


def _march_far_torch(origins, directions, starts, lengths, cells, middle, half, edges, seed):
    device, rays, bins = origins.device, len(origins), len(edges) - 1
    edge = constant(edges, device)
    k = torch.arange(bins, device=device)
    k = torch.stack([k.flip(0), k])[:, None].expand(2, rays, bins)  # from the origin on
    ray = torch.arange(rays, device=device)[:, None].expand(2, rays, bins)
    part = torch.tensor([[[0]], [[rays]]], device=device)
    place = 0.5 if seed is None else place_in_bins(ray + part, seed)
    size = edge[k + 1] - edge[k]
    away = edge[k] + place * size
    t = starts[..., None] + away * constant((-1.0, 1.0), device)[:, None, None]
    offset = (origins[:, None] + t[..., None] * directions[:, None] - constant(middle, device)) * (1 / half)
    contracted, radius = contract(offset), radius_of(offset)[..., 0]
    last = constant(tuple(extent - 1 for extent in cells.occupied.shape), device, torch.int64)
    cell = torch.floor((contracted - constant(cells.lower, device)) * (1 / cells.size)).long()
    x, y, z = cell.clamp(min=0).minimum(last).unbind(-1)
    keep = (away < lengths[..., None]) & (cells.occupied[x, y, z] != 0)
    offsets = F.pad(keep.sum(-1).flatten().cumsum(0), (1, 0))
    return contracted[keep], t[keep], (size / (half * radius))[keep], ray[keep], offsets
