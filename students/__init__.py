"""The radiance-field students, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from students.base import Box, Student
from students.hash_grid import HashGridStudent
from students.kilo_uniform import KiloUniformStudent

STUDENTS: dict[str, type[Student]] = {student.kind: student for student in (HashGridStudent, KiloUniformStudent)}


def build_student(kind: str, box: Box, settings: Mapping[str, Any], implementation: str = "auto") -> Student:
    """A freshly initialised student (torch's global generator).

    Raises:
        KeyError: no such kind.
    """
    return STUDENTS[kind](box, **settings, implementation=implementation)
