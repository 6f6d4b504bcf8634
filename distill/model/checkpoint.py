"""Checkpoints: written atomically, read without trusting the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from machine.files import atomic_path
from scene.rays import SceneBox
from settings.errors import InputError
from settings.kinds import StudentSection
from settings.loading import validate
from settings.sections import Section
from students import STUDENTS, build_student
from students.base import Student

FORMAT = 1
_REQUIRED = ("format", "step", "student", "box", "occupancy", "config")


class _Stored(Section):
    """Settings in a checkpoint, as a config has them."""

    student: StudentSection


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors and plain values only) under a temporary name, then renames it."""
    with atomic_path(path) as temporary:
        torch.save({"format": FORMAT, **state}, temporary)


def load_checkpoint(path: str | Path, device: torch.device) -> dict[str, Any]:
    """Reads a checkpoint; weights only, so a file that holds code is refused, not run.

    Raises:
        InputError: no such file, not a checkpoint, truncated, or made by something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "checkpoint", "no such file", "a checkpoint of this program", "Train first.")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds here, by where the damage is
        raise InputError(
            path,
            "checkpoint",
            f"a file that cannot be read as weights ({_first_line(error)[:160]})",
            "a whole checkpoint of this program",
            "It may be truncated, or hold Python code, which is never loaded; use another checkpoint.",
        ) from error
    missing = [key for key in _REQUIRED if not isinstance(state, dict) or key not in state]
    if missing:
        raise InputError(
            path, ", ".join(missing), "nothing", "a checkpoint of this program", "Use one that this program wrote."
        )
    if state["format"] != FORMAT:
        raise InputError(path, "format", state["format"], FORMAT, "It was written by another version.")
    return state


def student_state(student: Student) -> dict[str, Any]:
    """What it takes to build the student again."""
    settings = student.settings.model_dump(exclude={"kind"})
    return {"kind": student.kind, "settings": settings, "weights": student.state_dict()}


def box_state(box: SceneBox) -> dict[str, list[float]]:
    """The scene box as plain values."""
    return {"lower": list(box.lower), "upper": list(box.upper)}


def restore_box(state: dict[str, Any]) -> SceneBox:
    """The scene box of a checkpoint."""
    return SceneBox(tuple(state["box"]["lower"]), tuple(state["box"]["upper"]))


def restore_student(
    state: dict[str, Any], path: str | Path, device: torch.device, implementation: str = "auto"
) -> Student:
    """The student of a checkpoint, whatever the config says.

    Raises:
        InputError: unknown kind, settings that are none, or weights that do not fit them.
    """
    stored = state["student"]
    kind = stored.get("kind") if isinstance(stored, dict) else stored
    if kind not in STUDENTS:
        raise InputError(path, "student.kind", kind, f"one of {sorted(STUDENTS)}", "Use a newer version.")
    try:
        box = restore_box(state)
        settings = validate(_Stored, {"student": {"kind": kind, **stored["settings"]}}, {}, str(path)).student
        student = build_student((box.lower, box.upper), settings, implementation)
        student.load_state_dict(stored["weights"])
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(path, "student.weights", _first_line(error), "weights of the recorded settings") from error
    return student.to(device)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
