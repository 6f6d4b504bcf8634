"""Rows of matrices, each multiplied from both sides: maps between networks' weights and other coordinates of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.coding import matrix_maps_numba
from kernels.dispatch import resolve


def map_matrices(
    rows: Tensor, lefts: Sequence[Tensor], rights: Sequence[Tensor], implementation: str = "auto"
) -> Tensor:
    """(N, P) ``left @ matrix @ right.T`` of every matrix of every row.

    Args:
        rows: (N, P) float32, contiguous: matrix after matrix, of H rows and W columns each, row-major.
        lefts, rights: (H, H) and (W, W) float32 of each of them.
        implementation: "auto", "torch" or "numba".
    """
    name = resolve("map_matrices", implementation, rows.device, ("torch", "numba"))
    if name == "numba":
        return matrix_maps_numba.map_matrices(rows, lefts, rights)
    sizes = [len(left) * len(right) for left, right in zip(lefts, rights, strict=True)]
    found = [
        (left @ (each.unflatten(1, (len(left), len(right))) @ right.T)).flatten(1)
        for each, left, right in zip(rows.split(sizes, dim=1), lefts, rights, strict=True)
    ]
    return torch.cat(found, dim=1)
