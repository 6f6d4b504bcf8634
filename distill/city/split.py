"""How a city is cut into blocks: a k-d tree, balanced by the Gaussians and by the cameras that see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scene.rays import SceneBox

_LEAST_PART = 0.1  # of its even share of a side: thinner blocks are all face


def split_box(
    box: SceneBox, points: np.ndarray, weights: np.ndarray, blocks: int | Sequence[int]
) -> tuple[SceneBox, ...]:
    """Boxes that fill a box, of about the same weight; two that touch have the same float64 at their face.

    Args:
        points: (M, 3) where the weight is; those outside of the box do not count.
        weights: (M,) of each, at least 0.
        blocks: how many, cut in two again and again along the longest side; or how many along x, y and z: slabs along
            x, each of them cut along y, each of these along z.
    """
    points, weights = _of(box, points, weights)
    if isinstance(blocks, int):
        return tuple(_parts(box, points, weights, blocks, None))
    boxes = [box]
    for axis, count in enumerate(blocks):
        boxes = [part for whole in boxes for part in _parts(whole, *_of(whole, points, weights), count, axis)]
    return tuple(boxes)


def _parts(box: SceneBox, points: np.ndarray, weights: np.ndarray, count: int, axis: int | None) -> list[SceneBox]:
    """``count`` boxes of a box, cut along one axis; None: the longest side of each that is cut."""
    if count == 1:
        return [box]
    along = int(np.argmax(box.extent)) if axis is None else axis
    first = count // 2
    cut = _cut(points[:, along], weights, first / count, box.lower[along], box.upper[along])
    lower, upper = _replaced(box.lower, along, cut), _replaced(box.upper, along, cut)
    halves = (SceneBox(box.lower, upper), first), (SceneBox(lower, box.upper), count - first)
    return [part for half, number in halves for part in _parts(half, *_of(half, points, weights), number, axis)]


def _cut(values: np.ndarray, weights: np.ndarray, share: float, lower: float, upper: float) -> float:
    """Where a share of the weight lies below; in its even place where there is no weight."""
    even, order = lower + share * (upper - lower), np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    if not len(values) or cumulative[-1] <= 0:
        return even
    last = min(int(np.searchsorted(cumulative, share * cumulative[-1])), len(values) - 1)
    middle = float(values[order[last : last + 2]].mean())
    margin = _LEAST_PART * (upper - lower) * min(share, 1 - share)
    return min(max(middle, lower + margin), upper - margin)


def _of(box: SceneBox, points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points in a box and their weights."""
    inside = ((points >= box.lower) & (points <= box.upper)).all(axis=1)
    return points[inside], weights[inside]


def _replaced(corner: tuple[float, ...], axis: int, value: float) -> tuple[float, ...]:
    return tuple(value if index == axis else own for index, own in enumerate(corner))
