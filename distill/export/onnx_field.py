"""A student's field as ONNX: world position and direction of samples -> density and colour.

Where no sample is ever taken, outside the box and in empty cells, the density is 0, as it is to the renderer. A student
with deferred shading also gives its features, and a second file makes colours of composited ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.export.onnx_graph import Graph, import_onnx
from distill.export.onnx_students import EMISSIONS, cell_number, direction_basis, shade
from distill.model.model import Model
from distill.rendering.occupancy import OccupancyGrid
from machine.files import write_atomically
from settings.errors import InputError
from students.base import Student

TOLERANCE = 1e-4
_POINTS, _CELL_POINTS = 2048, 1024  # of a check: all, and those of them in occupied cells


class OnnxError(NamedTuple):
    """How far onnxruntime's results are from the program's at random points, the largest differences.

    density: relative, of what is under the student's ``density_unit`` in that unit; rgb: of any channel; points: how
    many were compared.
    """

    density: float
    rgb: float
    points: int

    @property
    def is_small(self) -> bool:
        """Whether the file is as good as the student."""
        return max(self.density, self.rgb) <= TOLERANCE


def write_onnx(path: Path, model: Model, step: int) -> tuple[list[Path], OnnxError]:
    """Writes the field, and of a student with deferred shading ``<name>_shade.onnx`` beside it, once it is checked.

    Returns:
        The files, and how exact they are.

    Raises:
        InputError: the student cannot be expressed, onnx or onnxruntime is missing, or the results differ.
        OSError: they cannot be written.
    """
    files = {path: field_bytes(model, step)}
    if model.student.deferred:
        files[path.with_name(f"{path.stem}_shade.onnx")] = shade_bytes(model.student, step)
    error = compared(list(files.values()), model)
    if not error.is_small:
        found = f"density that is off by {error.density:.2g}, colours by {error.rgb:.2g}"
        raise InputError(path, "onnxruntime's results", found, f"{TOLERANCE:g} at most", "Try another onnxruntime.")
    for file, content in files.items():
        write_atomically(file, content)
    return list(files), error


def field_bytes(model: Model, step: int) -> bytes:
    """The ONNX file of ``positions`` (n, 3) world, ``directions`` (n, 3) unit -> ``density`` (n,), ``rgb`` (n, 3), and
    with deferred shading ``features`` (n, C).

    Raises:
        InputError: the student cannot be expressed; why.
    """
    student = model.student
    if model.far_field is not None:
        found = "a student with a far field, whose density is no function of the position alone"
        raise InputError("--onnx", "far_field", found, "a student of what is in its box")
    if type(student) not in EMISSIONS:
        raise InputError("--onnx", "student.kind", student.kind, "hash_grid or kilo_uniform")
    graph = Graph()
    positions, directions = graph.input("positions", 3), graph.input("directions", 3)
    basis = direction_basis(graph, directions, student.direction_degree)
    density, channels = EMISSIONS[type(student)](graph, student, positions, basis)
    density = graph.op("Mul", density, student.density_unit) if student.density_unit != 1 else density
    graph.op("Mul", density, _occupied(graph, model.grid, positions), name="density")
    outputs = {"density": 0, "rgb": 3}
    if student.deferred:
        graph.op("Identity", channels, name="features")
        channels = shade(graph, student, "features", basis)
        outputs["features"] = student.channels
    graph.op("Identity", channels, name="rgb")
    box = {"lower": model.grid.box.lower, "upper": model.grid.box.upper}
    return graph.finished(outputs, {**_metadata(student, step), "box": json.dumps(box)})


def shade_bytes(student: Student, step: int) -> bytes:
    """The ONNX file of ``features`` (n, C), composited ones over the ray's alpha, ``directions`` -> ``rgb`` (n, 3)."""
    graph = Graph()
    features, directions = graph.input("features", student.channels), graph.input("directions", 3)
    rgb = shade(graph, student, features, direction_basis(graph, directions, student.direction_degree))
    graph.op("Identity", rgb, name="rgb")
    return graph.finished({"rgb": 3}, _metadata(student, step))


@torch.no_grad()
def compared(files: Sequence[bytes], model: Model) -> OnnxError:
    """What onnxruntime makes of the files of a student beside what the student says."""
    _, onnxruntime = import_onnx()
    sessions = [onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]) for content in files]
    student, positions = model.student, _points_of(model.grid)
    directions = torch.nn.functional.normalize(torch.randn(len(positions), 3, generator=_generator()), dim=-1)
    device = model.grid.occupied.device
    there = positions.to(device), directions.to(device), torch.arange(len(positions), device=device)
    density, rgb = student(*there)
    density = torch.where(model.grid.occupied_at(there[0]), density, 0.0).cpu()
    feed = {"positions": positions.numpy(), "directions": directions.numpy()}
    found = dict(zip(("density", "rgb"), sessions[0].run(["density", "rgb"], feed), strict=True))
    off = _largest(found["rgb"], rgb)
    if student.deferred:
        (features,) = sessions[0].run(["features"], feed)
        (shaded,) = sessions[1].run(["rgb"], {"features": features, "directions": feed["directions"]})
        off = max(off, _largest(shaded, rgb))
    unit = density.clamp(min=student.density_unit).numpy()
    return OnnxError(_largest(found["density"], density, unit), off, len(positions))


def _largest(found: np.ndarray, expected: Tensor, unit: np.ndarray | float = 1.0) -> float:
    return float(np.max(np.abs(found - expected.cpu().numpy()) / unit))


def _points_of(grid: OccupancyGrid) -> Tensor:
    """Random places of the box, half of them in occupied cells, (N, 3) on the CPU."""
    lower, extent = torch.tensor(grid.box.lower), torch.tensor(grid.box.extent)
    everywhere = lower + torch.rand(_POINTS, 3, generator=_generator()) * extent
    cells = grid.occupied.cpu().nonzero()
    if not len(cells):
        return everywhere
    drawn = cells[torch.randint(len(cells), (_CELL_POINTS,), generator=_generator())]
    inside = lower + (drawn + torch.rand(_CELL_POINTS, 3, generator=_generator())) * grid.cell_size
    return torch.cat([inside, everywhere[_CELL_POINTS:]])


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _metadata(student: Student, step: int) -> dict[str, str]:
    units = "positions in world units, directions unit, density in 1 / world unit, rgb sRGB in [0, 1]"
    settings = json.dumps(student.settings.model_dump(mode="json"))
    return {"units": units, "student": settings, "step": str(step)}


def _occupied(graph: Graph, grid: OccupancyGrid, positions: str) -> str:
    """(n,) 1 where ``OccupancyGrid.occupied_at`` is true, else 0."""
    lower, upper = (np.array(corner, np.float32) for corner in (grid.box.lower, grid.box.upper))
    within = graph.op("And", graph.op("GreaterOrEqual", positions, lower), graph.op("LessOrEqual", positions, upper))
    in_box = graph.op("ReduceMin", graph.floats(within), np.array([-1]), keepdims=0)
    place = graph.op("Mul", graph.op("Sub", positions, lower), 1 / grid.cell_size)
    cell = graph.clipped(graph.op("Floor", place), 0.0, np.array(grid.shape, np.float32) - 1)
    filled = graph.op("Gather", grid.occupied.cpu().numpy().ravel() != 0, cell_number(graph, cell, grid.shape))
    return graph.op("Mul", in_box, graph.floats(filled))
