"""The order in which rays meet a city's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np

from scene.rays import SceneBox
from settings.errors import InputError

Place = tuple[float, float, float]
_FEW = 32  # boxes that are compared pair by pair in less time than a plane between them is found


def front_to_back(boxes: Sequence[SceneBox], place: Place) -> list[int]:
    """An order of disjoint boxes in which no ray from a place meets a later one first.

    Of two sides of a plane that cuts no box, a ray that has been on the farther one, as seen from the place, does not
    come back to the nearer. Boxes that a k-d split made always have such planes, and always an order.

    Raises:
        InputError: they hide each other in a circle.
    """
    lower, upper = (np.array([getattr(box, side) for box in boxes]).reshape(-1, 3) for side in ("lower", "upper"))
    order: list[int] = []
    parts = [np.arange(len(boxes))]
    while parts:
        part = parts.pop()
        sides = _sides(lower[part], upper[part], place) if len(part) > _FEW else None
        if sides is None:
            order += part[_by_pairs(lower[part], upper[part], place)].tolist()
        else:
            parts += [part[side] for side in sides]
    return order


def _sides(lower: np.ndarray, upper: np.ndarray, place: Place) -> tuple[np.ndarray, np.ndarray] | None:
    """The boxes on the farther side, as seen from a place, of a plane of an axis that cuts none, and those on the
    nearer side; of such planes that which leaves most on both. None: there is none.
    """
    best, most = None, 0
    for axis in range(3):
        order = lower[:, axis].argsort(kind="stable")
        reach, begin = np.maximum.accumulate(upper[order, axis])[:-1], lower[order, axis][1:]
        cuts = (reach <= begin).nonzero()[0] + 1
        fewest = np.minimum(cuts, len(order) - cuts)
        if len(cuts) and fewest.max() > most:
            cut, most = int(cuts[fewest.argmax()]), int(fewest.max())
            sides = order[:cut], order[cut:]
            best = sides if place[axis] > begin[cut - 1] else sides[::-1]
    return best


def _by_pairs(lower: np.ndarray, upper: np.ndarray, place: Place) -> list[int]:
    """As ``front_to_back``, by a plane between each two boxes.

    A place between two boxes, or axes that disagree, mean that no ray meets both.
    """
    below = upper[:, None] <= lower[None]  # [a, b, axis]: a lies below b
    upwards = (below & (np.array(place) <= lower[None])).any(-1)  # no ray meets b, then a
    downwards = (below & (np.array(place) >= upper[:, None])).any(-1)  # no ray meets a, then b
    before = upwards | downwards.T
    before &= ~before.T
    try:
        order = TopologicalSorter({b: np.flatnonzero(before[:, b]).tolist() for b in range(len(lower))})
        return list(order.static_order())
    except CycleError as error:
        found = f"{len(set(error.args[1]))} boxes that hide each other in a circle"
        raise InputError("the city", "blocks", found, "boxes of a k-d split, which have an order", "") from error
