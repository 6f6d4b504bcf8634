"""Small constants on a device, moved there once: made anew, each would have the host wait for the device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """``values`` as a tensor, the same one for the same arguments; not to be changed."""
    return torch.tensor(values, dtype=dtype, device=device)
