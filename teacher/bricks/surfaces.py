"""From the surfaces of solids to Gaussians: what is hidden, how it is lit, and its flat Gaussians."""

from __future__ import annotations

from collections.abc import Sequence
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor

from teacher.bricks.solids import Samples, Solid
from teacher.gaussians import Gaussians

SUN = (0.434, -0.521, 0.735)
"""Unit vector towards it."""

_SUNLIGHT, _SKYLIGHT, _GROUNDLIGHT = (0.85, 0.81, 0.73), (0.5, 0.54, 0.6), (0.3, 0.28, 0.25)
_OPACITY = 0.95
_WIDTHS = (0.65, 0.65, 0.1)  # standard deviations, of the distance between neighbours


def visible_samples(solids: Sequence[Solid], samples: Sequence[Samples]) -> list[np.ndarray]:
    """For each solid, which of its samples (M,) are not covered by another one."""
    probes = [points + 0.01 * normals for points, normals, _ in samples]
    boxes = np.array([(points.min(axis=0), points.max(axis=0)) for points in probes])
    visible = []
    for index, points in enumerate(probes):
        near = ((boxes[:, 0] < boxes[index, 1]) & (boxes[:, 1] > boxes[index, 0])).all(axis=1)
        near[index] = False
        covered = np.zeros(len(points), dtype=bool)
        for other in np.flatnonzero(near):
            covered |= solids[other].contains(points)
        visible.append(~covered)
    return visible


def flat_gaussians(points: Tensor, normals: Tensor, spacing: Tensor, sh: Tensor) -> Gaussians:
    """A flat Gaussian for each sample of a surface, wide enough that they close it.

    Args:
        points: (M, 3) world units.
        normals: (M, 3) unit vectors.
        spacing: (M,) the distance between neighbours, world units.
        sh: (M, K, 3) as ``Gaussians.sh``.
    """
    # The shortest turn from z to the normal; straight down it is half a turn about x.
    x, y, z = normals.unbind(1)
    rotations = torch.stack([1 + z, -y, x, torch.zeros_like(x)], dim=1)
    rotations[z < -1 + 1e-6] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return Gaussians(
        means=points,
        log_scales=(spacing[:, None] * torch.tensor(_WIDTHS)).log(),
        rotations=torch.nn.functional.normalize(rotations, dim=1),
        opacity_logits=torch.full((len(points),), _OPACITY).logit(),
        sh=sh,
    )


def diffuse_color(albedo: Tensor, normals: Tensor, sun: Tensor, sky: Tensor) -> Tensor:
    """(M, 3) sRGB of a matt surface under the sun and the sky.

    Args:
        albedo: (M, 3) linear reflectance.
        sun: (M, 1) how much of the sun reaches it: 1 is lit, 0 is in shadow.
        sky: (M, 1) how much of the sky does: 1 is open.
    """
    facing = (normals @ torch.tensor(SUN)).clamp(min=0)[:, None]
    ambient = torch.lerp(torch.tensor(_GROUNDLIGHT), torch.tensor(_SKYLIGHT), 0.5 + 0.5 * normals[:, 2:])
    return (albedo * (sky * ambient + sun * facing * torch.tensor(_SUNLIGHT))) ** (1 / 2.2)


def sky_reflection(normals: Tensor, strength: Tensor) -> Tensor:
    """(M, 3) coefficients of degree 1 of the sky's reflection, the same for red, green and blue.

    It grows with the height of the reflected direction d - 2 (d . n) n, which is linear in d.

    Args:
        strength: (M, 1) how much brighter straight up is than the horizon, sRGB.
    """
    gradient = strength * (torch.tensor([0.0, 0.0, 1.0]) - 2 * normals[:, 2:] * normals) * sqrt(4 * pi / 3)
    x, y, z = gradient.unbind(1)
    return torch.stack([-y, z, -x], dim=1)
