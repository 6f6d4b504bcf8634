"""Interleaved timing of cases, and the device's own limits to set them against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import torch

from distill.benchmarks.case import Case, Sizes, precision_on
from kernels.threads import one_torch_thread
from machine.telemetry import gpu_mem_gib, reset_gpu_peak, synchronize
from settings.errors import InputError

LEAST_SECONDS = 0.02
REFUSALS = (ValueError, ImportError, torch.OutOfMemoryError)
"""What a case raises that cannot run here; any other error is a fault of the kernels or of the machine."""
_MOST_CALLS = 1000  # in a round
_LIMITS = _COPY, _PRODUCT = "copy", "matmul"
_TRIES = 3  # copies and products per round, of which the best counts


@dataclass
class Timing:
    """How long a case takes.

    Attributes:
        seconds: of a call, in each counted round; none where it failed, or has not had its turn yet.
        peak_gib: most memory on the GPU meanwhile, GiB; None: not measured.
        failure: why it was not measured, or no further; None: it was.
    """

    case: Case
    seconds: list[float]
    peak_gib: float | None = None
    failure: Exception | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Limits:
    """What a device was measured to do: bytes copied (read and written) and products and sums per second."""

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
    group: str,
    cases: Iterable[Case],
    repeats: int,
    device: torch.device,
    *,
    least_s: float = LEAST_SECONDS,
    keep: Callable[[Sequence[Timing]], None] = lambda timings: None,
) -> list[Timing]:
    """Times the cases, ``repeats`` rounds over all of them in turn after one that is not counted.

    A case that fails, in its making too, has its error in the place of figures, and the others go on.

    Args:
        group: names what fails while it is made; its further cases are not known then.
        cases: each is made, then called once, before the next is made.
        least_s: calls are repeated within a round until they take that long together.
        keep: given all timings so far, after each failure and each round: where a GPU has failed, torch may end the
            process as soon as a tensor is freed.

    Raises:
        InputError: a file that a case needs is missing or damaged.
    """
    timings: list[Timing] = []

    def attempt(timing: Timing, least: float) -> tuple[float, float | None] | None:
        try:
            return _timed(timing.case, device, least)
        except InputError:
            raise
        except Exception as error:  # a compiler's, a driver's or a kernel's own
            timing.failure = _kept(error)
            keep(timings)
            return None

    for timing in _made(group, cases):
        timings.append(timing)
        if timing.failure is None:
            attempt(timing, 0.0)
        else:
            keep(timings)
    for _ in range(repeats):
        for timing in timings:
            counted = attempt(timing, least_s) if timing.failure is None else None
            if counted is not None:
                timing.seconds.append(counted[0])
                timing.peak_gib = max(
                    (peak for peak in (counted[1], timing.peak_gib) if peak is not None), default=None
                )
        keep(timings)
    return timings


def _made(group: str, cases: Iterable[Case]) -> Iterator[Timing]:
    """The cases as they are made, the last a failure where one cannot be made."""
    try:
        for case in cases:
            yield Timing(case, [])
    except InputError:
        raise
    except Exception as error:  # as above
        yield Timing(Case(group, "", lambda: None), [], failure=_kept(error))


def _kept(error: Exception) -> Exception:
    """A refusal without what it holds in memory; another error with that: to free it may end the process."""
    return error.with_traceback(None) if isinstance(error, REFUSALS) else error


def _timed(case: Case, device: torch.device, least_s: float) -> tuple[float, float | None]:
    """Mean seconds of a call, and the peak of the memory on a GPU."""
    reset_gpu_peak(device)
    start = time.perf_counter()
    seconds = _mean_seconds(case, device, 1)
    spent = time.perf_counter() - start
    if spent < least_s:
        seconds = _mean_seconds(case, device, min(_MOST_CALLS, ceil(least_s / spent)))
    return seconds, gpu_mem_gib(device)


def _mean_seconds(case: Case, device: torch.device, calls: int) -> float:
    """Of some calls, by the clock of the device: on a GPU they queue up, as in training, and events time each."""
    laps = [_gpu_lap(case) if device.type == "cuda" else _cpu_lap(case) for _ in range(calls)]
    synchronize(device)
    return sum(lap() for lap in laps) / calls


def _cpu_lap(case: Case) -> Callable[[], float]:
    case.before()
    start = time.perf_counter()
    own = case.work()
    seconds = own if isinstance(own, float) else time.perf_counter() - start
    return lambda: seconds


def _gpu_lap(case: Case) -> Callable[[], float]:
    """Calls the case; the seconds are known once the device has done it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    case.before()
    start.record()
    own = case.work()
    end.record()
    return lambda: own if isinstance(own, float) else start.elapsed_time(end) / 1e3


def _clocked(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the device idle before and after."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def limit_cases(device: torch.device, sizes: Sizes) -> list[Case]:
    """What ``limits_from`` needs timed, among the other cases so that it meets the same circumstances.

    A copy and a matrix product of torch's, of factors in the type that training computes in.
    """
    source = torch.rand(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    left, right = torch.rand(2, sizes.matrix, sizes.matrix, device=device).to(precision_on(device))
    product = torch.empty_like(left)

    def best(work: Callable[[], object]) -> float:
        """Seconds. On a busy CPU one thread can be faster than all, so both are tried."""
        with one_torch_thread():
            alone = [_clocked(work, device) for _ in range(_TRIES)]
        return min(*alone, *(_clocked(work, device) for _ in range(_TRIES)))

    return [
        Case(_COPY, "torch", lambda: best(lambda: target.copy_(source)), bytes=2 * source.nbytes),
        Case(_PRODUCT, "torch", lambda: best(lambda: torch.mm(left, right, out=product)), flops=2 * sizes.matrix**3),
    ]


def limits_from(timings: Sequence[Timing]) -> tuple[Limits | None, list[Timing]]:
    """The device's limits, from the best rounds of ``limit_cases`` among the timings, and the other timings.

    None where a limit was not measured.
    """
    seconds = {
        name: [value for timing in timings if timing.case.name == name for value in timing.seconds] for name in _LIMITS
    }
    others = [timing for timing in timings if timing.case.name not in _LIMITS]
    if not all(seconds.values()):
        return None, others
    copy, product = (next(timing.case for timing in timings if timing.case.name == name) for name in _LIMITS)
    return Limits(copy.bytes / min(seconds[_COPY]), product.flops / min(seconds[_PRODUCT])), others
