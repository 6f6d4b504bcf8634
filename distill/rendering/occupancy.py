"""Which cells of the scene box are worth sampling: bounded by the teacher, refreshed from the student."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kernels.device_constants import constant
from kernels.marching.ray_samples import Cells
from machine.memory import GIB
from scene.cells import CellGrid
from scene.rays import SceneBox
from settings.errors import InputError
from students.base import Student

# A refresh that would leave less than this fraction of the teacher's cells is taken for a failed student, not for
# empty space: without samples nothing could ever bring the cells back.
LEAST_FRACTION = 0.01
MAX_REFRESHED_CELLS = 1 << 17
MAX_GIB = 4.0
_BYTES_PER_CELL = 8  # two masks and a density that are kept, two more masks during a refresh
UNSEEN = -1.0
"""Remembered density of a cell that no refresh has looked into yet; such cells stay as they are."""


class OccupancyGrid(nn.Module):
    """Cubic cells over the scene box.

    Args:
        box: the scene box.
        resolution: cells along its longest side.
        step: sample distance in world units; a cell is empty when its alpha over one step is below ``threshold``.
        threshold: alpha in [0, 1).
        decay: factor on the remembered density at each refresh.
        opacity_scale: factor on the threshold, see ``teacher.sources.occupied_cells.opacity_scale``.

    Raises:
        InputError: the cells, which are stored densely, would take more than 4 GiB.
    """

    def __init__(
        self,
        box: SceneBox,
        resolution: int,
        step: float,
        threshold: float,
        decay: float,
        opacity_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.layout, self.step, self.decay = CellGrid(box, resolution), step, decay
        self.box, self.resolution = box, resolution
        self.cell_size, self.shape = self.layout.cell_size, self.layout.shape
        memory = _BYTES_PER_CELL * math.prod(self.shape) / GIB
        if memory > MAX_GIB:
            found = f"{resolution}: {'x'.join(map(str, self.shape))} cells that take {memory:.1f} GiB"
            raise InputError("config", "occupancy.resolution", found, f"at most {MAX_GIB:g} GiB", "Use fewer cells.")
        self.opacity_scale = opacity_scale
        self.density_threshold = -math.log1p(-threshold * opacity_scale) / step
        self.register_buffer("refusals", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("teacher", torch.ones(self.shape, dtype=torch.uint8))
        self.register_buffer("occupied", torch.ones(self.shape, dtype=torch.uint8))
        self.register_buffer("remembered", torch.full(self.shape, UNSEEN))
        self._forget()

    @property
    def cells(self) -> Cells:
        """The occupied cells, for ray marching."""
        if self._cells is None:
            self._cells = Cells(self.box.lower, self.cell_size, self.occupied)
        return self._cells

    @property
    def teacher_cells(self) -> Cells:
        """The cells that may ever be sampled, on the CPU."""
        return Cells(self.box.lower, self.cell_size, self.teacher.cpu())

    @property
    def occupied_fraction(self) -> float:
        """Share of the box's cells that are sampled."""
        return self.occupied.float().mean().item()

    def occupied_at(self, positions: Tensor) -> Tensor:
        """(N,) bool: which world positions (N, 3) may be sampled, those in the box and in an occupied cell."""
        device = positions.device
        cell = ((positions - constant(self.box.lower, device)) * (1 / self.cell_size)).floor().long()
        last = constant(self.shape, device, torch.int64) - 1
        x, y, z = cell.clamp(min=0).minimum(last).unbind(-1)
        return self.box.contains(positions) & (self.occupied[x, y, z] != 0)

    def bound_by_teacher(self, mask: Tensor) -> None:
        """Starts from the teacher's cells (X, Y, Z); nothing outside them will ever be sampled."""
        self.teacher.copy_(mask)
        self.occupied.copy_(mask)
        self._forget()

    @torch.no_grad()
    def refresh(self, student: Student, generator: torch.Generator) -> None:
        """Takes the student's density at a random place in each of the teacher's cells into the memory.

        In a large grid a random part of them is looked into at a time. Cells whose remembered density falls below
        the threshold become empty, unless almost all would; ``refusals`` counts how often that was so.

        Numbers are drawn where the generator is: with one on the grid's device nothing but the first call waits for it.
        """
        if self._teacher_cells is None:
            self._teacher_cells = self.teacher.reshape(-1).nonzero()[:, 0]
        candidates, drawn = self._teacher_cells, {"generator": generator, "device": generator.device}
        if len(candidates) > MAX_REFRESHED_CELLS:
            pick = torch.randint(len(candidates), (MAX_REFRESHED_CELLS,), **drawn)
            candidates = candidates.index_select(0, pick.to(candidates.device))
        place = torch.rand((len(candidates), 3), **drawn).to(candidates.device)
        _, rows, depth = self.shape
        corner = torch.stack([candidates // (rows * depth), candidates // depth % rows, candidates % depth], dim=-1)
        lower = constant(self.box.lower, place.device)
        density = student.density(lower + (corner + place) * self.cell_size)
        remembered, cells = self.remembered.view(-1), self._teacher_cells
        # Gathered and scattered so, not by ``remembered[candidates]``, which takes a CPU seven times as long.
        remembered.scatter_(0, candidates, self.decay * remembered.index_select(0, candidates))
        remembered.scatter_reduce_(0, candidates, density, "amax")  # a cell may have been picked twice
        # Of the teacher's cells alone: the others are empty, and stay so.
        known = remembered.index_select(0, cells)
        occupied = (known < 0) | (known > self.density_threshold)
        too_few = occupied.sum() < LEAST_FRACTION * len(cells)
        self.refusals += too_few
        self.occupied.view(-1).scatter_(0, cells, (occupied | too_few).to(torch.uint8))
        self.cells.follow()

    def load_state_dict(self, *args, **kwargs):
        self._forget()
        return super().load_state_dict(*args, **kwargs)

    def _apply(self, fn, recurse=True):
        self._forget()  # moved to another device, ``occupied`` is another tensor
        return super()._apply(fn, recurse)

    def _forget(self) -> None:
        """Drops what follows from the masks."""
        self._cells: Cells | None = None
        self._teacher_cells: Tensor | None = None
