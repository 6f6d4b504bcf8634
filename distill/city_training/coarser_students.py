"""Coarser students of a city's blocks, for views from afar: fewer levels, taught by the finest student itself."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from distill.city.block_runs import cell_size
from distill.city.manifest import Block, Manifest, StudentFile
from distill.city_rendering.streaming import check_is_of, load_model, shown_blocks
from distill.model.checkpoint import load_checkpoint, save_checkpoint, student_state
from distill.model.model import Model
from distill.training.optimizer import StudentOptimizer
from kernels.threads import one_torch_thread
from machine.devices import choose_device
from machine.terminal import progress_bar
from settings.config import Config
from students import build_student
from students.base import Student
from students.hash_grid import HashGridSettings, HashGridStudent

RATIO = 4
"""Between the cells of a student and those of the next coarser one."""
_STEPS, _SAMPLES = 300, 4096
_log = logging.getLogger(__name__)


def add_coarser(manifest: Manifest, config: Config, count: int) -> Manifest:
    """Makes coarser students of every block, ``blocks/b000/coarser_1.pth`` the finest of them.

    Those that are newer than the block's finest student are kept. A hash grid has as many as leave cells smaller than
    those of its coarsest level; other kinds have none, which is said.

    Args:
        config: the city's.
        count: of a block, at most.

    Returns:
        The manifest with them; it is not written.

    Raises:
        InputError: a block is still to be trained, or its student's file is damaged or another block's.
    """
    blocks = shown_blocks(manifest)
    with one_torch_thread():
        for block in progress_bar(blocks, desc="coarser students", unit=" block"):
            finest = block.students[0]
            made = _coarser_of(manifest, config, block, count)
            manifest = manifest.with_block(block.name, students=(finest, *made))
    return manifest


def _coarser_of(manifest: Manifest, config: Config, block: Block, count: int) -> list[StudentFile]:
    source, device, made = manifest.path(block.students[0].file), choose_device(config), []
    state, model = load_checkpoint(source, device), load_model(config, source, device)
    check_is_of(block, model, source)
    for level in range(1, count + 1):
        settings = coarser_settings(model.student.settings, RATIO**level)
        if settings is None:
            _log.info("%s has no more than %d coarser students", block.name, level - 1)
            break
        file = Path(block.run).with_name(f"coarser_{level}.pth")
        path = manifest.path(file)
        if not _is_made(path, settings, source, config):
            student = taught_by(model, settings, cell_size(settings, block.box), config)
            kept = {name: state[name] for name in ("step", "box", "occupancy", "config")}
            path.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(path, {**kept, "student": student_state(student)})
        size = path.stat().st_size
        made.append(StudentFile(file=file.as_posix(), cell_size=cell_size(settings, block.box), bytes=size))
    return made


def _is_made(path: Path, settings: HashGridSettings, source: Path, config: Config) -> bool:
    """Whether the coarser student is there, and of this finest one and these settings."""
    is_newer = path.is_file() and path.stat().st_mtime > source.stat().st_mtime
    return is_newer and load_model(config, path, torch.device("cpu")).student.settings == settings


def coarser_settings(settings: object, ratio: int) -> HashGridSettings | None:
    """The same hash grid without its finest levels: its finest cells and planes are some ``ratio`` times as large.

    None where no level is at least half as much coarser than the finest, and for other kinds of students.
    """
    if not isinstance(settings, HashGridSettings) or settings.finest_resolution // ratio <= settings.base_resolution:
        return None
    if settings.levels == 1:
        return None
    growth = math.log(settings.finest_resolution / settings.base_resolution) / (settings.levels - 1)
    steps = max(1, round(math.log(settings.finest_resolution / ratio / settings.base_resolution) / growth))
    sides = {side // ratio for side in settings.planes}
    changed = {
        "levels": 1 + steps,
        "finest_resolution": round(settings.base_resolution * math.exp(steps * growth)),
        "planes": tuple(sorted(side for side in sides if side >= settings.base_resolution)),
    }
    coarse = settings.model_copy(update=changed)
    return coarse if _finest(coarse) <= 2 * _finest(settings) / ratio else None


def _finest(settings: HashGridSettings) -> int:
    """Cells along a side of the finest detail."""
    return max(settings.finest_resolution, *settings.planes, 0)


def taught_by(model: Model, settings: HashGridSettings, length: float, config: Config) -> HashGridStudent:
    """A student that shows what another one shows, as far as its cells can.

    Both are asked at random places of the occupied cells. What is compared is alpha over ``length``, the edge of its
    cells, and the colour by that.
    """
    box, teacher, device = model.grid.box, model.student, model.grid.occupied.device
    torch.manual_seed(config.seed)
    student = build_student((box.lower, box.upper), settings, config.kernels).to(device)
    student.density_unit = teacher.density_unit  # of the networks that are taken over
    _take_over(student, teacher)
    optimizer, generator = (
        StudentOptimizer(student, config.train, config.kernels),
        torch.Generator().manual_seed(config.seed),
    )
    cells, lower = model.grid.cells.places, torch.tensor(box.lower, device=device)
    rays = torch.arange(_SAMPLES, device=device)
    for step in range(_STEPS if len(cells) else 0):
        cell = cells[torch.randint(len(cells), (_SAMPLES,), generator=generator).to(device)]
        place = torch.rand(_SAMPLES, 3, generator=generator).to(device)
        positions = lower + (cell + place) * model.grid.cell_size
        directions = torch.nn.functional.normalize(torch.randn(_SAMPLES, 3, generator=generator), dim=-1).to(device)
        with torch.no_grad():
            target, color = _shown(teacher, positions, directions, rays, length)
        alpha, rgb = _shown(student, positions, directions, rays, length)
        loss = (alpha - target).square().mean() + (target[:, None] * (rgb - color).square()).mean()
        loss.backward()
        optimizer.set_rate(0.5 * (1 + math.cos(math.pi * step / _STEPS)))
        optimizer.step()
    return student


@torch.no_grad()
def _take_over(student: HashGridStudent, teacher: HashGridStudent) -> None:
    """The teacher's networks, but for the inputs that are not there, and the entries of grids that are the same."""
    mine, its = student.layout, teacher.layout
    for own, other in zip(student.parameter_groups()["mlp"][1:], teacher.parameter_groups()["mlp"][1:], strict=True):
        own.copy_(other)
    finest = sorted(range(len(its.planes)), key=its.planes.__getitem__)[len(its.planes) - len(mine.planes) :]
    levels = [*range(mine.levels), *(its.levels + 3 * plane + across for plane in finest for across in range(3))]
    channels = [level * its.features + feature for level in levels for feature in range(its.features)]
    inputs, features = student.density_weights[0], teacher.density_weights[0]
    inputs[:, : mine.output_width] = features[:, channels]
    inputs[:, mine.output_width :] = features[:, its.output_width :]  # the direction's
    for level in range(mine.levels):
        own, other = (slice(*layout.offsets[level : level + 2].tolist()) for layout in (mine, its))
        if mine.resolutions[level] == its.resolutions[level] and own.stop - own.start == other.stop - other.start:
            student.table[own] = teacher.table[other]


def _shown(
    student: Student, positions: Tensor, directions: Tensor, rays: Tensor, length: float
) -> tuple[Tensor, Tensor]:
    """Alpha (N,) over a length, and rgb (N, 3)."""
    density, rgb = student(positions, directions, rays)
    return -torch.expm1(-density * length), rgb
