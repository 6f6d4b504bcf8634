"""Cameras of the procedural city: from the air at a slant, and at eye height in the streets."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np

from scene.cameras import Cameras
from scene.orbits import posed_cameras
from teacher.bricks.city import City
from teacher.bricks.city_lots import LOT

AERIAL_SHARE = 0.75
"""Of all cameras; the others are in the streets."""

_EYE = 1.7  # metres
_SLANT, _DISTANCE = (35.0, 65.0), (110.0, 140.0)  # degrees under the level; metres from where it looks
_TURN, _LIFT = 25.0, (-3.0, 12.0)  # degrees off the street's direction, and over the level
_HALF_FOV = 25.0  # degrees
_MARGIN = 0.6  # metres between a camera and any solid
_TRIES = 100
_GOLDEN = pi * (3 - sqrt(5))

Pose = tuple[np.ndarray, np.ndarray]
"""A place (3,) and the direction (3,) in which the camera looks."""


def city_cameras(city: City, frames: int, width: int, height: int) -> tuple[Cameras, tuple[str, ...]]:
    """Cameras spread evenly over the city, none in or near a solid, and their names: the aerial ones first.

    Of every kind every k-th is spread evenly too, so that they can be held out.

    Args:
        width, height: of the pictures, pixels.
    """
    rng = np.random.default_rng([city.seed, frames])
    aerial = max(1, round(AERIAL_SHARE * frames))
    poses = [_free(_from_the_air, city, index, rng) for index in range(aerial)]
    poses += [_free(_in_a_street, city, index, rng) for index in range(frames - aerial)]
    places, ways = (np.stack(part) for part in zip(*poses, strict=True))
    names = [f"aerial_{index:05d}" for index in range(aerial)]
    names += [f"street_{index:05d}" for index in range(frames - aerial)]
    return posed_cameras(_upright(ways), places, np.deg2rad(_HALF_FOV), width, height), tuple(names)


def _free(draw: Callable[..., Pose], city: City, index: int, rng: np.random.Generator) -> Pose:
    """The first of many draws that is in no solid."""
    poses = (draw(city, index, rng) for _ in range(_TRIES))
    return next(pose for pose in poses if city.is_free(pose[0][None], _MARGIN)[0])


def _from_the_air(city: City, index: int, rng: np.random.Generator) -> Pose:
    spread = _spread(index) + rng.uniform(-0.05, 0.05, 2)
    target = np.array([*(spread % 1 * LOT * city.lots), 6.0])
    azimuth, slant = index * _GOLDEN + rng.uniform(-0.3, 0.3), np.deg2rad(rng.uniform(*_SLANT))
    level = np.array([np.cos(azimuth), np.sin(azimuth)])
    way = np.array([*(np.cos(slant) * level), -np.sin(slant)])
    return target - rng.uniform(*_DISTANCE) * way, way


def _in_a_street(city: City, index: int, rng: np.random.Generator) -> Pose:
    """On the middle line of a street that has lots on both sides, where the city has one."""
    northward = (index % 2 == 0) == (city.lots[0] > 1 or city.lots[1] == 1)
    across, along = (0, 1) if northward else (1, 0)
    streets = range(1, city.lots[across]) or (0, 1)
    spread = _spread(index // 2) + rng.uniform(-0.05, 0.05, 2)
    place = np.empty(3)
    place[across] = LOT * streets[int(spread[0] % 1 * len(streets))] + rng.uniform(-0.5, 0.5)
    place[along], place[2] = spread[1] % 1 * LOT * city.lots[along], _EYE
    # Towards the farther end, so that it does not look out of the city.
    ahead = np.sign(LOT * city.lots[along] / 2 - place[along]) or 1.0
    turn, lift = np.deg2rad(rng.uniform(-_TURN, _TURN)), np.deg2rad(rng.uniform(*_LIFT))
    way = np.empty(3)
    way[along], way[across], way[2] = ahead * np.cos(turn) * np.cos(lift), np.sin(turn) * np.cos(lift), np.sin(lift)
    return place, way


def _spread(index: int) -> np.ndarray:
    """(2,) in [0, 1): evenly spread over the square however many there are (Roberts 2018, R2)."""
    return (0.5 + index * np.array([0.7548776662466927, 0.5698402909980532])) % 1


def _upright(ways: np.ndarray) -> np.ndarray:
    """(N, 3) unit directions, none upright -> (N, 3, 3) whose columns are right, up and back."""
    right = np.cross(ways, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(right, ways), -ways], axis=2)
