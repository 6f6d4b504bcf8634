"""Views of two splits in one: those that are trained on, then those that are all held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from teacher.views.teacher_views import TeacherViews, join_views


def views_of_two_splits(train: TeacherViews, measured: TeacherViews, source: Path) -> TeacherViews:
    """The views of both, named after their frames with ``train_`` and ``holdout_`` before.

    Args:
        source: where the first are from, for the message.

    Raises:
        InputError: they differ in image size, alpha or ground truth.
    """
    return join_views(_prefixed(train, "train_"), _prefixed(measured, "holdout_"), source)


def _prefixed(views: TeacherViews, prefix: str) -> TeacherViews:
    return replace(views, names=tuple(prefix + name for name in views.names))
