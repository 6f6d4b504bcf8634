"""The radiance-field students, each with its own settings. A new one is a module and the line that imports it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from settings.kinds import StudentSection
from settings.loading import validate
from settings.sections import Section
from students.base import STUDENTS, Box, Student
from students.hash_grid import HashGridStudent as HashGridStudent
from students.kilo_uniform import KiloUniformStudent as KiloUniformStudent


class _Stored(Section):
    student: StudentSection


def stored_settings(kind: str, settings: Mapping[str, Any], path: str | Path) -> Section:
    """The settings of a student that a file holds; what an earlier version wrote of settings that are gone is left out.

    Args:
        path: of the file, for messages.

    Raises:
        InputError: they are none of this kind.
    """
    return validate(_Stored, {"student": {"kind": kind, **settings}}, {}, str(path)).student


def build_student(box: Box, settings: Section, implementation: str = "auto") -> Student:
    """A freshly initialised student (torch's global generator) of the kind that the settings are for.

    Args:
        box: lower and upper corner in world units.
        settings: a config's section of that kind.
        implementation: of the kernels it uses.

    Raises:
        InputError: it cannot be built of these settings.
    """
    return STUDENTS[settings.kind](box, settings, implementation)
