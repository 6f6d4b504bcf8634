"""A hash table's features in the coordinates in which rounding them is cheapest.

A level's features are read by the first matrix of the density MLP alone, so any invertible map of them that is undone
in the matrix leaves the student as it is. The one taken makes an error cost the same along all of a level's features
and leaves these uncorrelated (the Karhunen-Loeve transform under the loss's metric, as in transform coding): a few
features carry most of the level, and what the others hold is mostly zero after rounding. The file knows nothing of it.
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from students.hash_grid import HashGridStudent

_RIDGE = 1e-6  # of the mean variance, added: a feature that is not in use has none


@torch.no_grad()
def decorrelate_features(
    student: HashGridStudent, moments: MutableMapping[nn.Parameter, dict[str, Tensor]], stored: Tensor
) -> None:
    """Maps every level's features, and what Adam knows of them; what the student renders stays, but for rounding.

    Args:
        student: its table and the first matrix of its density MLP are changed in place.
        moments: ``first_moment`` and ``second_moment`` of these two, changed in place; the first of the table says how
            the loss depends on features.
        stored: (entries,) bool, the entries that statistics are of.
    """
    layout, matrix = student.layout, student.density_weights[0]
    of_table, of_matrix = moments[student.table], moments[matrix]
    for level, (first, last) in enumerate(zip(layout.offsets[:-1], layout.offsets[1:], strict=True)):
        rows, columns = slice(int(first), int(last)), slice(level * layout.features, (level + 1) * layout.features)
        used = stored[rows]
        forward = _map(student.table[rows][used], of_table["first_moment"][rows][used])
        back = torch.linalg.inv(forward).to(student.table.dtype)
        forward = forward.to(student.table.dtype)
        student.table[rows] = student.table[rows] @ forward.T
        matrix[:, columns] = matrix[:, columns] @ back
        # Gradients go the other way; of their squares as much as is known without their products.
        of_table["first_moment"][rows] = of_table["first_moment"][rows] @ back
        of_table["second_moment"][rows] = of_table["second_moment"][rows] @ back**2
        of_matrix["first_moment"][:, columns] = of_matrix["first_moment"][:, columns] @ forward.T
        of_matrix["second_moment"][:, columns] = of_matrix["second_moment"][:, columns] @ (forward.T**2)


def _map(weights: Tensor, gradients: Tensor) -> Tensor:
    """(features, features) float64 of determinant 1 or -1, for columns: after it, gradients (entries, features) have
    equal variances and no correlation, weights no correlation, and variances that fall from feature to feature.
    """
    cost = _moment_matrix(gradients)
    cost /= torch.linalg.det(cost) ** (1 / len(cost))
    values, vectors = torch.linalg.eigh(cost)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    _, axes = torch.linalg.eigh(root @ _moment_matrix(weights) @ root)
    return axes.flip(1).T @ root


def _moment_matrix(samples: Tensor) -> Tensor:
    """Sums of products, to the scale of 1; the unit matrix where there is nothing."""
    samples = samples.double()
    unit = torch.eye(samples.shape[1], dtype=torch.float64, device=samples.device)
    total = samples.T @ samples
    mean = total.trace() / len(total)
    return total / mean + _RIDGE * unit if mean > 0 else unit
