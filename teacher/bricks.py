"""The built-in teacher: a toy-brick off-roader on a base plate, made of Gaussians.

Solids are sampled as flat Gaussians on their surfaces; sun, sky and occlusion are baked into the colour, and a glossy
highlight into the view-dependent spherical harmonics. Parts are laid out in studs (1 = the pitch of the studs; a brick is
1.2 high, a plate 0.4), x forward, y to the left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch

from kernels.spherical_harmonics import sh_basis
from scene.cameras import Cameras
from scene.rays import SceneBox
from teacher.gaussians import Gaussians

BRICKS_BOX = SceneBox((-1.05, -0.8, -0.05), (1.05, 0.8, 1.3))

PITCH = 1 / 6
_BRICK, _PLATE, _STUD_RADIUS, _STUD_HEIGHT = 1.2, 0.4, 0.3, 0.2
_SPACING = 0.09

_RED, _DARK, _TYRE, _GREY = (0.72, 0.06, 0.05), (0.07, 0.075, 0.085), (0.035, 0.035, 0.04), (0.42, 0.44, 0.46)
_WHITE, _YELLOW, _BLUE, _GREEN = (0.82, 0.82, 0.78), (0.9, 0.55, 0.04), (0.04, 0.18, 0.6), (0.08, 0.34, 0.09)
_SAND, _BROWN, _LEAF, _ORANGE = (0.62, 0.48, 0.28), (0.2, 0.09, 0.04), (0.14, 0.45, 0.08), (0.85, 0.25, 0.03)


@dataclass(frozen=True)
class _Solid:
    """A convex part: surface samples (M, 3) with unit normals, and the test that a point is inside."""

    points: np.ndarray
    normals: np.ndarray
    spacing: float
    color: tuple[float, float, float]
    contains: object
