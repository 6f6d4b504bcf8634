"""A procedural city of any extent, as 3D Gaussians: streets with cars, towers, courtyards, houses, parks, trees.

It is made lot by lot, each by the seed and its own coordinates alone: a larger city holds the smaller one bit for bit,
and none has to be in memory whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import pi, sqrt

import numpy as np
import torch

from scene.rays import SceneBox
from teacher.bricks.city_lots import LOT, PAVEMENT, ROAD, STOREY, Lot, build_lot, lot_rng
from teacher.bricks.solids import Box, Cylinder, Samples, join, select
from teacher.bricks.surfaces import SUN, diffuse_color, flat_gaussians, sky_reflection, visible_samples
from teacher.gaussians import Gaussians

_GROUND = 3.0  # thickness of what is sampled of it, metres
_MARGIN = 1.0  # of the scene box, metres
_NEIGHBOURS = 2  # lots that the longest shadow reaches
_LEAST_CASTER = 9.0  # metres: the shadow of what is no higher ends on its own lot
_WINDOW = (0.07, 0.1, 0.14)  # linear reflectance
_ASPHALT, _PAVED, _LINE = (0.1, 0.1, 0.11), (0.42, 0.41, 0.39), 0.7
_YARD, _GRASS = (0.28, 0.27, 0.25), (0.16, 0.3, 0.08)


@dataclass(frozen=True)
class City:
    """``lots`` columns and rows of lots, the first with its corner at the origin.

    Attributes:
        seed: two cities of one seed and spacing are the same wherever both are.
        spacing: between neighbouring Gaussians, metres; a lot has about 3,000 at 1.5, and four times as many at half.
    """

    lots: tuple[int, int]
    seed: int = 0
    spacing: float = 1.5

    @property
    def box(self) -> SceneBox:
        """Around all of it, metres."""
        top = max(self._lot(*place).bounds[:, 1, 2].max() for place in self.places())
        ends = self.lots[0] * LOT, self.lots[1] * LOT, float(top)
        return SceneBox((-_MARGIN,) * 3, tuple(end + _MARGIN for end in ends))

    def places(self) -> Iterator[tuple[int, int]]:
        """Column and row of each lot, row by row."""
        return ((column, row) for row in range(self.lots[1]) for column in range(self.lots[0]))

    def parts(self) -> Iterator[Gaussians]:
        """The Gaussians of each lot, of SH degree 1, in the order of ``places``."""
        return (self.lot_gaussians(*place) for place in self.places())

    def lot_gaussians(self, column: int, row: int) -> Gaussians:
        """The Gaussians of one lot, metres in the city's world."""
        lot = self._lot(column, row)
        surface, albedo, gloss = self._surface(lot, lot_rng(self.seed, column, row, 2))
        points, normals, spacing = (torch.from_numpy(array).float() for array in surface)
        sun = torch.from_numpy(_lit(surface, self._casters(column, row))).float()[:, None]
        # Walls see less of the sky the nearer they are to the ground.
        sky = 0.55 + 0.45 * (points[:, 2:] / 15).clamp(0, 1) + 0.25 * normals[:, 2:].clamp(min=0)
        color = diffuse_color(torch.from_numpy(albedo).float(), normals, sun, sky.clamp(max=1))
        sh = torch.zeros(len(points), 4, 3)
        sh[:, 0] = (color - 0.5) * sqrt(4 * pi)
        sh[:, 1:] = sky_reflection(normals, torch.from_numpy(gloss).float())[:, :, None]
        return flat_gaussians(points, normals, spacing, sh)

    def is_free(self, points: np.ndarray, margin: float) -> np.ndarray:
        """(M, 3) points -> (M,) bool: whether each is over the ground and ``margin`` metres away from all solids."""
        free = points[:, 2] > margin
        places = np.floor(points[:, :2] / LOT).astype(int)
        for place in np.unique(places, axis=0):
            here = (places == place).all(axis=1)
            boxes = self._bounds_near(*place.tolist(), 1)
            inside = (points[here, None] > boxes[:, 0] - margin) & (points[here, None] < boxes[:, 1] + margin)
            free[here] &= ~inside.all(axis=2).any(axis=1)
        return free

    def _lot(self, column: int, row: int) -> Lot:
        return build_lot(self.seed, column, row)

    def _bounds_near(self, column: int, row: int, reach: int) -> np.ndarray:
        """(P, 2, 3) of the parts of the city's lots at most ``reach`` away."""
        columns = range(max(0, column - reach), min(self.lots[0], column + reach + 1))
        rows = range(max(0, row - reach), min(self.lots[1], row + reach + 1))
        near = [self._lot(x, y).bounds for y in rows for x in columns]
        return np.concatenate([np.empty((0, 2, 3)), *near])

    def _casters(self, column: int, row: int) -> np.ndarray:
        """(P, 2, 3) of what may be between a lot and the sun.

        Neighbours beyond the city's end cast shadows too: else a lot would depend on the extent.
        """
        east, north = np.sign(SUN[:2]).astype(int)
        casters = []
        for x, y in np.ndindex(_NEIGHBOURS + 1, _NEIGHBOURS + 1):
            bounds = self._lot(column + east * x, row + north * y).bounds
            casters.append(bounds[bounds[:, 1, 2] > (_LEAST_CASTER if x or y else 0.0)])
        return np.concatenate(casters)

    def _surface(self, lot: Lot, rng: np.random.Generator) -> tuple[Samples, np.ndarray, np.ndarray]:
        """Samples of all that is seen of a lot, their (M, 3) albedo, and the (M, 1) strength of their reflection."""
        solids = [part.solid for part in lot.parts]
        lower = (*lot.corner, -_GROUND)
        ground = Box(lower, (lot.corner[0] + LOT, lot.corner[1] + LOT, 0.0))
        samples = [solid.sample(self.spacing) for solid in (*solids, ground)]
        visible = visible_samples([*solids, ground], samples)
        surfaces, albedo, gloss = [], [], []
        for part, sampled, seen in zip(lot.parts, samples, visible, strict=False):
            surface = select(sampled, seen & (sampled.points[:, 2] > 0))
            color = np.where(surface.normals[:, 2:] > 0.5, part.roof, part.color)
            glass = _windows(part.solid, surface, self.spacing)[:, None] if part.windows else np.zeros((len(color), 1))
            surfaces.append(surface)
            albedo.append(color + glass * (np.array(_WINDOW) - color))
            gloss.append(0.03 + 0.2 * glass)
        street = select(samples[-1], visible[-1] & (samples[-1].normals[:, 2] > 0.5))
        surfaces.append(street)
        albedo.append(_ground_color(street.points[:, :2] - lot.corner, lot.green, self.spacing))
        gloss.append(np.full((len(street.points), 1), 0.03))
        albedo = np.concatenate(albedo)
        return join(surfaces), albedo * rng.uniform(0.92, 1.08, (len(albedo), 1)), np.concatenate(gloss)


