"""Compact files of students: written from integers, read as what a checkpoint holds to render by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from distill.compact.coding import decode_mask, decode_parts, encode_mask, encode_parts
from distill.compact.container import FIELD, packed_container, read_container
from distill.compact.parts import Integers, Part, parts_of, scales_of
from distill.rendering.occupancy import UNSEEN
from kernels.coding.range_coding import DECISIONS_PER_BYTE
from machine.weights_files import restoring
from scene.cells import CellGrid
from scene.rays import SceneBox
from settings.errors import InputError
from settings.kinds import StudentSection
from settings.loading import validate
from settings.rendering import MOST_RAYS
from settings.sections import FromList, Section
from students import STUDENTS, build_student, stored_settings
from students.base import UNITS, Student

FORMAT = 3
MAX_PARAMETERS = 1 << 28
"""Most parameters of a student in a compact file: 1 GiB."""
MAX_CELLS = 1 << 28
"""Most cells of an occupancy grid in one."""
_Coordinate = Annotated[float, Field(ge=-1e12, le=1e12)]
_Corner = Annotated[tuple[_Coordinate, _Coordinate, _Coordinate], FromList]


class _Box(Section):
    lower: _Corner
    upper: _Corner


class _Occupancy(Section):
    resolution: int = Field(ge=1, le=1 << 12)
    step: float = Field(gt=0)
    supersample: int = Field(1, ge=1, le=MOST_RAYS)


class _Header(Section):
    format: int
    units: str
    student: StudentSection
    density_unit: float = Field(1.0, gt=0)
    scales: list[float]
    box: _Box
    occupancy: _Occupancy
    step: int = Field(ge=0)
    config: str


def compact_bytes(state: Mapping[str, Any], content: Sequence[Integers], path: str | Path) -> bytes:
    """The bytes of a student's compact file.

    Args:
        state: its checkpoint, for all but the weights.
        content: the weights, of each of its ``compact_parts``.
        path: of the checkpoint, for messages.

    Raises:
        InputError: it is too large for a compact file, or its weights are, in their steps.
    """
    header, cells = _header_of(state, path), _cells_of(state)
    parts = _parts(header, _outline(header, path), cells)
    try:
        weights = encode_parts(parts, content)
    except ValueError as error:
        expected = "weights that a compact file can hold"
        raise InputError(path, "weights", error, expected, "Take an earlier checkpoint, or coarser steps.") from error
    known = {"density_unit"} if header.density_unit == 1 else None  # earlier versions read such a file too
    plain = header.model_dump(mode="json", exclude=known)
    return packed_container(plain, {"occupancy": encode_mask(cells), "weights": weights})


def compact_parts(state: Mapping[str, Any], path: str | Path) -> list[Part]:
    """The parts that the student of a checkpoint is coded in.

    Raises:
        InputError: it is too large for a compact file.
    """
    header = _header_of(state, path)
    return _parts(header, _outline(header, path), _cells_of(state))


def load_compact(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Reads a compact file as a checkpoint that can be rendered, not trained on; ``compact_bytes`` is its size.

    Raises:
        InputError: damaged, of another version, or of sizes that its bytes cannot hold.
    """
    plain, sections = read_container(path)
    if plain.get("format") != FORMAT:
        hint = "It was written by another version: make it anew of its checkpoint, with tools/compress.py."
        raise InputError(path, "format", plain.get("format"), FORMAT, hint)
    header = validate(_Header, plain, {}, str(path))
    with restoring(path, FIELD):
        student = _outline(header, path)
        shape = CellGrid(_box(header), header.occupancy.resolution).shape
        _check_room(math.prod(shape), "cells", sections["occupancy"])
        cells = decode_mask(sections["occupancy"], shape)
        parts = _parts(header, student, cells)
        _check_room(sum(part.integers + part.common_integers for part in parts), "integers", sections["weights"])
        content = decode_parts(parts, sections["weights"])
        weights = {"box": torch.tensor([header.box.lower, header.box.upper])}
        for (name, parameter), part, integers in zip(student.named_parameters(), parts, content, strict=True):
            weights[name] = torch.from_numpy(integers.weights(part)).view(parameter.shape)
    occupied = torch.from_numpy(cells).to(device)
    masks = {"teacher": occupied, "occupied": occupied, "remembered": torch.full(shape, UNSEEN, device=device)}
    weights = {name: values.to(device) for name, values in weights.items()}
    student = {"kind": header.student.kind, "settings": header.student.model_dump(exclude={"kind"})}
    return {
        "format": FORMAT,
        "step": header.step,
        "student": {**student, "density_unit": header.density_unit, "weights": weights},
        "box": header.box.model_dump(),
        "occupancy": {**header.occupancy.model_dump(), "state": masks},
        "config": header.config,
        "compact_bytes": path.stat().st_size,
    }


def _header_of(state: Mapping[str, Any], path: str | Path) -> _Header:
    stored, occupancy = state["student"], state["occupancy"]
    student = stored_settings(stored["kind"], stored["settings"], path)
    lower, upper = (tuple(state["box"][name]) for name in ("lower", "upper"))
    header = _Header(
        format=FORMAT,
        units=UNITS,
        student=student,
        density_unit=stored.get("density_unit", 1.0),
        scales=[],
        box=_Box(lower=lower, upper=upper),
        occupancy=_Occupancy(**{name: occupancy[name] for name in _Occupancy.model_fields if name in occupancy}),
        step=state["step"],
        config=state["config"],
    )
    return header.model_copy(update={"scales": scales_of(_outline(header, path))})


def _box(header: _Header) -> SceneBox:
    return SceneBox(header.box.lower, header.box.upper)


def _cells_of(state: Mapping[str, Any]) -> np.ndarray:
    """(X, Y, Z) uint8, 1 where the student may be sampled."""
    return (state["occupancy"]["state"]["occupied"] != 0).to("cpu", torch.uint8).contiguous().numpy()


def _outline(header: _Header, path: str | Path) -> Student:
    """A student of the header's settings, for the shapes of its parameters.

    Raises:
        InputError: it, or its occupancy, would take more than a compact file's may; before there is room made for it.
    """
    box = _box(header)
    counts = {
        "occupancy.resolution": (math.prod(CellGrid(box, header.occupancy.resolution).shape), "cells", MAX_CELLS),
        "student": (STUDENTS[header.student.kind].parameters_of(header.student), "parameters", MAX_PARAMETERS),
    }
    for field, (count, what, most) in counts.items():
        if count > most:
            raise InputError(path, field, f"{count:,} {what}", f"at most {most:,}")
    with torch.random.fork_rng(devices=[]):
        return build_student((box.lower, box.upper), header.student)


def _parts(header: _Header, student: Student, cells: np.ndarray) -> list[Part]:
    """Raises:
    ValueError: the header's scales are not this layout's.
    """
    own = scales_of(student)
    if len(header.scales) != len(own) or not np.allclose(header.scales, own, rtol=1e-4, atol=1e-4):
        raise ValueError(f"scales {header.scales} of levels that have about {own}")
    return parts_of(student, _box(header), cells, header.occupancy.resolution, header.scales)


def _check_room(count: int, what: str, section: bytes) -> None:
    """Raises:
    ValueError: more is to be coded than these bytes can hold.
    """
    most = DECISIONS_PER_BYTE * len(section)
    if count > most:
        raise ValueError(f"{count:,} {what} in {len(section):,} bytes, which hold {most:,} at most")
