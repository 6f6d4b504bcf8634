"""Students as safetensors files: what a checkpoint holds to render by, bit for bit, in a layout that others can read.

Tensors are named ``student.<parameter>``, ``occupancy.<mask>`` and, where there is a far field,
``far_field.weights.<parameter>`` and ``far_field.occupancy.<mask>``; plain values are JSON in the file's metadata. The
layout is in docs/export.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from machine.file_kinds import file_kind
from machine.files import write_atomically
from machine.fingerprints import cache_key
from machine.weights_files import in_one_line, restoring
from settings.errors import InputError
from students import STUDENTS, stored_settings
from students.base import UNITS

FORMAT = 1
FIELD, EXPECTED = "safetensors file", "a student that tools/export.py wrote"
_PARTS = {"student": "weights", "occupancy": "state"}
_DAMAGED = "It was damaged after it was written; export it again."


def is_safetensors(path: str | Path) -> bool:
    """Whether a file is a safetensors one by its first bytes."""
    kind = file_kind(path)
    return kind is not None and kind.key == "safetensors"


def is_of_compact(path: str | Path) -> bool:
    """Whether a safetensors file was made of a compact one, whose weights are rounded.

    Raises:
        InputError: it cannot be read.
    """
    return _read(Path(path))[0].get("made_of") == "compact"


def save_safetensors(path: Path, state: Mapping[str, Any]) -> int:
    """Writes what it takes to render the student of a checkpoint, atomically; returns the bytes of the file.

    Optimiser, random state and the like stay behind: no run can go on from the file.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor for part, inner in _PARTS.items() for name, tensor in state[part][inner].items()
    }
    plain = {part: {key: value for key, value in state[part].items() if key != _PARTS[part]} for part in _PARTS}
    far_field = state.get("far_field")
    if far_field is not None:
        for inner in ("weights", "occupancy"):
            tensors |= {f"far_field.{inner}.{name}": tensor for name, tensor in far_field[inner].items()}
        plain["far_field"] = {"settings": far_field["settings"]}
    # Copies: the masks of a compact file are one tensor, and safetensors refuses to write that twice.
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "program": "lego_response_distill",
        "format": str(FORMAT),
        "units": UNITS,
        "made_of": "compact" if "compact_bytes" in state else "checkpoint",
        "step": str(state["step"]),
        "box": json.dumps(state["box"]),
        **{name: json.dumps(values) for name, values in plain.items()},
        "config": state["config"],
    }
    content = save(tensors, metadata | {"sha256": _seal(metadata, tensors)})
    write_atomically(path, content)
    return len(content)


def load_safetensors(path: Path, device: torch.device | str) -> dict[str, Any]:
    """Reads such a file as a checkpoint that can be rendered, not trained on.

    Raises:
        InputError: damaged, of another program or version, or of settings that need more than the file holds.
    """
    metadata, tensors = _read(path)
    if metadata.get("program") != "lego_response_distill":
        found = f"one of another program (tensors: {', '.join(list(tensors)[:3]) or 'none'})"
        raise InputError(path, FIELD, found, EXPECTED, "Weights of other programs cannot be read.")
    if metadata.get("format") != str(FORMAT):
        raise InputError(path, "format", metadata.get("format"), FORMAT, "It was written by another version.")
    if _seal(metadata, tensors) != metadata.get("sha256"):
        raise InputError(path, FIELD, "values that do not match its checksum", EXPECTED, _DAMAGED)
    with restoring(path, FIELD):
        state = {part: {**json.loads(metadata[part]), inner: {}} for part, inner in _PARTS.items()}
        if "far_field" in metadata:
            state["far_field"] = {**json.loads(metadata["far_field"]), "weights": {}, "occupancy": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            inner = _PARTS.get(part)
            if inner is None:
                inner, _, rest = rest.partition(".")
            state[part][inner][rest] = tensor.to(device)
        _check_room(state, path)
        plain = {"step": int(metadata["step"]), "box": json.loads(metadata["box"]), "config": metadata["config"]}
    return {"format": FORMAT, **plain, **state}


def _check_room(state: Mapping[str, Any], path: Path) -> None:
    """Raises:
    ValueError: the settings are of a student larger than the file, for which no room is made.
    """
    stored = state["student"]
    settings = stored_settings(stored["kind"], stored["settings"], path)
    wanted = STUDENTS[stored["kind"]].parameters_of(settings)
    held = sum(math.prod(tensor.shape) for tensor in stored["weights"].values())
    if wanted > held:
        raise ValueError(f"settings of a student of {wanted:,} parameters, where {held:,} values are stored")


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        found = f"a file that cannot be read ({in_one_line(error)})"
        raise InputError(path, FIELD, found, EXPECTED, "It was cut short or damaged.") from error


def _seal(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all that is in a file but this: safetensors itself checks sizes alone."""
    plain = {name: text for name, text in metadata.items() if name != "sha256"}
    return cache_key(plain, *(part for name in sorted(tensors) for part in (name, tensors[name])))
