"""How fast something renders and what that costs: one clock for students and teachers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
import torch

from distill.evaluation.power import SETTLE_SECONDS, Power, PowerMeter, idle_power
from machine.telemetry import gpu_mem_gib, reset_gpu_peak, synchronize

T = TypeVar("T")
BURN_IN = 3
TIMED_FRAMES = 24
TIMED_SECONDS = 30.0
POWER_SECONDS = 3.0  # of rendering that power is measured over: many readings, and a GPU that has got warm


@dataclass(frozen=True)
class Speed:
    """Figures of rendering alone, named as columns of the parity CSV; None where not measured.

    Attributes:
        frames: how many renders were timed.
        fps_median: median over the frames of 1 / seconds.
        fps_iqr: distance between the quartiles of the same.
        gpu_peak_gib: most memory on the GPU meanwhile, whoever it belongs to.
        power_avg_w, power_idle_w: mean power of the GPU meanwhile, and before.
        energy_per_frame_j: that power times the time a frame took on average.
        cpu_package_*: the same of the CPU packages together.
    """

    frames: int
    fps_median: float
    fps_iqr: float
    gpu_peak_gib: float | None
    power_avg_w: float | None
    power_idle_w: float | None
    energy_per_frame_j: float | None
    cpu_package_power_avg_w: float | None
    cpu_package_power_idle_w: float | None
    cpu_package_energy_per_frame_j: float | None


def timed(
    render: Callable[[int], T], index: int, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[T, float]:
    """What ``render`` gives for a frame, and the seconds it took from an idle device to an idle device."""
    begin = clock()
    frame = render(index)
    synchronize(device)
    return frame, clock() - begin


def frames_per_second(seconds: Sequence[float]) -> float:
    """The median of the frames' rates: one hiccup of the machine does not move it."""
    return float(np.median(1 / np.asarray(seconds)))


def measure_speed(
    render: Callable[[int], object],
    frames: Sequence[int],
    device: torch.device,
    *,
    burn_in: int = BURN_IN,
    limit_s: float = TIMED_SECONDS,
    meter: Callable[[torch.device], PowerMeter] = PowerMeter,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Speed:
    """Times a render of each frame, the device idle before and after it.

    Where power can be measured the frames are rendered over again until 3 s are over, after 1 s that does not count:
    on many GPUs the driver's reading still holds what went on a second ago.

    Args:
        render: renders frame ``i`` and leaves it on the device.
        frames: at least one.
        burn_in: untimed renders before, in the same order, over again where there are more than frames.
        limit_s: no further frame is begun after this time.
        meter: makes what measures power.
    """
    idle = idle_power(lambda: meter(device), sleep=sleep)
    settle_s, least_s = (0.0, 0.0) if idle == Power() else (SETTLE_SECONDS, POWER_SECONDS)
    begin = clock()
    for n in count():
        if n >= burn_in and clock() - begin >= settle_s:
            break
        timed(render, frames[n % len(frames)], device, clock)
    reset_gpu_peak(device)
    seconds: list[float] = []
    with meter(device) as power:
        begin = clock()
        for n in count():
            spent = clock() - begin
            if n and (spent > limit_s or (n >= len(frames) and spent >= least_s)):
                break
            seconds.append(timed(render, frames[n % len(frames)], device, clock)[1])
    low, high = np.percentile(1 / np.array(seconds), (25, 75))
    drawn, per_frame = power.power(), float(np.mean(seconds))

    def figures(watts: float | None, idle_watts: float | None) -> tuple[float | None, float | None, float | None]:
        return watts, idle_watts, None if watts is None else watts * per_frame

    gpu, cpu = figures(drawn.gpu_w, idle.gpu_w), figures(drawn.cpu_package_w, idle.cpu_package_w)
    return Speed(len(seconds), frames_per_second(seconds), float(high - low), gpu_mem_gib(device), *gpu, *cpu)
