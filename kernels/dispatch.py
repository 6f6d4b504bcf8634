"""Which implementation of a kernel runs: chosen once, by name, and remembered so that it can be reported."""

from __future__ import annotations

import torch

_PREFERENCE = {"cpu": ("numba", "torch"), "cuda": ("tinycudann", "triton", "torch")}
_chosen: dict[tuple[str, str], str] = {}


def resolve(kernel: str, requested: str, device: torch.device, available: tuple[str, ...]) -> str:
    """Name of the implementation to run for ``kernel`` on ``device``.

    Args:
        kernel: the kernel's name in reports, e.g. ``"hash_encoding"``.
        requested: ``"auto"`` (the fastest available on the device) or one of ``available``.
        available: implementations the kernel has, e.g. ``("torch", "numba")``.

    Raises:
        ValueError: ``requested`` is not available, or cannot run on ``device``.
    """
    usable = [name for name in _PREFERENCE.get(device.type, ("torch",)) if name in available]
    if requested == "auto":
        name = usable[0]
    elif requested in usable:
        name = requested
    else:
        raise ValueError(
            f"kernel {kernel}: implementation '{requested}' cannot run on {device.type}; "
            f"expected one of {['auto', *usable]}"
        )
    _chosen[kernel, device.type] = name
    return name


def chosen_implementations() -> dict[str, str]:
    """Kernels resolved so far in this process: ``{"hash_encoding[cpu]": "numba", ...}``."""
    return {f"{kernel}[{device}]": name for (kernel, device), name in sorted(_chosen.items())}
