"""The lots of the procedural city: what stands on each, a function of the seed and of the lot's own coordinates.

A lot is a square with half of the streets about it. Metres; x to the east, y to the north, z up, the ground at 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from teacher.bricks.solids import Box, Cylinder, Ring, Solid, Vector

LOT = 48.0
"""Metres from the middle of a street to that of the next."""
ROAD, PAVEMENT = 5.0, 8.0
"""Where the road and the pavement beside it end, metres from the middle of the street."""
STOREY = 3.0
"""Height of a storey and width of a window's share of a wall, metres: buildings are multiples of it."""

_INNER = (9.0, LOT - 9.0)  # where buildings may stand
_LANE = 2.5
# Linear reflectances.
_CONCRETE, _BRICK, _SAND, _WHITE = (0.42, 0.41, 0.39), (0.38, 0.14, 0.09), (0.58, 0.44, 0.28), (0.68, 0.67, 0.63)
_SLATE, _STEEL, _ROOF, _CLAY = (0.2, 0.23, 0.27), (0.3, 0.38, 0.46), (0.24, 0.24, 0.25), (0.42, 0.17, 0.1)
_TRUNK, _LEAF, _WATER, _STONE = (0.16, 0.09, 0.05), (0.11, 0.26, 0.06), (0.1, 0.25, 0.4), (0.5, 0.48, 0.44)
_WALLS = (_CONCRETE, _BRICK, _SAND, _WHITE, _SLATE, _STEEL)
_CARS = ((0.5, 0.03, 0.03), (0.04, 0.12, 0.45), (0.6, 0.6, 0.6), (0.05, 0.05, 0.06), (0.65, 0.45, 0.05))


@dataclass(frozen=True)
class Part:
    """A solid, the linear reflectance of its walls and of what faces up, and whether its walls have windows."""

    solid: Solid
    color: Vector
    roof: Vector
    windows: bool = False


@dataclass(frozen=True)
class Lot:
    """What stands on a lot.

    Attributes:
        corner: (2,) its lower x and y, metres.
        parts: in the city's world.
        bounds: (P, 2, 3) lower and upper corner of each part.
        green: whether its ground is a park's.
    """

    corner: tuple[float, float]
    parts: tuple[Part, ...]
    bounds: np.ndarray
    green: bool


def lot_rng(seed: int, column: int, row: int, stream: int = 0) -> np.random.Generator:
    """Random numbers of one lot, several streams of them."""
    return np.random.default_rng([seed, column % 2**32, row % 2**32, stream])


