"""The device of a run."""

from __future__ import annotations

import contextlib
import os
import platform

import torch

from kernels.triton_support import triton_refusal
from settings.config import Config
from settings.errors import InputError


def choose_device(config: Config) -> torch.device:
    """The device of a run.

    Raises:
        InputError: CUDA is asked for and absent, has no such index, or cannot run the kernels asked for.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.kernels != "numba" else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and config.kernels == "numba":
        raise InputError("config", "kernels", f"numba on {name}", "auto or torch", "numba's kernels run on the CPU.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InputError("--device", "device", name, f"one of {count} CUDA devices", "Use --device cpu.")
    refusal = triton_refusal(device) if config.kernels == "triton" else None
    if refusal is not None:
        raise InputError("config", "kernels", f"triton on {name}", "auto or torch", f"Here {refusal}.")
    return device


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's product name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({os.cpu_count()} cores)"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()} cores)"
