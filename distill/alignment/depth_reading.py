"""The teacher's depth files read as each kind there is, against distances that are known otherwise."""

from __future__ import annotations

from typing import NamedTuple

import torch

from distill.alignment.comparison import StoredDepth
from distill.model.view_renderers import RenderView
from teacher.depth import DepthKind, to_distance

_SOLID = 0.95
"""Alpha from which a rendered distance is that of a surface."""

# A reading is right when nearly all of it agrees; the one in use is wrong when another is so much better.
_AGREES, _RIVAL, _NOISE = 0.03, 2.0, 0.001
_ENOUGH_PIXELS = 20


class DepthReading(NamedTuple):
    """Depth files read as ``kind``.

    Attributes:
        error: median relative difference to the rendered distance; None where there is nothing to compare.
        error_partial: the same where the picture's alpha is partial, which tells whether depth was divided by it.
    """

    kind: DepthKind
    error: float | None
    error_partial: float | None

    @property
    def total(self) -> float:
        """What readings are ranked by; inf without an ``error``."""
        return torch.inf if self.error is None else self.error + (self.error_partial or 0.0)


def depth_readings(render: RenderView, depth: StoredDepth) -> list[DepthReading]:
    """One reading for each kind, in the order of ``DepthKind``."""
    views = [render(depth.cameras, index) for index in range(len(depth.cameras))]
    known = torch.stack([torch.where(view.alpha >= _SOLID, view.distance, 0.0) for view in views])
    edge = torch.stack([torch.where(view.alpha >= 0.3, view.distance, 0.0) for view in views])
    partial = None if depth.alpha is None else (depth.alpha > 0.5) & (depth.alpha < 0.9)
    found = []
    for kind in DepthKind:
        distance = torch.stack(
            [
                to_distance(values, kind, depth.cameras, i, None if depth.alpha is None else depth.alpha[i])[0]
                for i, values in enumerate(depth.values)
            ]
        )
        inside = None if partial is None else _median_error(distance, torch.where(partial, edge, 0.0))
        found.append(DepthReading(kind, _median_error(distance, known), inside))
    return found


def _median_error(distance: torch.Tensor, reference: torch.Tensor) -> float | None:
    both = (distance > 0) & (reference > 0)
    if both.sum() < _ENOUGH_PIXELS:
        return None
    return (distance[both] / reference[both] - 1).abs().median().item()


def better_kind(readings: list[DepthReading], kind: DepthKind) -> DepthKind | None:
    """The kind that fits where the one in use does not; None when that is right or nothing fits.

    Where the pictures have no alpha, a kind and its normalized twin are read alike and the plain one is named.
    """
    used = next(reading for reading in readings if reading.kind == kind)
    # min takes the first of equals, so kinds that cannot be told apart go by the plain one.
    tells_normalized = any(reading.error_partial is not None for reading in readings)
    ranked = readings if tells_normalized else [reading for reading in readings if not reading.kind.normalized]
    best = min(ranked, key=lambda reading: reading.total)
    if best.error is None or best.error > _AGREES or used.total <= _RIVAL * best.total + _NOISE:
        return None
    if not tells_normalized and best.kind.quantity == kind.quantity:
        return None
    return best.kind
