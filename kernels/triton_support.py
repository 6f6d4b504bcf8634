"""Whether Triton can run here, found out without importing it on a CPU, and what its kernels' launchers share.

A kernel ``foo`` has its Triton twin in ``foo_triton``, which is imported in the first call that needs it: Triton is
not there on every platform, and it decides at import whether its kernels are compiled or interpreted.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch

LEAST_CAPABILITY = (7, 0)  # of a GPU that Triton compiles for
LEAST_DOT = 16  # rows, columns and depth of the smallest tl.dot
# Of a network's layer, by the bytes of a value: of wider ones neither the weights nor the sums of the gradients fit.
MAX_WIDTHS = {2: 64, 4: 32}
MAX_WIDTH = 64  # of a network that is only rendered


def interpreting() -> bool:
    """Whether Triton's kernels are interpreted on the CPU: TRITON_INTERPRET=1, set before triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def triton_refusal(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on tensors of ``device``; None where they can."""
    if not _installed():
        return "triton is not installed (torch's CUDA builds for Linux bring it)"
    if device.type == "cuda":
        return _gpu_refusal(device)
    if device.type == "cpu" and interpreting():
        return None
    return (
        "triton needs a CUDA device, or for tests on the CPU its interpreter, TRITON_INTERPRET=1 set before the start"
    )


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _gpu_refusal(device: torch.device) -> str | None:
    if not torch.cuda.is_available():
        return None
    found = LEAST_CAPABILITY if torch.version.hip else torch.cuda.get_device_capability(device)
    if found < LEAST_CAPABILITY:
        needed = ".".join(map(str, LEAST_CAPABILITY))
        return f"triton needs compute capability {needed}, found {'.'.join(map(str, found))}"
    return None if interpreting() else _driver_refusal()


@cache
def _driver_refusal() -> str | None:
    """Why Triton cannot launch anything: it builds its launcher from C in the first launch, or finds one it built."""
    from triton.runtime import driver

    try:
        driver.active.get_current_device()
    except Exception as error:  # of whatever kind: no compiler, one that fails, no header, no libcuda, no cache folder
        said = next(iter(str(error).splitlines()), type(error).__name__)
        needs = "it needs a C compiler (gcc, clang, or what the variable CC names) and Python's headers"
        return f"triton cannot build its launcher: {needs}; it says: {said}"
    return None


def padded(width: int, least: int = 1) -> int:
    """The power of two, at least ``least``, that holds ``width``: Triton's blocks have no other sizes.

    ``least`` is ``LEAST_DOT`` for a side of a matrix product.
    """
    return max(least, 1 << max(0, width - 1).bit_length())


def launch_on(device: torch.device) -> AbstractContextManager:
    """Within it kernels are launched on ``device``: Triton launches on the current one, wherever the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
