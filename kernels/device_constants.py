"""Small constants on a device, moved there once: made anew, each would have the host wait for the device."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache  # without an end: a recorded CUDA graph reads a constant where it was
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """``values`` as a tensor, one and the same for the same arguments while the program runs; not to be changed."""
    return torch.tensor(values, dtype=dtype, device=device)
