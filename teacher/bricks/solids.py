"""Simple solids with evenly sampled surfaces: what the built-in teacher is assembled from."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import NamedTuple, Protocol

import numpy as np

Vector = tuple[float, float, float]


class Samples(NamedTuple):
    """Surface samples: points (M, 3), unit outward normals (M, 3), and the distance between neighbours (M,)."""

    points: np.ndarray
    normals: np.ndarray
    spacing: np.ndarray


class Solid(Protocol):
    def sample(self, spacing: float) -> Samples:
        """The whole surface at about this spacing, closer where the part is too thin for it."""

    def contains(self, points: np.ndarray) -> np.ndarray:
        """(M, 3) -> (M,) bool, strictly inside."""


@dataclass(frozen=True)
class Box:
    """Axis-aligned box."""

    lower: Vector
    upper: Vector

    def sample(self, spacing: float) -> Samples:
        lower, upper = np.array(self.lower), np.array(self.upper)
        size, parts = upper - lower, []
        for axis in range(3):
            a, b = (axis + 1) % 3, (axis + 2) % 3
            step = min(spacing, size[a] / 2, size[b] / 2)
            grid = np.stack(np.meshgrid(_centres(size[a], step), _centres(size[b], step)), -1).reshape(-1, 2)
            for side, plane in ((-1.0, lower), (1.0, upper)):
                points = np.empty((len(grid), 3))
                points[:, axis], points[:, a], points[:, b] = plane[axis], lower[a] + grid[:, 0], lower[b] + grid[:, 1]
                parts.append(_samples(points, side * np.eye(3)[axis], step))
        return join(parts)

    def contains(self, points: np.ndarray) -> np.ndarray:
        return ((points > self.lower) & (points < self.upper)).all(axis=1)


@dataclass(frozen=True)
class Cylinder:
    """Cylinder along ``axis`` (0, 1, 2) whose first cap is centred on ``base``."""

    base: Vector
    axis: int
    radius: float
    length: float

    def sample(self, spacing: float) -> Samples:
        step = min(spacing, self.length / 2, self.radius / 1.5)
        angles = _centres(2 * pi, step / self.radius)
        height, angle = np.meshgrid(_centres(self.length, step), angles)
        normals = _around(angle).reshape(-1, 3)
        side = normals * self.radius + height.reshape(-1, 1) * (0, 0, 1)
        step_cap = min(spacing, self.radius / 1.5)
        up = np.array([0.0, 0.0, 1.0])
        radii = _centres(self.radius, step_cap)
        disc = np.concatenate([radius * _around(_centres(2 * pi, step_cap / radius)) for radius in radii])
        parts = [_samples(side, normals, step), _samples(disc, -up, step_cap)]
        parts.append(_samples(disc + up * self.length, up, step_cap))
        return _place(join(parts), self.axis, self.base)

    def contains(self, points: np.ndarray) -> np.ndarray:
        local = np.roll(points - np.array(self.base), 2 - self.axis, axis=1)
        radial = (local[:, :2] ** 2).sum(axis=1) < self.radius**2
        return radial & (local[:, 2] > 0) & (local[:, 2] < self.length)


@dataclass(frozen=True)
class Ring:
    """Torus around ``axis``: ``radius`` to the middle of a tube of radius ``tube``."""

    centre: Vector
    axis: int
    radius: float
    tube: float

    def sample(self, spacing: float) -> Samples:
        step = min(spacing, self.tube)
        around, across = np.meshgrid(_centres(2 * pi, step / self.radius), _centres(2 * pi, step / self.tube))
        around, across = around.ravel(), across.ravel()
        outward = _around(around)
        normals = np.cos(across)[:, None] * outward + np.sin(across)[:, None] * (0, 0, 1)
        return _place(_samples(outward * self.radius + normals * self.tube, normals, step), self.axis, self.centre)

    def contains(self, points: np.ndarray) -> np.ndarray:
        local = np.roll(points - np.array(self.centre), 2 - self.axis, axis=1)
        from_circle = np.hypot(local[:, 0], local[:, 1]) - self.radius
        return np.hypot(from_circle, local[:, 2]) < self.tube


@dataclass(frozen=True)
class Cut:
    """``solid`` without ``holes``."""

    solid: Solid
    holes: tuple[Solid, ...]

    def sample(self, spacing: float) -> Samples:
        outside = self.solid.sample(spacing)
        parts = [select(outside, ~self._in_holes(outside.points))]
        for hole in self.holes:
            walls = hole.sample(spacing)
            inside = self.contains(walls.points + 1e-3 * walls.normals)
            parts.append(select(walls._replace(normals=-walls.normals), inside))
        return join(parts)

    def contains(self, points: np.ndarray) -> np.ndarray:
        return self.solid.contains(points) & ~self._in_holes(points)

    def _in_holes(self, points: np.ndarray) -> np.ndarray:
        return np.any([hole.contains(points) for hole in self.holes], axis=0)


def join(parts: list[Samples]) -> Samples:
    """All samples in one set."""
    return Samples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def select(samples: Samples, mask: np.ndarray) -> Samples:
    """The samples where ``mask`` (M,) holds."""
    return Samples(*(array[mask] for array in samples))


def _centres(length: float, step: float) -> np.ndarray:
    """Middles of equal intervals of about ``step``."""
    count = max(1, round(length / step))
    return (np.arange(count) + 0.5) * (length / count)


def _around(angles: np.ndarray) -> np.ndarray:
    """(...) angles -> (..., 3) unit vectors in the plane z = 0."""
    return np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], -1)


def _samples(points: np.ndarray, normals: np.ndarray, spacing: float) -> Samples:
    return Samples(points, np.broadcast_to(normals, points.shape), np.full(len(points), spacing))


def _place(samples: Samples, axis: int, origin: Vector) -> Samples:
    """From a frame with its axis along z at 0 to one along ``axis`` at ``origin``."""
    points, normals = (np.roll(array, axis - 2, axis=1) for array in samples[:2])
    return Samples(points + np.array(origin), normals, samples.spacing)
