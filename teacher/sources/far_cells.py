"""The cells of contracted space that are outside the scene box, and those that a teacher's Gaussians reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.marching.contraction import contract
from scene.cells import CellGrid
from scene.rays import SceneBox
from teacher.gaussians import Gaussians
from teacher.sources.occupied_cells import cells_of_gaussians


def cells_beyond(box: SceneBox, cells: CellGrid, reach: float) -> Tensor:
    """(N, N, N) uint8: cells that are not all inside the box, nor all farther behind it than ``reach`` of its sides.

    Args:
        cells: over the contracted cube.
    """
    middle, half = _frame(box)
    ends = [((torch.tensor(corner) - middle) / half).tolist() for corner in (box.lower, box.upper)]
    steps = torch.arange(cells.resolution + 1, dtype=torch.float64) * cells.cell_size + cells.box.lower[0]
    first, last = steps[:-1], steps[1:]
    # What is in the box has not been moved by the contraction.
    within = [(first >= low) & (last <= high) for low, high in zip(*ends, strict=True)]
    farthest = 2 - 1 / (2 * reach + math.sqrt(3))
    near = (first < farthest) & (last > -farthest)
    inside, reached = _product(within), _product([near] * 3)
    return (reached & ~inside).to(torch.uint8)


def far_cells_of_gaussians(gaussians: Gaussians, box: SceneBox, cells: CellGrid, reach: float) -> Tensor:
    """(N, N, N) uint8: cells in which some Gaussian can be drawn, those around them included.

    Boxes of doubled size, each cut into as many cells as the cube, find them: a cell of the k-th is no wider than the
    contracted one at its distance.
    """
    middle, half = _frame(box)
    mask = torch.zeros(cells.shape, dtype=torch.uint8)
    for doubling in range(max(1, math.ceil(math.log2(2 * reach + 1))) + 1):
        side = half * 2**doubling
        level = CellGrid(SceneBox(tuple((middle - side).tolist()), tuple((middle + side).tolist())), cells.resolution)
        places = cells_of_gaussians(gaussians, level).nonzero()
        offsets = ((places + 0.5) / cells.resolution * 2 - 1) * 2**doubling
        own = offsets[offsets.abs().amax(-1) > (2 ** (doubling - 1) if doubling else 0)]
        x, y, z = ((contract(own) - cells.box.lower[0]) / cells.cell_size).long().unbind(-1)
        mask[x, y, z] = 1
    return F.max_pool3d(mask[None, None].float(), 3, stride=1, padding=1)[0, 0].to(torch.uint8)


def _frame(box: SceneBox) -> tuple[Tensor, float]:
    """The box's middle (3,), and half of its longest side."""
    return torch.tensor(box.centre), max(box.extent) / 2


def _product(masks: list[Tensor]) -> Tensor:
    """(N, N, N) bool, where all three hold along their axes."""
    x, y, z = masks
    return x[:, None, None] & y[None, :, None] & z[None, None, :]
