"""The built-in teacher: a toy-brick off-roader by a ruined wall, made of Gaussians.

Parts are laid out in studs (1 = the distance between studs; a brick is 1.2 high, a plate 0.4), x forward, y to the
left, z up. Their surfaces are sampled as flat Gaussians; sun, sky and occlusion are baked into the colour, and the
gloss of plastic into its view-dependent spherical harmonics.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, radians, sqrt

import numpy as np
import torch
from torch import Tensor

from kernels.encoding.spherical_harmonics import sh_basis
from scene.cameras import Cameras
from scene.orbits import posed_cameras, spiral_rotations
from scene.rays import SceneBox
from teacher.bricks.solids import Box, Cut, Cylinder, Ring, Samples, Solid, Vector, join, select
from teacher.bricks.surfaces import SUN, diffuse_color, flat_gaussians, sky_reflection, visible_samples
from teacher.gaussians import Gaussians

BRICKS_BOX = SceneBox((-1.05, -0.82, -0.5), (1.05, 0.8, 0.62))

_STUD = 1 / 6  # world units
_CENTRE = (0.0, 0.0, 2.7)  # the world's origin, in studs
_SPACING = 0.105  # between Gaussians: three pixels of a 400 px image
_ORBIT_RADIUS = 4.0
_HALF_FOV = 21.0  # degrees

# Occlusion is read from the parts' density on a grid.
_GRID = ((-6.8, -5.3, -0.6), (6.8, 5.3, 7.0))
_CELL = 0.12

# Linear reflectances.
_RED, _ORANGE, _YELLOW = (0.62, 0.03, 0.03), (0.85, 0.2, 0.02), (0.85, 0.5, 0.03)
_WHITE, _GREY, _DARK, _TYRE = (0.6, 0.6, 0.57), (0.32, 0.34, 0.36), (0.07, 0.075, 0.085), (0.03, 0.03, 0.035)
_GREEN, _LEAF, _BLUE = (0.05, 0.26, 0.08), (0.1, 0.4, 0.05), (0.03, 0.14, 0.55)
_SAND, _BROWN, _ROAD = (0.6, 0.42, 0.22), (0.16, 0.07, 0.03), (0.12, 0.125, 0.135)

Part = tuple[Solid, Vector]


def build_bricks(seed: int = 0) -> Gaussians:
    """About 56,000 Gaussians of SH degree 3 inside ``BRICKS_BOX``, determined by ``seed`` (it tints the wall)."""
    solids, colors = zip(*_parts(np.random.default_rng(seed)), strict=True)
    samples = [solid.sample(_SPACING) for solid in solids]
    visible = visible_samples(solids, samples)
    albedo = np.concatenate([np.tile(color, (mask.sum(), 1)) for color, mask in zip(colors, visible, strict=True)])
    surface = join([select(part, mask) for part, mask in zip(samples, visible, strict=True)])
    points, normals, spacing, albedo = (torch.from_numpy(array).float() for array in (*surface, albedo))
    sh = _shade(points, normals, albedo, _Light(solids, samples))
    return flat_gaussians((points - torch.tensor(_CENTRE)) * _STUD, normals, spacing * _STUD, sh)


def orbit_cameras(frames: int, width: int, height: int, seed: int = 0) -> Cameras:
    """Cameras around the bricks that see all of them: from 8 degrees under the horizon up to 72 over it.

    They are evenly spread over the sphere (see ``spiral_rotations``); ``seed`` turns them about the vertical. Every
    frame looks at the origin from 4 units away.
    """
    start = np.random.default_rng(seed).uniform(0, 2 * pi)
    rotations = spiral_rotations(frames, -8.0, 72.0, np.array([0.0, 0.0, 1.0]), start)
    return posed_cameras(rotations, _ORBIT_RADIUS * rotations[:, :, 2], radians(_HALF_FOV), width, height)


def _parts(rng: np.random.Generator) -> Iterator[Part]:
    yield from _ground()
    yield from _wall(rng)
    yield from _tree(-4.2, 3.0)
    yield from _car(-1.0, 0.55)


def _stud(x: float, y: float, z: float, color: Vector) -> Part:
    return Cylinder((x, y, z), 2, 0.3, 0.2), color


def _ground() -> Iterator[Part]:
    yield Box((-6, -4.5, 0), (6, 4.5, 0.4)), _GREEN
    for x in np.arange(-5.5, 6):
        for y in (-4, 2, 3, 4):
            yield _stud(x, y, 0.4, _GREEN)
    yield Box((-6, -3.5, 0.4), (6, 1.5, 0.55)), _ROAD
    for x in (-5, -3, -1, 1, 3, 5):
        yield Box((x - 0.6, -1.18, 0.55), (x + 0.6, -0.82, 0.61)), _WHITE
    # Road sign.
    yield Cylinder((5.3, -4, 0.4), 2, 0.09, 3.2), _GREY
    yield Cylinder((5.4, -4, 3.2), 0, 0.55, 0.08), _WHITE
    yield Ring((5.44, -4, 3.2), 0, 0.55, 0.1), _RED


def _wall(rng: np.random.Generator) -> Iterator[Part]:
    """Courses of bricks with an arch and a window with a cross in it."""
    holes = (Cylinder((2.5, 2, 2.2), 1, 1.2, 2), Box((1.3, 2, 0.3), (3.7, 4, 2.2)), Box((4.4, 2, 1.6), (5.5, 4, 2.9)))
    for course, (start, end) in enumerate(((0, 6), (0, 6), (0, 6), (1, 4))):
        z = 0.4 + 1.2 * course
        edges = [start, *np.arange(start + 1 + course % 2, end, 2), end]
        for left, right in zip(edges[:-1], edges[1:], strict=True):
            tint = np.array(_SAND) * rng.uniform(0.85, 1.1)
            yield Cut(Box((left, 2.5, z), (right, 3.5, z + 1.2)), holes), tuple(tint)
    for x, z in ((0.5, 4), (1.5, 5.2), (2.5, 5.2), (3.5, 5.2), (4.5, 4), (5.5, 4)):
        yield _stud(x, 3, z, _SAND)
    yield Box((4.9, 2.9, 1.6), (5.0, 3.1, 2.9)), _WHITE
    yield Box((4.4, 2.9, 2.2), (5.5, 3.1, 2.3)), _WHITE


def _tree(x: float, y: float) -> Iterator[Part]:
    yield Cylinder((x, y, 0.4), 2, 0.4, 1.0), _BROWN
    for level, radius in enumerate((1.4, 1.1, 0.8, 0.5)):
        yield Cylinder((x, y, 1.4 + 0.8 * level), 2, radius, 0.8), _LEAF
    yield _stud(x, y, 4.6, _LEAF)


def _wheel(centre: Vector, axis: int, outward: float, radius: float, width: float) -> Iterator[Part]:
    """A tyre and its hub, from ``centre`` of the inner cap outwards: +1 or -1 along ``axis``."""
    for reach, share, color in ((0.0, 1.0, _TYRE), (0.06, 0.6, _GREY), (0.16, 0.2, _YELLOW)):
        length = width + reach
        base = np.array(centre)
        base[axis] -= length if outward < 0 else 0.0
        yield Cylinder(tuple(base), axis, share * radius, length), color


def _car(y: float, z: float) -> Iterator[Part]:
    """The off-roader with its middle line at ``y`` and the road at ``z``."""

    def box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, color: Vector) -> Part:
        return Box((x0, y + min(y0, y1), z + z0), (x1, y + max(y0, y1), z + z1)), color

    # Chassis, hull, hood, bumpers and grille.
    yield box(-4.0, 4.0, -1.1, 1.1, 0.7, 1.1, _DARK)
    yield box(-3.9, 3.9, -1.4, 1.4, 1.1, 2.2, _RED)
    yield box(0.9, 3.7, -1.3, 1.3, 2.2, 3.0, _RED)
    yield box(4.0, 4.3, -1.7, 1.7, 0.75, 1.05, _GREY)
    yield box(-4.3, -4.0, -1.7, 1.7, 0.75, 1.05, _GREY)
    yield box(3.9, 3.96, -0.7, 0.7, 1.3, 2.0, _DARK)
    for bar in (-0.45, -0.15, 0.15, 0.45):
        yield box(3.96, 4.02, bar - 0.05, bar + 0.05, 1.3, 2.0, _GREY)
    for side in (-1.0, 1.0):
        # Headlight, wheels under fenders, roof posts, wall of the bed, seat.
        yield Cylinder((3.9, y + side * 1.05, z + 1.65), 0, 0.27, 0.15), _YELLOW
        for x in (-2.45, 2.45):
            yield from _wheel((x, y + side * 1.2, z + 1.1), 1, side, 1.1, 0.9)
            yield box(x - 1.3, x + 1.3, side * 1.4, side * 2.2, 2.3, 2.5, _DARK)
        yield box(0.7, 0.9, side * 1.15, side * 1.35, 2.2, 3.9, _DARK)
        yield box(-2.1, -1.9, side * 1.15, side * 1.35, 2.2, 3.9, _DARK)
        yield box(-3.9, -2.1, side * 1.2, side * 1.4, 2.2, 2.9, _RED)
        yield box(-1.7, -0.6, side * 0.2, side * 1.0, 2.2, 2.6, _SAND)
        yield box(-1.8, -1.5, side * 0.2, side * 1.0, 2.6, 3.4, _SAND)
        for x in (1.8, 2.8):
            yield _stud(x, y + side * 0.5, z + 3.0, _RED)
        for x in (-1.6, -0.6):
            yield _stud(x, y + side * 0.5, z + 4.15, _WHITE)
    # Dashboard, steering wheel, roof and beacon.
    yield box(0.3, 0.9, -1.15, 1.15, 2.2, 2.8, _DARK)
    yield Ring((0.0, y + 0.6, z + 3.0), 0, 0.4, 0.08), _DARK
    yield Cylinder((0.0, y + 0.6, z + 2.7), 0, 0.08, 0.3), _DARK
    yield box(-2.3, 1.1, -1.4, 1.4, 3.9, 4.15, _WHITE)
    yield Cylinder((0.4, y, z + 4.15), 2, 0.28, 0.4), _ORANGE
    # The bed with its load, spare wheel and antenna.
    yield box(-3.9, -3.7, -1.2, 1.2, 2.2, 2.9, _RED)
    yield box(-3.6, -2.5, -1.0, 0.0, 2.2, 3.3, _BLUE)
    yield _stud(-3.05, y - 0.5, z + 3.3, _BLUE)
    yield Cylinder((-2.9, y + 0.6, z + 2.2), 2, 0.45, 0.9), _YELLOW
    yield from _wheel((-3.9, y, z + 1.9), 0, -1.0, 0.8, 0.4)
    yield Cylinder((-3.8, y - 1.3, z + 2.9), 2, 0.07, 2.4), _DARK
    yield Cylinder((-3.8, y - 1.3, z + 5.3), 2, 0.15, 0.25), _ORANGE


class _Light:
    """How much of the sun and of the sky reaches a point, from the parts' density on a grid."""

    def __init__(self, solids: list[Solid], samples: list[Samples]) -> None:
        axes = [np.arange(low, high, _CELL) for low, high in zip(*_GRID, strict=True)]
        centres = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
        density = np.zeros(centres.shape[:3], dtype=np.float32)
        for solid, (points, _, _) in zip(solids, samples, strict=True):
            first = np.floor((points.min(axis=0) - _GRID[0]) / _CELL).astype(int).clip(0)
            last = np.ceil((points.max(axis=0) - _GRID[0]) / _CELL).astype(int) + 1
            block = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
            inside = solid.contains(centres[block].reshape(-1, 3)).reshape(density[block].shape)
            density[block] = np.maximum(density[block], inside)
        self._fine = self._blur(torch.from_numpy(density)[None, None], 1)
        self._medium = self._blur(self._fine, 2)
        self._coarse = self._blur(self._medium, 5)

    def sun(self, points: Tensor, normals: Tensor) -> Tensor:
        """(M, 1) soft shadow: 1 is lit, 0 is dark."""
        steps = 0.3 * (torch.arange(16)[:, None, None] + 0.5) * torch.tensor(SUN)
        return torch.exp(-1.8 * self._sample(self._fine, points + 0.3 * normals + steps).sum(0))[:, None]

    def sky(self, points: Tensor, normals: Tensor) -> Tensor:
        """(M, 1) ambient occlusion: 1 is open."""
        near = self._sample(self._fine, points + 0.25 * normals)
        middle = self._sample(self._medium, points + 0.5 * normals)
        far = self._sample(self._coarse, points + 1.2 * normals)
        return torch.exp(-0.3 * near - 0.9 * middle - 1.6 * far)[:, None]

    @staticmethod
    def _blur(density: Tensor, radius: int) -> Tensor:
        for axis in range(3):
            size = [2 * radius + 1 if other == axis else 1 for other in range(3)]
            density = torch.nn.functional.avg_pool3d(density, size, stride=1, padding=[n // 2 for n in size])
        return density

    @staticmethod
    def _sample(field: Tensor, points: Tensor) -> Tensor:
        """(..., 3) points -> (...) trilinear density, 0 outside the grid."""
        extent = torch.tensor([(size - 1) * _CELL for size in field.shape[2:]])
        at = (points - torch.tensor(_GRID[0])) * (2 / extent) - 1
        grid = at.flip(-1).reshape(1, 1, 1, -1, 3)
        return torch.nn.functional.grid_sample(field, grid, align_corners=True).reshape(points.shape[:-1])


def _shade(points: Tensor, normals: Tensor, albedo: Tensor, light: _Light) -> Tensor:
    """(M, 16, 3) spherical harmonics of sRGB colour for the direction d from the camera."""
    toward_sun = torch.tensor(SUN)
    facing = (normals @ toward_sun).clamp(min=0)[:, None]
    sun, sky = light.sun(points, normals), light.sky(points, normals)

    # Reflection of the sun: a lobe around its mirror direction, as narrow as degree 3 holds without ringing.
    degree = torch.tensor([0.0] + [1.0] * 3 + [2.0] * 5 + [3.0] * 7)
    fall = torch.exp(-degree * (degree + 1) / 14)
    mirror = sh_basis(toward_sun - 2 * (normals @ toward_sun)[:, None] * normals, 3)
    gloss = 0.35 * sun * (facing > 0) * mirror * fall * (4 * pi / fall.sum())
    gloss[:, 1:4] += sky_reflection(normals, 0.06 * sky)

    sh = gloss[:, :, None].repeat(1, 1, 3)
    sh[:, 0] += (diffuse_color(albedo, normals, sun, sky) + 0.03 * sky - 0.5) * sqrt(4 * pi)
    return sh
