"""A city of untrained students in folders, as ``city.json`` names them."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import torch

from distill.city.manifest import Manifest, read_manifest, write_manifest
from distill.model.checkpoint import box_state, save_checkpoint, student_state
from distill.rendering.occupancy import OccupancyGrid
from scene.cameras import Cameras
from scene.rays import SceneBox
from students.hash_grid import HashGridSettings, HashGridStudent
from teacher.sources import Teacher
from teacher.views.teacher_views import TeacherViews

CONFIG = """\
scene: toy
run: city
device: cpu
kernels: torch
data: {near: 0.05, far: 100.0, resolution: 64}
render: {background: black, sampling: occupancy}
teacher: {kind: bricks}
"""


def toy_city(
    folder: Path,
    shape: tuple[int, int, int],
    *,
    config: str = CONFIG,
    table_size: int = 512,
    finest: tuple[int, int] = (32, 8),
    occupancy: int = 8,
) -> Manifest:
    """Blocks that fill [-1, 1] in x and y and [-1, 0] in z, each with two students of random fields, in files.

    Args:
        shape: blocks along x, y, z.
        table_size, finest: of the students' encodings, the latter of the finer and of the coarser one.
        occupancy: cells of a block's longest side.
    """
    (folder / "city.yaml").write_text(config, encoding="utf-8")
    box = SceneBox((-1, -1, -1), (1, 1, 0))
    edges = [torch.linspace(*ends, n + 1).tolist() for *ends, n in zip(box.lower, box.upper, shape, strict=True)]
    blocks = []
    for index, sides in enumerate(product(*(pairwise(axis) for axis in edges))):
        lower, upper = zip(*sides, strict=True)
        name, students = f"b{index:03d}", []
        files = f"blocks/{name}/run/results/toy/{name}/checkpoints/step_000001.pth", f"blocks/{name}/coarse.pth"
        for file, cells in zip(files, finest, strict=True):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            _save_student(folder / file, SceneBox(lower, upper), index, (table_size, cells), occupancy)
            cell_size = max(high - low for low, high in sides) / cells
            students.append({"file": file, "cell_size": cell_size, "bytes": (folder / file).stat().st_size})
        counts = {"gaussians": 1, "train_cameras": 1, "holdout_cameras": 1, "budget_mib": None, "status": "done"}
        placed = {"name": name, "lower": lower, "upper": upper, "config": "c.yaml", "run": f"blocks/{name}/run"}
        blocks.append({**placed, **counts, "students": students})
    write_manifest(folder, Manifest.model_validate({
        "format": "city", "version": 1, "name": "toy", "config": "city.yaml", "box": box_state(box),
        "gaussians": {"file": "city.ply", "count": 1}, "far_field": None, "blocks": blocks,
    }))  # fmt: skip
    return read_manifest(folder)


def _save_student(path: Path, box: SceneBox, seed: int, encoding: tuple[int, int], resolution: int) -> None:
    torch.manual_seed(seed)
    settings = HashGridSettings(levels=4, table_size=encoding[0], base_resolution=4, finest_resolution=encoding[1])
    student = HashGridStudent((box.lower, box.upper), settings, "torch")
    torch.nn.init.uniform_(student.table, -1.0, 1.0)
    grid = OccupancyGrid(box, resolution, 0.08, threshold=0.01, decay=0.95)
    grid.bound_by_teacher(torch.rand(grid.shape) < 0.3)
    occupancy = {"resolution": resolution, "step": grid.step, "state": grid.state_dict()}
    stored = {"student": student_state(student), "box": box_state(box), "occupancy": occupancy}
    save_checkpoint(path, {"step": 1, **stored, "config": CONFIG})


def noise_views(cameras: Cameras) -> Teacher:
    """A teacher of random opaque pictures, every other one held out."""
    planes = torch.randint(256, (len(cameras), cameras.height, cameras.width, 3), dtype=torch.uint8)
    opaque, held = torch.full(planes.shape[:3], 255, dtype=torch.uint8), torch.arange(len(cameras)) % 2 == 1
    names = tuple(f"{index:05d}" for index in range(len(cameras)))
    views = TeacherViews(cameras, names, planes, opaque, opaque, None, None, None, held)
    return Teacher(views, None, SceneBox((-1, -1, -1), (1, 1, 0)))
