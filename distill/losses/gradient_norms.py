"""How hard each loss term pulls at the student: norms of gradients, relative to rgb's."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from students.base import Student

_MEMORY = 0.8  # share of the mean so far in the next one


class GradientNorms:
    """Norms of the terms' gradients, each a running mean over the steps it is measured in.

    One batch says little: from one to the next the norms of rgb and of colour change by a factor of three.

    Attributes:
        means: by term, of the unweighted term.
    """

    def __init__(self) -> None:
        self.means: dict[str, float] = {}

    def ratios(
        self, student: Student, terms: Mapping[str, Tensor], weights: Mapping[str, float], scale: float = 1.0
    ) -> dict[str, float]:
        """L2 norm of the gradient of each weighted term over all of the student's parameters, divided by rgb's.

        One backward pass per term; the graph is kept, and gradients are zero afterwards. Terms whose weight is 0 are
        left out; without a gradient of rgb there is nothing to compare with, and the result is empty. A gradient that
        overflows has no norm, and the mean stays as it was.

        Args:
            terms: unweighted terms of one graph, ``rgb`` among them; weights: of each.
            scale: multiplies all for the backward pass, so that small gradients do not vanish in half precision.
        """
        used = [name for name in terms if weights[name] > 0]
        for name in used:
            factor = scale * weights[name]
            norm = _norm(student, factor * terms[name]) / factor
            if math.isfinite(norm):
                self.means[name] = _MEMORY * self.means.get(name, norm) + (1 - _MEMORY) * norm
        rgb = weights["rgb"] * self.means.get("rgb", 0.0)
        if rgb == 0:
            return {}
        return {name: weights[name] * self.means[name] / rgb for name in used if name in self.means and name != "rgb"}


def _norm(student: Student, loss: Tensor) -> float:
    if not loss.requires_grad:
        return 0.0
    loss.backward(retain_graph=True)
    gradients = [parameter.grad for parameter in student.parameters() if parameter.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    for gradient in gradients:
        gradient.zero_()
    return norm
