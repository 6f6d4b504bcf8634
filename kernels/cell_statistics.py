"""Statistics of the occupied cells of a grid, stored for those alone, and how to find them by position."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CellStatistics:
    """What Gaussians add up to in M occupied cells of a grid of cubes; see ``kernels.gaussian_statistics``.

    24 + 4 C bytes per occupied cell (``nbytes``), nothing for empty ones.

    Attributes:
        lower: world position of the grid's corner; cell_size: world units; shape: X, Y, Z cells.
        indices: (M,) int64, ascending: (x * Y + y) * Z + z of each cell.
        density: (M,) extinction averaged over the cell and over directions, 1 / world unit.
        amplitude_max, amplitude_sum: (M,) over the Gaussians that reach the cell, of the largest alpha
            opacity * G(x) each has in it.
        count: (M,) int32 number of those Gaussians, at least 1.
        channels: (M, C) means of per-Gaussian values, weighted by extinction; 0 where density is 0.
    """

    lower: tuple[float, float, float]
    cell_size: float
    shape: tuple[int, int, int]
    indices: Tensor
    density: Tensor
    amplitude_max: Tensor
    amplitude_sum: Tensor
    count: Tensor
    channels: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        tensors = self.indices, self.density, self.amplitude_max, self.amplitude_sum, self.count, self.channels
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def amplitude_mean(self) -> Tensor:
        """(M,) in (0, 1]."""
        return self.amplitude_sum / self.count

    def coordinates(self) -> Tensor:
        """(M, 3) int64 x, y, z of each cell."""
        return torch.stack(torch.unravel_index(self.indices, self.shape), dim=-1)

    def mask(self, chosen: Tensor | None = None) -> Tensor:
        """(X, Y, Z) uint8, dense: the cells, or those of them that ``chosen`` (M,) bool names."""
        cells = torch.zeros(self.shape, dtype=torch.uint8, device=self.indices.device)
        cells.view(-1)[self.indices if chosen is None else self.indices[chosen]] = 1
        return cells

    def rows(self, positions: Tensor) -> Tensor:
        """(P,) int64: row of the cell each world position (P, 3) lies in; -1 for empty cells and outside the grid."""
        return self._rows_of(torch.floor(self._in_cells(positions)).long())

    def corners(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (P, 8), -1 where empty, and trilinear weights (P, 8) of sum 1 of the cell centres around positions."""
        place = self._in_cells(positions) - 0.5
        below = torch.floor(place)
        rows, weights = [], []
        for corner in itertools.product((0, 1), repeat=3):
            offset = place.new_tensor(corner)
            rows.append(self._rows_of((below + offset).long()))
            weights.append((1 - (place - below - offset).abs()).prod(-1))
        return torch.stack(rows, dim=-1), torch.stack(weights, dim=-1)

    def interpolate(self, values: Tensor, positions: Tensor) -> Tensor:
        """(P,) or (P, C): trilinear interpolation of ``values`` (M,) or (M, C), which are 0 in empty cells."""
        rows, weights = self.corners(positions)
        weights = torch.where(rows >= 0, weights, 0).to(values.dtype)
        if not len(values):
            return values.new_zeros(len(positions), *values.shape[1:])
        return torch.einsum("pk,pk...->p...", weights, values[rows.clamp(min=0)])

    def _in_cells(self, positions: Tensor) -> Tensor:
        return (positions.double() - positions.new_tensor(self.lower).double()) / self.cell_size

    def _rows_of(self, cells: Tensor) -> Tensor:
        inside = ((cells >= 0) & (cells < cells.new_tensor(self.shape))).all(-1)
        if not len(self):
            return torch.full_like(inside, -1, dtype=torch.int64)
        flat = (cells[..., 0] * self.shape[1] + cells[..., 1]) * self.shape[2] + cells[..., 2]
        row = torch.searchsorted(self.indices, flat).clamp(max=len(self) - 1)
        return torch.where(inside & (self.indices[row] == flat), row, -1)
