"""What is wrong with depth files: read as another kind, turned, of other frames, in other units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from distill.alignment.comparison import StoredDepth
from distill.alignment.depth_reading import (
    AGREES,
    DepthReading,
    better_kind,
    is_better,
    median_error,
    read_as,
    surface_distance,
)
from distill.alignment.hypotheses import Cause, Finding, order_hypotheses, turns
from distill.model.view_renderers import RenderView
from teacher.depth import DepthKind

# Median relative differences that are looked into, and what units differ by at least: less is how depth is defined, or
# a student that is a little off.
_NOTED, _OTHER_UNITS = 0.01, 0.03
_WRITE_UPRIGHT = "Write the depth files upright: row 0 is the top, column 0 the left."
_IN_ORDER = "Write the depth files in the order of data.transforms: frame k is 0000k.npy."
_LOOK = (
    "Are they of this scene, these frames and these cameras? Write them again, or set teacher.depth_kind: none to do "
    "without."
)


class _Supposed(NamedTuple):
    """The median relative error if the mistake is undone."""

    mistake: str
    advice: str
    error: float | None


def wrong_kind(readings: list[DepthReading], kind: DepthKind) -> Finding | None:
    """That the files are of another kind than the one in use; None where they are not, or nothing fits."""
    better = better_kind(readings, kind)
    if better is None:
        return None
    errors = {reading.kind: reading.error for reading in readings}
    now = "lands nowhere in sight" if errors[kind] is None else f"is off by {errors[kind]:.2%}"
    evidence = f"depth read as {kind.value} {now}, as {better.value} by {errors[better]:.2%} (median)"
    return Finding(Cause.DEPTH_KIND, evidence, f"Set teacher.depth_kind: {better.value}.")


def misplaced(
    render: RenderView, depth: StoredDepth, readings: list[DepthReading], *, is_exact: bool
) -> Finding | None:
    """Why the depth files, read as the kind in use, do not agree with what is rendered; None where they do.

    Args:
        readings: ``depth_readings`` of the same.
        is_exact: what is rendered is what the files are of, so that they have to agree with it.
    """
    used = next(reading.error for reading in readings if reading.kind == depth.kind)
    if used is None or used < _NOTED:
        return None
    known = torch.stack([surface_distance(render(depth.cameras, frame)) for frame in depth.frames])
    as_it_is = f"depth read as {depth.kind.value} is off by {used:.2%} (median)"
    right = [one for one in _suppositions(render, depth, known) if is_better(one.error, used)]
    if right:
        best = min(right, key=lambda one: one.error)
        evidence = f"{as_it_is}; supposing that {best.mistake}, by {best.error:.2%}"
        return Finding(Cause.DEPTH_FILES, evidence, best.advice)
    if is_exact and used > AGREES:
        evidence = f"{as_it_is}, and neither turned nor of other frames nor in other units does it fit"
        return Finding(Cause.DEPTH_FILES, evidence, _LOOK)
    return None


def _suppositions(render: RenderView, depth: StoredDepth, known: Tensor) -> Iterator[_Supposed]:
    """The simplest first."""
    distance = read_as(depth, depth.kind)
    height, width = distance.shape[1:]
    for name, turn in turns(is_square=height == width):
        turned = replace(depth, values=torch.stack([turn(values) for values in depth.values]))
        mistake = f"the depth files are {name}"
        yield _Supposed(mistake, _WRITE_UPRIGHT, median_error(depth, read_as(turned, depth.kind), known))
    both = (distance > 0) & (known > 0)
    scale = (known[both] / distance[both]).median().item()
    if abs(scale - 1) > _OTHER_UNITS:
        factor = 1 / scale if depth.kind.quantity == "inverse_z" else scale
        advice = f"Multiply their values by {factor:.4g}."
        yield _Supposed("the depth files are in other units", advice, median_error(depth, distance * scale, known))
    for order in order_hypotheses(depth.names):
        mistake = order.name.replace("the pictures", "the depth files")
        yield _Supposed(mistake, _IN_ORDER, _error_in_order(render, depth, order.order))


def _error_in_order(render: RenderView, depth: StoredDepth, order: tuple[int, ...]) -> float | None:
    """If the file of frame ``order[k]`` is of camera k."""
    placed = [(file, order.index(frame)) for file, frame in enumerate(depth.frames) if frame in order]
    if not placed:
        return None
    files, cameras = zip(*placed, strict=True)
    alpha = None if depth.alpha is None else depth.alpha[list(files)]
    moved = replace(depth, values=depth.values[list(files)], alpha=alpha, frames=cameras)
    known = torch.stack([surface_distance(render(depth.cameras, camera)) for camera in cameras])
    return median_error(depth, read_as(moved, depth.kind), known)
