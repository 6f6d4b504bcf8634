"""Which implementation of a kernel runs: chosen once, by name, and remembered so that it can be reported."""

from __future__ import annotations

import logging
from collections import Counter

import torch

from kernels.triton_support import interpreting, triton_refusal

_PREFERENCE = {"cpu": ("numba", "torch"), "cuda": ("triton", "torch")}
# A kernel without a twin of these names takes them as "auto" where they can run, so that a whole run can ask for them.
_OF_WHOLE_RUNS = ("triton", "tinycudann")
_chosen: dict[tuple[str, str], str] = {}
_told: set[str] = set()
_log = logging.getLogger(__name__)


def resolve(kernel: str, requested: str, device: torch.device, available: tuple[str, ...]) -> str:
    """Name of the implementation to run for ``kernel`` on ``device``.

    Args:
        kernel: the kernel's name in reports, e.g. ``"hash_encoding"``.
        requested: ``"auto"`` (the fastest available on the device) or one of ``available``. On the CPU ``"triton"``
            runs in Triton's interpreter, for tests; ``"auto"`` never chooses the interpreter. A kernel without a
            Triton twin takes ``"triton"`` as ``"auto"`` where Triton can run, one without tinycudann's ``"tinycudann"``
            on CUDA, so that a whole run can ask for it. ``"auto"`` never chooses tinycudann.
        available: implementations the kernel has, e.g. ``("torch", "numba")``.

    Raises:
        ValueError: ``requested`` is not available, or cannot run on ``device``.
    """
    refusal = triton_refusal(device) if "triton" in (*available, requested) else None
    runs = device.type == "cuda" if requested == "tinycudann" else refusal is None
    if requested in _OF_WHOLE_RUNS and requested not in available and runs:
        requested = "auto"
    usable = [name for name in _PREFERENCE.get(device.type, ("torch",)) if name in available]
    usable = [name for name in usable if name != "triton" or refusal is None]
    by_name = usable
    if device.type == "cpu" and "triton" in available and refusal is None:
        by_name = [*usable, "triton"]
    if device.type == "cuda" and "tinycudann" in available:
        by_name = [*usable, "tinycudann"]
    if requested == "auto":
        name = _fastest(usable, refusal, device)
    elif requested in by_name:
        name = requested
    else:
        reason = f" ({refusal})" if requested == "triton" and refusal else ""
        raise ValueError(
            f"kernel {kernel}: implementation '{requested}' cannot run on {device.type}{reason}; "
            f"expected one of {['auto', *by_name]}"
        )
    _chosen[kernel, device.type] = name
    return name


def by_triton(kernel: str, requested: str, device: torch.device) -> bool:
    """Whether a kernel whose only twin is Triton's runs by that; one that runs by its reference is not reported.

    Raises:
        ValueError: as ``resolve``.
    """
    if requested in ("torch", "numba") or (requested == "auto" and device.type == "cpu"):
        return False
    return resolve(kernel, requested, device, ("torch", "triton")) == "triton"


def _fastest(usable: list[str], refusal: str | None, device: torch.device) -> str:
    """The first of ``usable`` that compiles; says once why CUDA makes do with torch."""
    if usable[0] == "triton" and interpreting():
        refusal, usable = "TRITON_INTERPRET is set, and the interpreter is for tests", usable[1:]
    if device.type == "cuda" and usable[0] == "torch" and refusal is not None and refusal not in _told:
        _told.add(refusal)
        _log.warning("kernels run on torch, several times slower: %s", refusal)
    return usable[0]


def chosen_implementations() -> dict[str, str]:
    """Kernels resolved so far in this process: ``{"hash_encoding[cpu]": "numba", ...}``."""
    return {f"{kernel}[{device}]": name for (kernel, device), name in sorted(_chosen.items())}


def implementations_in_words() -> str:
    """``chosen_implementations`` for people: of each device the usual one, and the kernels that run on another.

    ``"numba on cpu"``, or ``"triton on cuda, but torch for ssim; numba on cpu"``.
    """
    texts = []
    for device in sorted({device for _, device in _chosen}, reverse=True):  # cuda first
        names = {kernel: name for (kernel, on), name in sorted(_chosen.items()) if on == device}
        (usual, _), *_ = Counter(names.values()).most_common(1)
        others = [f"{name} for {kernel}" for kernel, name in names.items() if name != usual]
        texts.append(f"{usual} on {device}" + (f", but {', '.join(others)}" if others else ""))
    return "; ".join(texts)
