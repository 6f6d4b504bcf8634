"""The teacher's depth files read as each kind there is, against distances that are known otherwise."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distill.alignment.comparison import StoredDepth
from distill.model.view_renderers import Rendering, RenderView
from teacher.depth import DepthKind, to_distance

_SOLID = 0.95
"""Alpha from which a rendered distance is that of a surface."""

AGREES = 0.03
"""Median relative difference up to which a reading is right."""
_FARTHEST = 2.0
"""Diagonals of the scene box: of a scene farther away, as through a long lens, differences are relative to so much."""
_RIVAL, _NOISE = 2.0, 0.001  # the one in use is wrong when another is so much better
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
    views = [render(depth.cameras, frame) for frame in depth.frames]
    known = torch.stack([surface_distance(view) for view in views])
    edge = torch.stack([torch.where(view.alpha >= 0.3, view.distance, 0.0) for view in views])
    partial = None if depth.alpha is None else (depth.alpha > 0.5) & (depth.alpha < 0.9)
    found = []
    for kind in DepthKind:
        distance = read_as(depth, kind)
        inside = None if partial is None else median_error(depth, distance, torch.where(partial, edge, 0.0))
        found.append(DepthReading(kind, median_error(depth, distance, known), inside))
    return found


def read_as(depth: StoredDepth, kind: DepthKind) -> Tensor:
    """(V, H, W) distance along the rays, 0 where there is none."""
    alphas = depth.alpha if depth.alpha is not None else [None] * len(depth.frames)
    each = zip(depth.values, depth.frames, alphas, strict=True)
    return torch.stack([to_distance(values, kind, depth.cameras, frame, alpha)[0] for values, frame, alpha in each])


def surface_distance(view: Rendering) -> Tensor:
    """(H, W) rendered distance where it is that of a surface, else 0."""
    return torch.where(view.alpha >= _SOLID, view.distance, 0.0)


def median_error(depth: StoredDepth, distance: Tensor, reference: Tensor) -> float | None:
    """Median relative difference where both are greater than 0; None where that is next to nowhere."""
    both = (distance > 0) & (reference > 0)
    if both.sum() < _ENOUGH_PIXELS:
        return None
    distance, reference = distance[both], reference[both]
    return ((distance - reference).abs() / reference.clamp(max=_FARTHEST * depth.diagonal)).median().item()


def is_better(error: float | None, used: float) -> bool:
    """Whether a reading whose error is ``error`` is right, and the one in use is not."""
    return error is not None and error <= AGREES and used > _RIVAL * error + _NOISE


def better_kind(readings: list[DepthReading], kind: DepthKind) -> DepthKind | None:
    """The kind that fits where the one in use does not; None when that is right or nothing fits.

    Where the pictures have no alpha, a kind and its normalized twin are read alike and the plain one is named.
    """
    used = next(reading for reading in readings if reading.kind == kind)
    # min takes the first of equals, so kinds that cannot be told apart go by the plain one.
    tells_normalized = any(reading.error_partial is not None for reading in readings)
    ranked = readings if tells_normalized else [reading for reading in readings if not reading.kind.normalized]
    best = min(ranked, key=lambda reading: reading.total)
    if best.error is None or best.error > AGREES or used.total <= _RIVAL * best.total + _NOISE:
        return None
    if not tells_normalized and best.kind.quantity == kind.quantity:
        return None
    return best.kind
