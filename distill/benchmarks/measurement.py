"""Interleaved timing of cases, and the device's own limits to set them against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from distill.benchmarks.case import Case, Sizes
from kernels.threads import one_torch_thread
from machine.telemetry import gpu_mem_gib, reset_gpu_peak, synchronize

_TRIES = 3  # copies and products per round, of which the best counts


@dataclass
class Timing:
    """Seconds of a case's counted calls, and the most memory in GiB on the GPU during them (None: not measured)."""

    case: Case
    seconds: list[float]
    peak_gib: float | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Limits:
    """What a device was measured to do: bytes copied (read and written) and float32 products and sums per second."""

    bytes_per_s: float
    flops_per_s: float

    def least_seconds(self, case: Case) -> float | None:
        """The roofline's bound for a case: its bytes or its FLOPs, whichever takes longer; None if neither counts."""
        bounds = []
        if case.bytes is not None:
            bounds.append(case.bytes / self.bytes_per_s)
        if case.flops is not None:
            bounds.append(case.flops / self.flops_per_s)
        return max(bounds, default=None)


def measure(
    cases: Sequence[Case], repeats: int, device: torch.device
) -> tuple[list[Timing], list[tuple[Case, Exception]]]:
    """Times the cases, ``repeats`` rounds over all of them in turn after one that is not counted.

    Returns:
        The timings, and the cases that the uncounted round showed cannot run here, each with the reason.
    """
    timings: list[Timing] = []
    refused: list[tuple[Case, Exception]] = []
    for case in cases:
        try:
            _timed(case, device)
        except (ValueError, ImportError, torch.OutOfMemoryError) as error:
            refused.append((case, error))
        else:
            timings.append(Timing(case, []))
    for _ in range(repeats):
        for timing in timings:
            seconds, peak = _timed(timing.case, device)
            timing.seconds.append(seconds)
            if peak is not None:
                timing.peak_gib = max(peak, timing.peak_gib or 0.0)
    return timings, refused


def _timed(case: Case, device: torch.device) -> tuple[float, float | None]:
    case.before()
    reset_gpu_peak(device)
    own: list[object] = []
    seconds = _clocked(lambda: own.append(case.work()), device)
    return own[0] if isinstance(own[0], float) else seconds, gpu_mem_gib(device)


def _clocked(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the device idle before and after."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def limit_cases(device: torch.device, sizes: Sizes) -> list[Case]:
    """What ``limits_from`` needs timed, among the other cases so that it meets the same circumstances.

    A copy and a float32 matrix product of torch's; on a GPU the product may be TF32's.
    """
    source = torch.rand(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    left, right = torch.rand(2, sizes.matrix, sizes.matrix, device=device)
    product = torch.empty_like(left)

    def multiply() -> None:
        allowed = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            torch.mm(left, right, out=product)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = allowed

    def best(work: Callable[[], object]) -> float:
        """Seconds. On a busy CPU one thread can be faster than all, so both are tried."""
        with one_torch_thread():
            alone = [_clocked(work, device) for _ in range(_TRIES)]
        return min(*alone, *(_clocked(work, device) for _ in range(_TRIES)))

    return [
        Case("copy", "torch", lambda: best(lambda: target.copy_(source)), bytes=2 * source.nbytes),
        Case("matmul", "torch", lambda: best(multiply), flops=2 * sizes.matrix**3),
    ]


def limits_from(timings: Sequence[Timing]) -> tuple[Limits, list[Timing]]:
    """The device's limits, from the best rounds of ``limit_cases`` among the timings, and the other timings."""
    copy, multiply = (next(timing for timing in timings if timing.case.name == name) for name in ("copy", "matmul"))
    limits = Limits(copy.case.bytes / min(copy.seconds), multiply.case.flops / min(multiply.seconds))
    return limits, [timing for timing in timings if timing is not copy and timing is not multiply]