@lru_cache(maxsize=4096)
def build_lot(seed: int, column: int, row: int) -> Lot:
    """The lot whose lower corner is ``LOT`` times (column, row): any whole numbers, the city has no end."""
    rng, corner = lot_rng(seed, column, row), (column * LOT, row * LOT)
    # Every two by two lots have something of everything.
    quarter = lot_rng(seed, column // 2, row // 2, 1)
    plots = [_towers, _courtyard, _houses, _park if quarter.random() < 0.6 else _towers]
    plot = plots[quarter.permutation(4)[2 * (row % 2) + column % 2]]
    local = [*plot(rng), *_street_trees(rng), *_cars(rng)]
    parts = tuple(Part(_moved(part.solid, corner), part.color, part.roof, part.windows) for part in local)
    return Lot(corner, parts, np.array([_bounds(part.solid) for part in parts]), green=plot is _park)


def _towers(rng: np.random.Generator) -> Iterator[Part]:
    """A podium with one tower, set back once, or a round one."""
    wall, podium = (_WALLS[index] for index in rng.choice(len(_WALLS), 2, replace=False))
    base, height = STOREY * rng.integers(2, 4), STOREY * rng.integers(11, 23)
    low, high = _INNER
    yield Part(Box((low, low, 0.0), (high, high, base)), podium, _ROOF, windows=True)
    x, y = LOT / 2 + rng.uniform(-3, 3, 2)
    if rng.random() < 0.3:
        yield Part(Cylinder((x, y, base), 2, 9.5, height), wall, _ROOF, windows=True)
        top = base + height
    else:
        half, upper = 1.5 * rng.integers(6, 8), STOREY * rng.integers(2, 6)
        yield Part(_block(x, y, half, base, height), wall, _ROOF, windows=True)
        top = base + height + upper
        yield Part(_block(x, y, half - 3, base + height, upper), wall, _ROOF, windows=True)
    yield Part(_block(x, y, 2.0, top, 2.5), _CONCRETE, _CONCRETE)
    yield Part(_block(x + 4, y, 0.75, top, 6.0), _STEEL, _STEEL)


def _courtyard(rng: np.random.Generator) -> Iterator[Part]:
    """Four wings about a yard with trees."""
    wall, height, depth = _WALLS[rng.integers(len(_WALLS))], STOREY * rng.integers(4, 8), 9.0
    low, high = _INNER
    for lower, upper in (
        ((low, low), (high, low + depth)),
        ((low, high - depth), (high, high)),
        ((low, low + depth), (low + depth, high - depth)),
        ((high - depth, low + depth), (high, high - depth)),
    ):
        yield Part(Box((*lower, 0.0), (*upper, height)), wall, _CLAY if height < 15 else _ROOF, windows=True)
    for x, y in ((-2.5, -2.0), (2.5, 1.5)):
        yield from _tree(rng, LOT / 2 + x, LOT / 2 + y)


def _houses(rng: np.random.Generator) -> Iterator[Part]:
    """Four houses of their own heights, a tree between."""
    for x in (LOT / 2 - 8.5, LOT / 2 + 8.5):
        for y in (LOT / 2 - 8.5, LOT / 2 + 8.5):
            height, half = STOREY * rng.integers(2, 6), 1.5 * rng.integers(3, 5)
            wall, roof = _WALLS[rng.integers(len(_WALLS))], (_CLAY, _ROOF)[rng.integers(2)]
            yield Part(_block(x, y, half, 0.0, height), wall, roof, windows=True)
            yield Part(_block(x + 2, y, 1.0, height, 2.0), _BRICK, _BRICK)
    yield from _tree(rng, LOT / 2, LOT / 2)


def _park(rng: np.random.Generator) -> Iterator[Part]:
    """A fountain among trees."""
    middle = (LOT / 2, LOT / 2, 0.3)
    yield Part(Ring(middle, 2, 4.0, 0.6), _STONE, _STONE)
    yield Part(Cylinder((LOT / 2, LOT / 2, 0.0), 2, 3.8, 0.5), _WATER, _WATER)
    yield Part(_block(LOT / 2, LOT / 2, 0.75, 0.5, 2.5), _STONE, _STONE)
    for x in np.linspace(12, LOT - 12, 4):
        for y in np.linspace(12, LOT - 12, 4):
            if np.hypot(x - LOT / 2, y - LOT / 2) > 8 and rng.random() < 0.8:
                yield from _tree(rng, x + rng.uniform(-1, 1), y + rng.uniform(-1, 1))


def _street_trees(rng: np.random.Generator) -> Iterator[Part]:
    """Along the pavements, which they leave free above a head's height."""
    along, beside = rng.uniform(14, LOT - 14, 4), PAVEMENT - 1.5
    places = zip(along, (beside, beside, LOT - beside, LOT - beside), (True, False, True, False), strict=True)
    for place, across, is_north in places:
        yield from _tree(rng, *((across, place) if is_north else (place, across)), crown=1.6)


def _cars(rng: np.random.Generator) -> Iterator[Part]:
    """One in the lane of each side, somewhere between the crossings."""
    for across in (_LANE, LOT - _LANE):
        for northward in (True, False):
            color, at = _CARS[rng.integers(len(_CARS))], rng.uniform(12, LOT - 12)
            x, y, half_x, half_y = (across, at, 0.95, 2.2) if northward else (at, across, 2.2, 0.95)
            yield Part(Box((x - half_x, y - half_y, 0.2), (x + half_x, y + half_y, 1.5)), color, color)


def _tree(rng: np.random.Generator, x: float, y: float, crown: float = 2.4) -> Iterator[Part]:
    shade = rng.uniform(0.75, 1.3)
    leaf = tuple(shade * value for value in _LEAF)
    yield Part(_block(x, y, 0.4, 0.0, 2.2), _TRUNK, _TRUNK)
    yield Part(Cylinder((x, y, 2.2), 2, crown, 1.25 * crown), leaf, leaf)
    yield Part(Cylinder((x, y, 2.2 + 1.25 * crown), 2, 0.65 * crown, 0.8 * crown), leaf, leaf)


def _block(x: float, y: float, half: float, base: float, height: float) -> Box:
    return Box((x - half, y - half, base), (x + half, y + half, base + height))


def _moved(solid: Solid, corner: tuple[float, float]) -> Solid:
    def at(point: Vector) -> Vector:
        return point[0] + corner[0], point[1] + corner[1], point[2]

    if isinstance(solid, Box):
        return Box(at(solid.lower), at(solid.upper))
    if isinstance(solid, Cylinder):
        return Cylinder(at(solid.base), solid.axis, solid.radius, solid.length)
    return Ring(at(solid.centre), solid.axis, solid.radius, solid.tube)


def _bounds(solid: Solid) -> tuple[Vector, Vector]:
    """Of a solid of the city, whose cylinders and rings are upright."""
    if isinstance(solid, Box):
        return solid.lower, solid.upper
    (x, y, z), radius, low, high = (
        (solid.base, solid.radius, 0.0, solid.length)
        if isinstance(solid, Cylinder)
        else (solid.centre, solid.radius + solid.tube, -solid.tube, solid.tube)
    )
    return (x - radius, y - radius, z + low), (x + radius, y + radius, z + high)
