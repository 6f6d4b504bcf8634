"""Cameras for Gaussians that come without any: around what is in the middle, or looking about inside a room.

Up is the axis of the world along which the Gaussians lie low: things stand on the ground, and what rises is less than
what it stands on. Cameras are where light would pass: what the Gaussians add up to in the cells of a grid says how far
one can go from the middle before something is in the way, and whether the middle is free and closed in on all sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, ceil, radians, sin, sqrt

import numpy as np

from scene.cameras import Cameras
from scene.cells import CellGrid
from scene.frames import spread
from scene.orbits import posed_cameras, spiral_rotations
from settings.errors import InputError
from settings.teacher import OrbitConfig
from teacher.gaussians import Gaussians
from teacher.sources.box import box_of_gaussians, find_strays
from teacher.sources.occupied_cells import statistics_of_gaussians

_CELLS = 64  # along the longest side of the box
_MIDDLE = (0.1, 0.9)  # shares of the opacity between which the middle is, along each axis
_EVEN = 1 / (_MIDDLE[1] - _MIDDLE[0])  # by which it is widened: evenly filled boxes have all of themselves for middle
_HALF_FOV, _WIDEST_HALF_FOV, _HALF_FOV_INSIDE = radians(25.0), radians(40.0), radians(35.0)
_NEAREST = 0.3  # world units: 3DGS rasterisers leave out what is nearer than 0.2
_SOLID = 0.2  # optical thickness of a cell that is in the way
_HIDDEN = 0.5  # that of a path behind which nothing is seen any more
_CLEARANCE = 0.15  # of the middle's radius: what cameras keep from everything
_LEAST_DISTANCE = 0.5  # of what is wanted; where there is less room, there is no camera
_MOST_TRIED = 16  # directions looked along for each camera that is wanted
_ROOM = 0.35  # of half the box's shortest side: the least radius of the free ball in the middle of a room
_CLOSED = 0.9  # share of directions in which a room ends
_LOOKED_ALONG = 256  # directions by which a room is told
_INSIDE_ELEVATION = 30.0  # degrees to which cameras in a room look up and down


@dataclass(frozen=True)
class Orbit:
    """Cameras found for Gaussians, and in words how."""

    cameras: Cameras
    words: str


def orbit_of_gaussians(gaussians: Gaussians, settings: OrbitConfig, frames: int, width: int, seed: int) -> Orbit:
    """Cameras around the middle of the Gaussians, or inside of them; every k-th is as evenly spread as all are.

    Args:
        frames: number of cameras.
        width: of their square images, pixels.
        seed: turns them about the vertical.

    Raises:
        InputError: there is nowhere to stand.
    """
    up, why_up = _up_direction(gaussians, settings)
    surroundings = _Surroundings(gaussians)
    rng = np.random.default_rng(seed)
    room = surroundings.room() if settings.inside == "auto" else None
    if settings.inside is True:
        room = surroundings.free_ball()
    if room is not None:
        cameras, where = _cameras_inside(surroundings, room, up, frames, width, rng)
    else:
        cameras, where = _cameras_around(surroundings, up, settings, frames, width, rng)
    return Orbit(cameras, f"{where}; up is {_named(up)} ({why_up})")


def up_from_spread(gaussians: Gaussians) -> np.ndarray:
    """(3,) unit vector along an axis of the world: that along which the Gaussians, by their visible area, lie lowest.

    How low is the distance of their median from the middle of the range that holds 96 % of them, as a share of it.
    """
    means, weights = _weighted(gaussians, by_area=True)
    low, middle, high = _quantiles(means, weights, (0.02, 0.5, 0.98))
    lean = (low + high - 2 * middle) / np.maximum(high - low, 1e-12)
    axis = int(np.abs(lean).argmax())
    return np.eye(3)[axis] * (np.sign(lean[axis]) or 1.0)


# --- where one can stand -----------------------------------------------------------------------------------------


class _Surroundings:
    """Optical thickness in the cells of a box, and the middle of what is in it; float64, world units.

    Attributes:
        centre, radius: of the middle: that of the box which holds most of the opacity along every axis.
    """

    def __init__(self, gaussians: Gaussians) -> None:
        # Strays would leave all that is to be looked at in one cell.
        box = box_of_gaussians(gaussians)
        strays = find_strays(gaussians, box)
        box = box if strays is None else strays.box
        grid = CellGrid(box, _CELLS)
        cells = statistics_of_gaussians(gaussians, grid)
        thickness = np.zeros(grid.shape)
        thickness.reshape(-1)[cells.indices.numpy()] = cells.density.double().numpy() * grid.cell_size
        self.cell, self.lower, self.upper = grid.cell_size, np.array(box.lower), np.array(box.upper)
        # A free cell all around: what is outside of the box is free.
        self._thickness = np.pad(thickness, 1)
        from scipy import ndimage  # slow to import, and few programs look for places to stand

        self._free = ndimage.distance_transform_edt(self._thickness < _SOLID) * self.cell
        low, high = _quantiles(*_weighted(gaussians, by_area=False), _MIDDLE)
        reach = _EVEN * (high - low) / 2 + 2 * float(gaussians.scales.amax(dim=1).median())
        self.centre = (low + high) / 2
        low, high = np.maximum(self.centre - reach, self.lower), np.minimum(self.centre + reach, self.upper)
        self._half = (high - low) / 2
        self.radius = float(np.linalg.norm(self._half))

    def thickness(self, points: np.ndarray) -> np.ndarray:
        """(...) of the cells that hold points (..., 3)."""
        return self._at(self._thickness, points)

    def clearance(self, points: np.ndarray) -> np.ndarray:
        """(...) distance to the nearest solid cell, at least."""
        outside = np.maximum(np.maximum(self.lower - points, points - self.upper), 0)
        return np.maximum(self._at(self._free, points), np.linalg.norm(outside, axis=-1))

    def hidden(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> np.ndarray:
        """(N, T) bool: of paths from origins (3,) or (N, 3) whether each of the steps of a cell up to ``reach`` is
        behind something."""
        steps = (np.arange(ceil(reach / self.cell)) + 0.5) * self.cell
        points = np.reshape(origins, (-1, 1, 3)) + steps[:, None] * directions[:, None, :]
        return np.cumsum(self.thickness(points), axis=1) > _HIDDEN

    def farthest(self, directions: np.ndarray, wanted: float, least: float) -> np.ndarray:
        """(N,) how far from the centre cameras can be and see the middle, at most as far as wanted; NaN: nowhere."""
        # Where paths leave the ellipsoid around the middle's box: what is within is looked at, and in nobody's way.
        start = sqrt(3) / np.linalg.norm(directions / self._half, axis=1)
        origins = self.centre + start[:, None] * directions
        hidden = self.hidden(origins, directions, wanted)
        distances = start[:, None] + (np.arange(hidden.shape[1]) + 0.5) * self.cell
        distances = np.minimum(distances, wanted)
        places = self.centre + distances[..., None] * directions[:, None, :]
        usable = ~hidden & (distances >= least) & (self.clearance(places) >= _CLEARANCE * self.radius)
        return np.where(usable.any(axis=1), np.where(usable, distances, -np.inf).max(axis=1), np.nan)

    def free_ball(self) -> tuple[np.ndarray, float]:
        """Centre and radius of the largest ball without anything in it, its centre in the middle half of the box."""
        cells = np.stack(np.indices(self._free.shape), axis=-1).reshape(-1, 3)
        points = self.lower + (cells - 0.5) * self.cell
        quarter = (self.upper - self.lower) / 4
        inner = ((points >= self.lower + quarter) & (points <= self.upper - quarter)).all(axis=1)
        best = np.where(inner, self._free.reshape(-1), -1).argmax()
        return points[best], float(self._free.reshape(-1)[best])

    def room(self) -> tuple[np.ndarray, float] | None:
        """The free ball, where it is that of a room: large, and closed in on all sides."""
        centre, radius = self.free_ball()
        if radius < _ROOM * (self.upper - self.lower).min() / 2:
            return None
        return (centre, radius) if self.closed_in(centre[None])[0] else None

    def closed_in(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: whether something ends the view from points (N, 3) in nearly all directions."""
        directions = spiral_rotations(_LOOKED_ALONG, -90, 90, np.array([0.0, 0.0, 1.0]))[:, :, 2]
        reach = float(np.linalg.norm(self.upper - self.lower))
        return np.array([self.hidden(point, directions, reach)[:, -1].mean() >= _CLOSED for point in points])

    def free_places(self, ball: tuple[np.ndarray, float], count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 3) points to stand at in the room around a ball, at random, that one can walk to from its centre."""
        centre, radius = ball
        from scipy import ndimage

        parts, _ = ndimage.label(self._free >= radius / 2)
        reached = parts == self._at(parts, centre)
        cells = np.argwhere(reached)
        cells = cells[rng.permutation(len(cells))[: 4 * count]]
        points = self.lower + (cells - rng.random(cells.shape)) * self.cell
        inside = points[self.closed_in(points)]
        points = inside if len(inside) else centre[None]
        return points[np.arange(count) % len(points)]

    def _at(self, values: np.ndarray, points: np.ndarray) -> np.ndarray:
        # Outside of the box is the free cell around it.
        cells = np.floor((points - self.lower) / self.cell).astype(np.int64) + 1
        cells = np.clip(cells, 0, np.array(values.shape) - 1)
        return values[tuple(np.moveaxis(cells, -1, 0))]


def _cameras_around(
    around: _Surroundings, up: np.ndarray, settings: OrbitConfig, frames: int, width: int, rng: np.random.Generator
) -> tuple[Cameras, str]:
    wanted = settings.distance or max(around.radius / sin(_HALF_FOV), around.radius + _NEAREST)
    start, tried = rng.uniform(0, 2 * np.pi), 1
    while True:
        rotations = spiral_rotations(tried * frames, *settings.elevation, up, start)
        distances = around.farthest(rotations[:, :, 2], wanted, _LEAST_DISTANCE * wanted)
        places = np.flatnonzero(np.isfinite(distances))
        if len(places) >= frames or tried == _MOST_TRIED:
            break
        tried *= 2
    if len(places) < frames:
        found = f"{len(places)} places to look at the middle from, of {tried * frames} tried"
        hint = "Set teacher.orbit.distance, elevation, up or inside; or give cameras: data.transforms."
        raise InputError("config", "teacher.orbit", found, f"{frames} (teacher.frames)", hint)
    chosen = np.array(spread(places.tolist(), frames))
    rotations, distances = rotations[chosen], distances[chosen]
    centers = around.centre + distances[:, None] * rotations[:, :, 2]
    half_fov = asin(min(around.radius / wanted, sin(_WIDEST_HALF_FOV)))  # the middle fills the picture
    nearer = int((distances < wanted - around.cell).sum())
    where = f"{frames} around {np.round(around.centre, 3).tolist()}, {wanted:.3g} units away"
    where += (
        f", {nearer} of them nearer (down to {distances.min():.3g}) since something is in the way" if nearer else ""
    )
    return posed_cameras(rotations, centers, half_fov, width, width), where


def _cameras_inside(
    around: _Surroundings,
    ball: tuple[np.ndarray, float],
    up: np.ndarray,
    frames: int,
    width: int,
    rng: np.random.Generator,
) -> tuple[Cameras, str]:
    centers = around.free_places(ball, frames, rng)
    limits = -_INSIDE_ELEVATION, _INSIDE_ELEVATION
    rotations = spiral_rotations(frames, *limits, up, rng.uniform(0, 2 * np.pi))
    where = f"{frames} inside, looking about from around {np.round(ball[0], 3).tolist()}"
    return posed_cameras(rotations, centers, _HALF_FOV_INSIDE, width, width), where


# --- how the Gaussians lie ---------------------------------------------------------------------------------------


def _up_direction(gaussians: Gaussians, settings: OrbitConfig) -> tuple[np.ndarray, str]:
    if settings.up == "auto":
        return up_from_spread(gaussians), "from how the Gaussians lie: teacher.orbit.up sets another"
    up = np.array(settings.up)
    return up / np.linalg.norm(up), "teacher.orbit.up"


def _weighted(gaussians: Gaussians, by_area: bool) -> tuple[np.ndarray, np.ndarray]:
    """(M, 3) means of those that count, and (M,) their weights: opacity, times the area of the broad side."""
    kept = ~gaussians.outliers()
    weights = gaussians.opacities[kept].double()
    if by_area:
        scales = gaussians.scales[kept].double().sort(dim=1).values
        weights = weights * scales[:, 1] * scales[:, 2]
    return gaussians.means[kept].double().numpy(), weights.numpy()


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """(len(shares), 3) weighted quantiles along each axis."""
    columns = []
    for column in values.T:
        order = column.argsort()
        sums = weights[order].cumsum()
        columns.append(column[order[np.searchsorted(sums, np.array(shares) * sums[-1]).clip(0, len(order) - 1)]])
    return np.stack(columns, axis=1)


def _named(up: np.ndarray) -> str:
    axis = int(np.abs(up).argmax())
    if np.abs(up[axis]) > 1 - 1e-9:
        return f"{'-' if up[axis] < 0 else '+'}{'xyz'[axis]}"
    return str(np.round(up, 3).tolist())
