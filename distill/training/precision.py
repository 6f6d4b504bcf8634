"""The type that a student is trained in."""

from __future__ import annotations

import torch

from settings.config import Config
from settings.errors import InputError

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def training_precision(config: Config, device: torch.device) -> torch.dtype:
    """The type of the factors in a training step; sums, parameters and Adam's moments are float32 always.

    Raises:
        InputError: half precision on a CPU whose kernels have none.
    """
    name = config.train.precision
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "float32" and device.type == "cpu" and config.kernels not in ("torch", "triton"):
        hint = "Half precision is for CUDA; with kernels: torch a CPU can try it out, slowly."
        expected = f"auto or float32, since kernels is {config.kernels} on the CPU"
        raise InputError("config", "train.precision", name, expected, hint)
    return _TYPES[name]
