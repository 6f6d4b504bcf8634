"""How fast something renders and what that costs: one clock for students and teachers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.evaluation.power import Power, PowerMeter, idle_power
from machine.telemetry import gpu_mem_gib, reset_gpu_peak, synchronize

BURN_IN = 3
TIMED_FRAMES = 24
TIMED_SECONDS = 30.0


@dataclass(frozen=True)
class Speed:
    """Figures of rendering alone; None where not measured.

    Attributes:
        frames: how many were timed.
        fps_median: median over the frames of 1 / seconds.
        fps_iqr: distance between the quartiles of the same.
        gpu_peak_gib: most memory on the GPU meanwhile, whoever it belongs to.
        power, idle: mean power meanwhile, and before.
        energy_gpu_j, energy_cpu_package_j: energy per frame: power times the time a frame took on average.
    """

    frames: int
    fps_median: float
    fps_iqr: float
    gpu_peak_gib: float | None
    power: Power
    idle: Power
    energy_gpu_j: float | None
    energy_cpu_package_j: float | None


def measure_speed(
    render: Callable[[int], object],
    frames: Sequence[int],
    device: torch.device,
    *,
    burn_in: int = BURN_IN,
    limit_s: float = TIMED_SECONDS,
    meter: Callable[[torch.device], PowerMeter] = PowerMeter,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Times a render of each frame, the device idle before and after it.

    Args:
        render: renders frame ``i`` and leaves it on the device.
        frames: at least one.
        burn_in: untimed renders before, in the same order, over again where there are more than frames.
        limit_s: no further frame is begun after this time.
        meter: makes what measures power.
    """
    idle = idle_power(meter(device))
    for n in range(burn_in):
        render(frames[n % len(frames)])
    synchronize(device)
    reset_gpu_peak(device)
    seconds: list[float] = []
    with meter(device) as power:
        begin = clock()
        for index in frames:
            start = clock()
            if seconds and start - begin > limit_s:
                break
            render(index)
            synchronize(device)
            seconds.append(clock() - start)
    rates = 1 / np.array(seconds)
    low, median, high = np.percentile(rates, (25, 50, 75))
    drawn, per_frame = power.power(), float(np.mean(seconds))
    return Speed(
        frames=len(seconds),
        fps_median=float(median),
        fps_iqr=float(high - low),
        gpu_peak_gib=gpu_mem_gib(device),
        power=drawn,
        idle=idle,
        energy_gpu_j=None if drawn.gpu_w is None else drawn.gpu_w * per_frame,
        energy_cpu_package_j=None if drawn.cpu_package_w is None else drawn.cpu_package_w * per_frame,
    )