def _lit(surface: Samples, boxes: np.ndarray) -> np.ndarray:
    """(M,) bool: whether the way from each sample to the sun is clear of all boxes."""
    origins, way = surface.points + 0.05 * surface.normals, np.array(SUN)
    lit = surface.normals @ way > 0
    for lower, upper in boxes:
        ends = np.stack([(lower - origins) / way, (upper - origins) / way])
        enter, leave = ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)
        lit &= leave <= np.maximum(enter, 0)
    return lit


def _windows(solid: Box | Cylinder, surface: Samples, spacing: float) -> np.ndarray:
    """(M,) share of glass in what each sample of a building stands for, by its height and its place along the wall."""
    points, normals = surface.points, surface.normals
    if isinstance(solid, Box):
        along = np.where(np.abs(normals[:, 0]) > 0.5, points[:, 1] - solid.lower[1], points[:, 0] - solid.lower[0])
        base = solid.lower[2]
    else:
        away = points - solid.base
        along, base = solid.radius * np.arctan2(away[:, 1], away[:, 0]), solid.base[2]
    rows, columns = (_share(value, STOREY, STOREY / 2, STOREY, spacing) for value in (points[:, 2] - base, along))
    return rows * columns * (np.abs(normals[:, 2]) < 0.5)


def _ground_color(places: np.ndarray, green: bool, spacing: float) -> np.ndarray:
    """(M, 3) linear reflectance of the ground at (M, 2) metres from the lot's corner."""
    away = np.minimum(places, LOT - places)  # from the middle of the streets
    nearest, along = away.min(axis=1), away.max(axis=1)
    color = np.where(nearest[:, None] < PAVEMENT, _PAVED, _GRASS if green else _YARD)
    color = np.where(nearest[:, None] < ROAD, _ASPHALT, color)
    dashes = _share(nearest, LOT, -0.4, 0.4, spacing) * _share(along, 6.0, 3.0, 6.0, spacing) * (along > PAVEMENT + 3)
    zebra = (nearest < ROAD) & (np.abs(along - PAVEMENT) < 1.5)
    stripes = zebra * _share(nearest, 3.0, 1.5, 3.0, spacing)
    return color + np.maximum(dashes, stripes)[:, None] * (_LINE - color)


def _share(value: np.ndarray, period: float, start: float, stop: float, width: float) -> np.ndarray:
    """How much of ``width`` about each value lies between ``start`` and ``stop`` of a period, in [0, 1]."""

    def covered(end: np.ndarray) -> np.ndarray:
        whole, rest = np.divmod(end - start, period)
        return whole * (stop - start) + np.minimum(rest, stop - start)

    return (covered(value + width / 2) - covered(value - width / 2)) / width
