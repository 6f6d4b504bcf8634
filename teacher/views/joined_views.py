"""The views of two splits of a dataset as those of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scene.cameras import join_cameras
from settings.errors import InputError
from teacher.views.lazy_pictures import LazyPlane, rgba_plane
from teacher.views.teacher_views import TeacherViews


def join_views(first: TeacherViews, second: TeacherViews, source: str | Path) -> TeacherViews:
    """Views of two splits in one, in order, their names with ``train_`` and ``holdout_`` before.

    Args:
        source: where the first are from, for the message.

    Raises:
        InputError: one has alpha, depth or ground truth and the other has not, or their sizes differ.
    """
    size = (f"{views.cameras.width}x{views.cameras.height}" for views in (first, second))
    differences = {"image size": tuple(size)}
    for name in ("alpha", "distance", "ground_truth"):
        words = tuple("none" if getattr(views, name) is None else "some" for views in (first, second))
        differences[name.replace("_", " ")] = words
    for field, (found, expected) in differences.items():
        if found != expected:
            hint = "Set data.ground_truth: false to do without." if field == "ground truth" else ""
            raise InputError(source, field, found, f"{expected}, as the frames to measure on have", hint)

    common = {
        "cameras": join_cameras(first.cameras, second.cameras),
        "names": (*(f"train_{name}" for name in first.names), *(f"holdout_{name}" for name in second.names)),
        "holdout": torch.cat([first.holdout, second.holdout]),
        "silhouettes": first.silhouettes and second.silhouettes,
    }
    if first.store is not None and second.store is not None:
        store = first.store.joined(second.store)
        planes = store.planes()
        if not (first.silhouettes or second.silhouettes):  # nothing need be decoded for it
            planes["coverage"] = torch.full((1, 1, 1), 255, dtype=torch.uint8).expand(planes["coverage"].shape)
        return replace(first, **common, **planes, store=store)

    def joined(name: str) -> Tensor | None:
        parts = [getattr(views, name) for views in (first, second)]
        return None if parts[0] is None else torch.cat(parts)

    planes = {name: joined(name) for name in ("rgb", "alpha", "distance")}
    is_alpha = all(views.coverage is views.alpha for views in (first, second))
    planes["coverage"] = planes["alpha"] if is_alpha else joined("coverage")
    is_made = isinstance(first.ground_truth, LazyPlane) and isinstance(second.ground_truth, LazyPlane)
    planes["ground_truth"] = rgba_plane(planes["rgb"], planes["alpha"]) if is_made else joined("ground_truth")
    finer = first.finer if second.holdout.all() else None
    if finer is not None:
        planes["finer"] = replace(finer, names=tuple(f"train_{name}" for name in finer.names))
    return TeacherViews(**common, **planes, background=first.background, counted=_joined_counts(first, second))


def _joined_counts(*parts: TeacherViews) -> Tensor | None:
    if all(part.counted is None for part in parts):
        return None
    return torch.cat(
        [torch.ones_like(part.coverage, dtype=torch.bool) if part.counted is None else part.counted for part in parts]
    )
