"""The radiance-field students, each with its own settings. A new one is a module and the line that imports it."""

from __future__ import annotations

from settings.sections import Section
from students.base import STUDENTS, Box, Student
from students.hash_grid import HashGridStudent as HashGridStudent
from students.kilo_uniform import KiloUniformStudent as KiloUniformStudent


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
