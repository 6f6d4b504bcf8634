"""Where a teacher comes from: one class for each ``teacher.kind``, behind one door."""

from __future__ import annotations

from teacher.sources.finer_pictures import finer_teacher, likely_supersample, supersample_of
from teacher.sources.registry import check_assets, load_teacher, source_of
from teacher.sources.source import Source
from teacher.sources.teacher import Teacher
from teacher.sources.teacher_sight import drawing_of, teacher_sight

__all__ = [
    "Source",
    "Teacher",
    "check_assets",
    "drawing_of",
    "finer_teacher",
    "likely_supersample",
    "load_teacher",
    "source_of",
    "supersample_of",
    "teacher_sight",
]
