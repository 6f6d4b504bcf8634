"""The device of a run, and random numbers for it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence

import torch

from kernels.encoding.hash_encoding_tinycudann import tinycudann_refusal
from kernels.triton_support import triton_refusal
from machine import ranks
from settings.config import Config
from settings.errors import InputError


def choose_device(config: Config) -> torch.device:
    """The device of a run; of several processes' run, of this one.

    Raises:
        InputError: CUDA is asked for and absent, has no such index, or cannot run the kernels asked for.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() and config.kernels != "numba" else "cpu"
    device = torch.device(ranks.own_device(name))
    if config.kernels == "tinycudann" and (why := _tinycudann_refusal(config, device)) is not None:
        raise InputError("config", "kernels", f"tinycudann on {name}", "auto", f"Here {why}.")
    if device.type == "cuda" and config.kernels == "numba":
        raise InputError("config", "kernels", f"numba on {name}", "auto or torch", "numba's kernels run on the CPU.")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            hint = "Use --device cpu." if ranks.size() == 1 else "Start fewer processes a machine, or use --device cpu."
            raise InputError("--device", "device", str(device), cuda_devices(count), hint)
        if ranks.size() > 1:
            torch.cuda.set_device(device)  # NCCL asks for it
    refusal = triton_refusal(device) if config.kernels == "triton" else None
    if refusal is not None:
        raise InputError("config", "kernels", f"triton on {name}", "auto or torch", f"Here {refusal}.")
    return device


def cuda_devices(count: int) -> str:
    """In words, the CUDA devices that there are to name."""
    last = "" if count == 1 else f" to cuda:{count - 1}"
    return f"cuda:0{last}" if count else "cpu, since torch finds no CUDA device"


def _tinycudann_refusal(config: Config, device: torch.device) -> str | None:
    if getattr(config.student, "planes", ()):
        return "it has no planes (student.planes)"
    return "it needs a CUDA device" if device.type != "cuda" else tinycudann_refusal()


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's product name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()} ({os.cpu_count()} cores)"


def processor_name() -> str:
    """The processor's product name, or its family where the system does not tell."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def host_integer(high: int, generator: torch.Generator) -> int:
    """A random whole number in [0, high), of a generator on the CPU.

    Read through numpy, which refuses tensors on a GPU: a caller that must not wait for the device cannot do so unseen.
    """
    return int(torch.randint(high, (1,), generator=generator).numpy()[0])


def numbers_on(device: torch.device, numbers: Sequence[float]) -> torch.Tensor:
    """(N,) float64: numbers of the host's on ``device``, sent through page-locked memory so that nothing waits."""
    held = torch.empty(len(numbers), dtype=torch.float64, pin_memory=device.type == "cuda")
    held.numpy()[:] = numbers
    return held.to(device, non_blocking=True)


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator for what is drawn on ``device``, seeded by the next number of a generator on the CPU."""
    return torch.Generator(device).manual_seed(host_integer(2**63 - 1, generator))
