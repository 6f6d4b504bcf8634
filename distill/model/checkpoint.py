"""Checkpoints: written atomically, read without trusting the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from distill.compact.compact_file import load_compact
from distill.compact.container import is_compact
from distill.model.safetensors_file import is_safetensors, load_safetensors
from machine.weights_files import in_one_line, read_weights, write_weights
from scene.rays import SceneBox
from settings.errors import InputError
from settings.loading import validate
from settings.rendering import MOST_RAYS
from settings.sections import Section, Vector
from students import STUDENTS, build_student, stored_settings
from students.base import Student

FORMAT = 1
_EXPECTED = "a whole checkpoint of this program"
_REQUIRED = ("format", "step", "student", "box", "occupancy", "config")


class _Unit(Section):
    """Of a student's density; before there was one, that of the world."""

    density_unit: float = Field(1.0, gt=0)


class _Box(Section):
    lower: Vector
    upper: Vector


class _Occupancy(Section):
    resolution: int = Field(ge=1)
    step: float = Field(gt=0)
    supersample: int = Field(1, ge=1, le=MOST_RAYS)
    opacity_scale: float = Field(1.0, gt=0, le=1)
    state: dict[str, Any]


class _Plain(Section):
    """What a checkpoint holds beside the states of its parts, which know themselves what fits them."""

    step: int = Field(ge=0)
    seconds: float = Field(0.0, ge=0)
    seconds_before: float = Field(0.0, ge=0)
    rays_per_step: int = Field(1, ge=1)
    box: _Box
    occupancy: _Occupancy
    config: str


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes ``state`` (tensors and plain values only) with a checksum, under a temporary name, then renames it."""
    write_weights(path, {"format": FORMAT, **state})


def load_checkpoint(path: str | Path, device: torch.device | str) -> dict[str, Any]:
    """Reads a checkpoint; weights only, so a file that holds code is refused, not run.

    Of a compact or a safetensors file what it takes to render its student, see ``load_compact`` and
    ``load_safetensors``: no run can go on from it.

    Raises:
        InputError: no such file, not a checkpoint, damaged, of wrong structure, or made by something else.
    """
    path = Path(path)
    if not os.path.isfile(path):  # of names too long for a file as well
        found = "a folder" if os.path.isdir(path) else "no such file"
        raise InputError(path, "checkpoint", found, "a checkpoint of this program", "Train first.")
    if is_compact(path):
        return load_compact(path, device)
    if is_safetensors(path):
        state = load_safetensors(path, device)
    else:
        state = read_weights(path, "checkpoint", _EXPECTED, device)
    missing = [key for key in _REQUIRED if key not in state]
    if missing:
        some = ", ".join(f"'{key}'" for key in list(state)[:3])
        found = f"nothing; the file begins with {some}" if state else "nothing"
        hint = "Use one that this program wrote; weights of other programs cannot be read."
        raise InputError(path, ", ".join(missing), found, "a checkpoint of this program", hint)
    if state["format"] != FORMAT:
        raise InputError(path, "format", state["format"], FORMAT, "It was written by another version.")
    validate(_Plain, {name: state[name] for name in _Plain.model_fields if name in state}, {}, str(path))
    return state


def rendering_only(path: str | Path) -> str | None:
    """What a file is that holds a student to render and nothing to go on training from; None of other files."""
    if is_compact(path):
        return "a compact file"
    return "a safetensors file" if is_safetensors(path) else None


def supersample_in(state: dict[str, Any]) -> int:
    """Rays along a side of each pixel in training; 1 in checkpoints from before there could be more."""
    return state["occupancy"].get("supersample", 1)


def student_state(student: Student) -> dict[str, Any]:
    """What it takes to build the student again."""
    settings = student.settings.model_dump(exclude={"kind"})
    unit, weights = student.density_unit, student.state_dict()
    return {"kind": student.kind, "settings": settings, "density_unit": unit, "weights": weights}


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
        settings = stored_settings(kind, stored["settings"], path)
        student = build_student((box.lower, box.upper), settings, implementation)
        student.load_state_dict(stored["weights"])
        unit = {name: stored[name] for name in _Unit.model_fields if name in stored}
        student.density_unit = validate(_Unit, unit, {}, str(path)).density_unit
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(path, "student.weights", in_one_line(error), "weights of the recorded settings") from error
    return student.to(device)
