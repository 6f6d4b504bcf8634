"""What a page holds of a student: the source of its shader, and its values as the GPU reads them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.compact.parts import parts_of, scales_of
from distill.model.model import Model
from distill.reports.html_page import asset
from distill.web.fields import ROW, Texture, hash_grid, kilo_uniform
from distill.web.shader_source import glsl
from kernels.marching.ray_samples import COARSE
from kernels.rendering.fused_render import HashField
from settings.errors import InputError

_MOST_SIDE = 2048  # texels of a 3D texture's side, which most devices have
_LARGEST = float(np.finfo(np.float16).max)
_FARTHEST = 1e30  # a range without an end is written as this


@dataclass(frozen=True)
class PackedStudent:
    """A student for a page.

    Attributes:
        shader: source of the fragment shader, GLSL ES 3.00.
        textures: where in the content its values are: the attributes of a ``Texture``, but ``offset`` and ``length`` in
            bytes for its values.
        content: all values, little-endian, compressed by gzip.
    """

    shader: str
    textures: list[dict[str, Any]]
    content: bytes


def packed_student(model: Model, path: Path) -> PackedStudent:
    """The shader and the values of a student; what no sample reaches is left out.

    Args:
        path: the student's file, for messages.

    Raises:
        InputError: a page cannot express the student.
    """
    _check_expressible(model, path)
    field, cells = model.student.fused_field(), model.grid.occupied.to("cpu", torch.uint8).contiguous().numpy()
    parts = parts_of(model.student, model.grid.box, cells, model.grid.resolution, scales_of(model.student))
    stored = {part.name: part.stored for part in parts}
    if isinstance(field, HashField):
        web = hash_grid(field, stored["table"], path)
    else:
        web = kilo_uniform(field, stored["density_networks"], path)
    constants = {**web.constants, "DEFERRED": field.deferred, **_marching(model)}
    defined = [f"#define {name} {glsl(value)}" for name, value in constants.items()]
    shared, before, behind, march = (asset(__package__, name) for name in ("shared.glsl", *web.files, "march.glsl"))
    files = shared, before, web.source, behind, march
    places, content = [], bytearray()
    for texture in (web.texture, _leaps(model, path)):  # the wider type first: both begin at a multiple of their width
        values = np.ascontiguousarray(texture.values, np.dtype(texture.type).newbyteorder("<")).tobytes()
        described = {name: value for name, value in vars(texture).items() if name != "values"}
        places.append({**described, "offset": len(content), "length": len(values)})
        content += values
    shader = "\n".join(["#version 300 es", *defined, *files])
    return PackedStudent(shader, places, gzip.compress(bytes(content), 9, mtime=0))


def _check_expressible(model: Model, path: Path) -> None:
    """Raises:
    InputError: it is more than what is in its box, of an unknown kind, or of values that a texture cannot hold.
    """
    if model.far_field is not None:
        hint = "A page shows what is in the scene box alone: distil with far_field.kind: none."
        raise InputError(path, "far_field", "a student with a far field", "one without", hint)
    if model.student.fused_field() is None:
        raise InputError(path, "student.kind", model.student.kind, "hash_grid or kilo_uniform")
    for name, values in model.student.named_parameters():
        largest = values.detach().abs().max().item()
        if not largest <= _LARGEST:
            raise InputError(path, f"student.weights.{name}", f"a magnitude of {largest:g}", f"at most {_LARGEST:g}")


def _marching(model: Model) -> dict[str, Any]:
    """Where samples lie on a ray."""
    box, settings = model.grid.box, model.settings.of_pictures()
    return {
        "ROW": ROW,
        "LOWER": box.lower,
        "UPPER": box.upper,
        "CELL_SIZE": model.grid.cell_size,
        "BLOCK": COARSE,
        "NEAR": float(settings.near),
        "FAR": float(min(settings.far, _FARTHEST)),
        "STEP": float(settings.step),
        "STEP_IN_UNITS": float(settings.step * model.student.density_unit),  # of density
        "MOST_SAMPLES": settings.max_samples_per_ray,
        "TERMINATION": float(settings.termination),
    }


def _leaps(model: Model, path: Path) -> Texture:
    """What a ray may leap at a cell: 0, it is occupied; 1, this cell; 1 + n, its block and n - 1 blocks around it.

    Raises:
        InputError: more cells along a side than a texture has texels.
    """
    cells = model.grid.cells
    shape = tuple(model.grid.shape)
    if max(shape) > _MOST_SIDE:
        found = f"{max(shape):,} cells along a side"
        raise InputError(path, "occupancy.resolution", found, f"at most {_MOST_SIDE:,} in a page")
    empty = np.minimum(cells.block_distances.cpu().numpy(), 254)
    for axis, extent in enumerate(shape):
        empty = np.repeat(empty, COARSE, axis)[(*(slice(None),) * axis, slice(extent))]
    leaps = np.where(cells.occupied.cpu().numpy() != 0, 0, 1 + empty)
    return Texture("leaps", "uint8", 1, (shape[2], shape[1], shape[0]), leaps)
