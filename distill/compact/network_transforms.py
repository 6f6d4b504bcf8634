"""Cells' networks in the coordinates in which rounding them is cheapest.

What an error in a matrix of a tiny MLP costs depends on its direction: along inputs that are large together, and along
outputs that matter together, it costs most. As with a table's features (``transform_coding``), two maps of each matrix,
one of its inputs (the bias is one of them) and one of its outputs, make errors cost alike and differences between cells
uncorrelated, the largest first; cells have the maps in common. They cannot be undone in a neighbouring matrix, since
units lie between, so a compact file holds them: as integers, by which the same bytes give the same weights on any
machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kernels.coding.matrix_maps import map_matrices

_RIDGE = 1e-4  # of the mean, added to what an error costs: where no gradient was seen
_LARGEST = 15  # of what is left of a map's entries without their column's power of two
_MOST_SHIFT = 9  # of these powers
_MOST_CONDITION = 1e5  # of a map that can be undone


class NetworkMaps:
    """Maps between matrices in a row (cells, columns) and their coordinates, of the same shape.

    Args:
        matrices: rows and columns of each.
        integers: the maps back, left and right of each matrix: it is ``left @ coordinates @ right.T``.
        device: where they are applied.
        implementation: of the kernel ``map_matrices``.
    """

    def __init__(
        self,
        matrices: Sequence[tuple[int, int]],
        integers: Sequence[np.ndarray],
        device: torch.device,
        implementation: str = "auto",
    ) -> None:
        self.matrices, self.integers, self._implementation = matrices, tuple(integers), implementation
        maps = [torch.from_numpy(each.astype(np.float64)) for each in self.integers]
        self._back = [each.float().to(device) for each in maps]
        self._forth = [torch.linalg.inv(each).float().to(device) for each in maps]

    def coordinates(self, weights: Tensor) -> Tensor:
        """(cells, columns) coordinates of weights."""
        return self._applied(weights, self._forth)

    def weights(self, coordinates: Tensor) -> Tensor:
        """(cells, columns) float32, nearly those that a file's reader finds."""
        return self._applied(coordinates, self._back)

    def slopes(self, gradients: Tensor) -> Tensor:
        """(cells, columns) gradients by the coordinates, of those by the weights."""
        return self._applied(gradients, [each.T for each in self._back])

    def speeds(self) -> list[Tensor]:
        """(rows * columns,) of each matrix: how far a coordinate moves for a slope of 1 by it when the weights, which
        move, do so for a slope by them.
        """
        squares = [each.square().sum(1) for each in self._forth]
        return [torch.outer(left, right).flatten() for left, right in zip(squares[::2], squares[1::2], strict=True)]

    def _applied(self, rows: Tensor, maps: Sequence[Tensor]) -> Tensor:
        return map_matrices(rows, maps[::2], maps[1::2], self._implementation)


class GradientProducts:
    """What errors cost: sums of products of gradients, of the inputs and of the outputs of matrices.

    Every cell counts alike, however much of the pictures it makes up.
    """

    def __init__(self, matrices: Sequence[tuple[int, int]], device: torch.device) -> None:
        self._matrices = matrices
        self.sums = [torch.zeros(side, side, device=device) for pair in matrices for side in pair]

    def add(self, gradients: Tensor, means: Tensor) -> None:
        """Adds a step's.

        Args:
            gradients: (cells, columns).
            means: (cells, matrices) of their squares, over many steps.
        """
        for k, (each, mean) in enumerate(zip(_split(gradients, self._matrices), means.unbind(1), strict=True)):
            each = (each / mean.sqrt()[:, None, None]).nan_to_num(0.0, 0.0, 0.0)
            self.sums[2 * k] += torch.einsum("nij,nkj->ik", each, each)
            self.sums[2 * k + 1] += torch.einsum("nij,nik->jk", each, each)

    def maps(self, differences: Tensor, implementation: str = "auto") -> NetworkMaps:
        """The maps for these sums and the cells' weights less their mean (cells, columns)."""
        integers = []
        for k, each in enumerate(_split(differences.double(), self._matrices)):
            of_rows, of_columns = torch.einsum("nij,nkj->ik", each, each), torch.einsum("nij,nik->jk", each, each)
            integers += [_map_back(self.sums[2 * k], of_rows), _map_back(self.sums[2 * k + 1], of_columns)]
        return NetworkMaps(self._matrices, integers, differences.device, implementation)


def plain_maps(matrices: Sequence[tuple[int, int]], device: torch.device) -> NetworkMaps:
    """Maps that leave everything as it is."""
    return NetworkMaps(matrices, [np.eye(side, dtype=np.int32) for pair in matrices for side in pair], device)


def _split(rows: Tensor, matrices: Sequence[tuple[int, int]]) -> list[Tensor]:
    sizes = [height * width for height, width in matrices]
    return [each.reshape(len(rows), *shape) for each, shape in zip(rows.split(sizes, dim=1), matrices, strict=True)]


def _map_back(cost: Tensor, products: Tensor) -> np.ndarray:
    """(side, side) int32, for columns: the way back from coordinates in which ``cost`` is the same all along and
    ``products`` are not correlated, and fall.
    """
    cost, unit = cost.double(), torch.eye(len(cost), dtype=torch.float64, device=cost.device)
    mean = cost.trace() / len(cost)
    values, vectors = torch.linalg.eigh(cost / mean + _RIDGE * unit if mean > 0 else unit)
    root, inverse = (vectors @ torch.diag(values**power) @ vectors.T for power in (0.5, -0.5))
    _, axes = torch.linalg.eigh(root @ products @ root)
    found = _as_integers((inverse @ axes.flip(1)).cpu().numpy())
    return found if np.linalg.cond(found) < _MOST_CONDITION else np.eye(len(cost), dtype=np.int32)


def _as_integers(columns: np.ndarray) -> np.ndarray:
    """Columns of few bits, each with a power of two of its own."""
    largest = np.abs(columns).max(0)
    powers = np.ceil(np.log2(largest / _LARGEST))
    powers = np.maximum(powers, powers.max() - _MOST_SHIFT)
    return (np.rint(columns / 2**powers) * 2 ** (powers - powers.min())).astype(np.int32)
