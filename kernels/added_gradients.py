"""Where backward passes add parameters' gradients: into a leaf's ``.grad``, so that no step allocates a dense one."""

from __future__ import annotations

import torch
from torch import Tensor


def room_for_gradient(parameter: Tensor, wanted: bool = True) -> tuple[Tensor, Tensor | None]:
    """Where a backward pass adds a parameter's gradient, and what it returns of it.

    Args:
        wanted: whether autograd asks for the gradient.

    Returns:
        Contiguous float32 of the parameter's shape: the ``.grad`` of a contiguous float32 leaf, else zeros. Then what
        is for autograd: these zeros, or None where the gradient is in ``.grad`` already or nobody wants it.
    """
    if wanted and parameter.is_leaf and parameter.dtype == torch.float32 and parameter.is_contiguous():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad.is_contiguous():
            return parameter.grad, None
    room = torch.zeros(parameter.shape, dtype=torch.float32, device=parameter.device)
    return room, room if wanted else None
