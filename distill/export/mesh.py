"""A student's surface as triangles: marching cubes on its density, colours at the vertices.

The volume that the surface is found in holds alphas over one cell of the mesh, 1 - exp(-density * cell), which vary
less steeply than densities do; cells that no sample is ever taken in are empty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import marching_cubes
from torch import Tensor

from distill.model.model import Model
from distill.rendering.renderer import render_rays
from machine.memory import GIB, available_bytes
from scene.rays import Rays
from settings.errors import InputError

_POINTS, _RAYS = 1 << 18, 1 << 14  # asked at a time
_BYTES_PER_POINT = 16  # the volume, marching cubes' copy of it, and what is made on the way
_BEFORE, _BEHIND = 2.0, 4.0  # where the ray of a vertex's colour begins and ends, cells of the mesh
_LEAST_ALPHA = 0.05  # of such a ray; of less the colour is that of the point itself


class Mesh(NamedTuple):
    """Triangles: vertices (V, 3) world, unit normals (V, 3) outwards, colors (V, 3) sRGB in [0, 1], all float32;
    faces (F, 3) int64, anticlockwise seen from outside.
    """

    vertices: Tensor
    normals: Tensor
    colors: Tensor
    faces: Tensor


class DensityVolume:
    """What surfaces of a student are found in.

    Args:
        resolution: cells along the box's longest side.

    Raises:
        InputError: too many cells for the memory, or the student has a far field.
    """

    def __init__(self, model: Model, resolution: int) -> None:
        if model.far_field is not None:
            found = "a student with a far field, which has no surface"
            raise InputError("--mesh", "far_field", found, "a student of what is in its box")
        self.model, self.cell = model, max(model.grid.box.extent) / resolution
        self._alphas = _volume(model, self.cell)

    @property
    def highest(self) -> float:
        """The largest density that is held, 1 / world unit."""
        return -math.log1p(-min(float(self._alphas.max()), 1 - 1e-7)) / self.cell

    def surface(self, density: float) -> Mesh:
        """Where the student's density is a given one, without colours, on the CPU.

        Raises:
            InputError: it is nowhere as high.
        """
        if not 0 < density < self.highest:
            hint = "Lower --mesh-density; tools/check_alignment.py says whether the student has learnt anything."
            expected = f"less than the largest, {self.highest:.4g}"
            raise InputError("--mesh-density", "density", f"{density:.4g}", expected, hint)
        level = -math.expm1(-density * self.cell)
        sides = {"spacing": (self.cell,) * 3, "gradient_direction": "ascent"}  # faces look towards less
        vertices, faces, normals, _ = marching_cubes(self._alphas, level, **sides)
        lower = np.array(self.model.grid.box.lower) - self.cell  # the volume has an empty layer about it
        vertices, normals = torch.from_numpy(vertices + lower).float(), torch.from_numpy(normals.copy())
        normals = torch.nn.functional.normalize(normals, dim=-1)
        return Mesh(vertices, normals, torch.zeros_like(vertices), torch.from_numpy(faces.astype(np.int64)))

    @torch.no_grad()
    def colored(self, mesh: Mesh) -> Mesh:
        """A surface with the colours that the student shows to one who looks at it straight on.

        A vertex has that of a ray against its normal through a few cells about it. What changes with the direction is
        lost.
        """
        parts = zip(mesh.vertices.split(_RAYS), mesh.normals.split(_RAYS), strict=True)
        return mesh._replace(colors=torch.cat([_seen(self.model, *part, self.cell) for part in parts]))


@torch.no_grad()
def _volume(model: Model, cell: float) -> np.ndarray:
    """Alphas over a cell at points a cell apart, float32, with an empty layer all around."""
    box, device = model.grid.box, model.grid.occupied.device
    shape = [math.ceil(side / cell - 1e-4) + 1 for side in box.extent]
    free, needed = available_bytes(), math.prod(shape) * _BYTES_PER_POINT
    if free is not None and needed > free:
        found = f"{'x'.join(map(str, shape))} points, which take {needed / GIB:,.1f} GiB"
        raise InputError("--mesh-cells", "cells", found, f"at most the {free / GIB:.1f} GiB that are free")
    volume = np.zeros([count + 2 for count in shape], np.float32)
    axes = [low + cell * torch.arange(count, device=device) for low, count in zip(box.lower, shape, strict=True)]
    inner = volume[1:-1, 1:-1, 1:-1]
    slices = max(1, _POINTS // (shape[1] * shape[2]))
    for start in range(0, shape[0], slices):
        points = torch.stack(torch.meshgrid(axes[0][start : start + slices], *axes[1:], indexing="ij"), dim=-1)
        asked = model.grid.occupied_at(points.reshape(-1, 3))
        alpha = torch.zeros(len(asked), device=device)
        if asked.any():
            alpha[asked] = -torch.expm1(-model.student.density(points.reshape(-1, 3)[asked].contiguous()) * cell)
        inner[start : start + slices] = alpha.view(points.shape[:3]).cpu().numpy()
    return volume


def _seen(model: Model, vertices: Tensor, normals: Tensor, cell: float) -> Tensor:
    """(V, 3) colours that the student shows of its surface to one who looks straight at it."""
    device = model.grid.occupied.device
    vertices, directions = vertices.to(device), -normals.to(device)
    near = vertices.new_zeros(len(vertices))
    rays = Rays(vertices - _BEFORE * cell * directions, directions, near, near + (_BEFORE + _BEHIND) * cell)
    rendered = render_rays(model.student, model.grid, rays, model.settings, seed=0).composite
    _, own = model.student(vertices, directions, torch.arange(len(vertices), device=device))
    share = rendered.alpha[:, None]
    return torch.where(share < _LEAST_ALPHA, own, rendered.rgb / share.clamp(min=_LEAST_ALPHA)).clamp(0, 1).cpu()
