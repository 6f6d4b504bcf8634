"""Pictures of how a student is sampled: how many samples a ray takes, and which cells are taken for occupied."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.model.model import Model
from kernels.marching.ray_marching import march
from kernels.marching.ray_samples import Samples
from scene.rays import Rays

_FACES = (0.6, 0.45, 0.75)  # brightness of a cell's faces across x, y and z; no background is like one
_CHECKER = 0.88  # of every other cell, so that neighbours can be told apart


@torch.no_grad()
def samples_per_ray(model: Model, rays: Rays) -> Tensor:
    """(R,) int64 samples until a ray ends: in occupied cells, up to the one that takes its transmittance to the
    termination, as the fused renderer takes them.
    """
    settings = model.settings.of_pictures()
    most = min(settings.max_samples_per_ray, model.grid.cells.most_bins(settings.step))
    counts, together = [], max(1, settings.max_batch_samples // most)
    for start in range(0, len(rays), together):
        part = rays[slice(start, start + together)]
        samples = _march(model, part, settings.max_samples_per_ray)
        density = model.student.density(samples.positions, part.directions[samples.ray_index])
        thickness = (density * samples.dt).double()
        before = torch.cat([thickness.new_zeros(1), thickness.cumsum(0)])
        transmittance = torch.exp(before[samples.offsets][samples.ray_index] - before[:-1])
        taken = samples.ray_index[transmittance > settings.termination]
        counts.append(torch.bincount(taken, minlength=len(part)))
    return torch.cat(counts) if counts else rays.near.new_zeros(0, dtype=torch.int64)


def occupied_faces(model: Model, rays: Rays) -> Tensor:
    """(R,) brightness, 0 to 1, of the face of the first occupied cell that a ray takes a sample in; 0: of none."""
    samples, grid = _march(model, rays, 1), model.grid
    place = (samples.positions - samples.positions.new_tensor(grid.box.lower)) / grid.cell_size
    cell = place.floor()
    direction = rays.directions[samples.ray_index]
    # The ray has come in by the face that it met last on its way back.
    inside = torch.where(direction > 0, place - cell, 1 - (place - cell)) / direction.abs().clamp(min=1e-9)
    brightness = place.new_tensor(_FACES)[inside.argmin(dim=-1)]
    odd = cell.sum(dim=-1).long() % 2 == 1
    faces = torch.zeros(len(rays), device=place.device)
    faces[samples.ray_index] = torch.where(odd, _CHECKER * brightness, brightness)
    return faces


def _march(model: Model, rays: Rays, limit: int) -> Samples:
    parts, settings = (rays.origins, rays.directions, rays.near, rays.far), model.settings.of_pictures()
    return march(*parts, model.grid.cells, step=settings.step, limit=limit, implementation=settings.implementation)
