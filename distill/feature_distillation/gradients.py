"""How hard each loss term pulls at the student: norms of gradients, relative to rgb's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from students.base import Student


def gradient_ratios(student: Student, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, float]:
    """L2 norm of the gradient of each weighted term over all of the student's parameters, divided by that of ``rgb``.

    One backward pass per term; the graph is kept, and gradients are zero afterwards. Terms whose weight is 0 have 0;
    without a gradient of rgb there is nothing to compare with, and the result is empty. A gradient that overflows has
    no norm and is left out.

    Args:
        terms: unweighted terms of one graph, ``rgb`` among them; weights: of each.
    """
    norms = {name: _norm(student, weights[name] * term) for name, term in terms.items() if weights[name] > 0}
    rgb = norms.pop("rgb", 0.0)
    if not 0 < rgb < math.inf:
        return {}
    return {name: norm / rgb for name, norm in norms.items() if math.isfinite(norm)}


def _norm(student: Student, loss: Tensor) -> float:
    if not loss.requires_grad:
        return 0.0
    loss.backward(retain_graph=True)
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    for gradient in gradients:
        gradient.zero_()
    return norm
