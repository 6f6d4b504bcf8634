"""Power while something runs: the GPU's through NVML; where it has none, the CPU package's through RAPL.

RAPL is read as Linux shows it (``/sys/class/powercap``, kernel documentation ``power/powercap/powercap.rst``):
``intel-rapl:<n>`` is a package on Intel and AMD processors alike, ``energy_uj`` counts its microjoules and starts
again from 0 after ``max_energy_range_uj``. Most systems let only root read it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from machine.telemetry import GpuMonitor

POWERCAP = Path("/sys/class/powercap")
IDLE_SECONDS = 1.0
SETTLE_SECONDS = 1.0  # over which drivers average what they call the power now


@dataclass(frozen=True)
class Power:
    """Mean power in W of the GPU and of the CPU packages together; None where it cannot be measured."""

    gpu_w: float | None = None
    cpu_package_w: float | None = None


class CpuPackages:
    """The processors' own energy counters.

    Args:
        powercap: the folder that holds ``intel-rapl:0`` and its like.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        zones = sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []
        self._zones = [zone for zone in zones if re.fullmatch(r"intel-rapl:\d+", zone.name) and _is_package(zone)]

    def read(self) -> list[tuple[int, int]] | None:
        """(counter, its range) in microjoules of each package; None where one cannot be read, or there is none."""
        try:
            counters = [tuple(_number(zone / name) for name in _COUNTER) for zone in self._zones]
        except (OSError, ValueError):
            return None
        return counters or None

    @staticmethod
    def joules(start: list[tuple[int, int]], end: list[tuple[int, int]]) -> float:
        """Energy in J between two readings less than one turn of the counter apart (262 kJ: 20 minutes at 200 W)."""
        # The counter takes range + 1 values, 0 to range.
        turns = ((after - before) % (span + 1) for (before, span), (after, _) in zip(start, end, strict=True))
        return sum(turns) * 1e-6


class PowerMeter:
    """Measures mean power over its ``with`` block. Power of the CPU is asked for only where the GPU's is not known.

    Args:
        device: the torch device the work runs on.
        powercap: RAPL's folder.
        nvml: a module with pynvml's functions, None for pynvml itself.
        interval_s: seconds between NVML's samples.
        clock: seconds.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        powercap: Path = POWERCAP,
        nvml: ModuleType | Any = None,
        interval_s: float = 0.05,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._gpu = GpuMonitor(device, interval_s, nvml, clock)
        self._packages, self._clock = CpuPackages(powercap), clock

    def __enter__(self) -> PowerMeter:
        self._gpu.__enter__()
        self._energy, self._start = self._packages.read(), self._clock()
        self._end = None
        return self

    def __exit__(self, *error: object) -> None:
        self._seconds, self._end = self._clock() - self._start, self._packages.read()
        self._gpu.__exit__(*error)

    @property
    def has_reading(self) -> bool:
        """Whether there is anything to measure here; known from the start of the block."""
        return self._gpu.mean_power_w() is not None or self._energy is not None

    def power(self) -> Power:
        """The mean over the block, which has ended."""
        gpu = self._gpu.mean_power_w()
        if gpu is not None:
            return Power(gpu_w=gpu)
        if self._energy is None or self._end is None or self._seconds <= 0:
            return Power()
        return Power(cpu_package_w=CpuPackages.joules(self._energy, self._end) / self._seconds)


def idle_power(
    meter: Callable[[], PowerMeter], seconds: float = IDLE_SECONDS, sleep: Callable[[float], None] = time.sleep
) -> Power:
    """Power over some seconds in which this program does nothing, some time after it did something.

    It waits only where there is a reading.

    Args:
        meter: makes what measures power.
    """
    with meter() as first:
        if not first.has_reading:
            return Power()
        sleep(SETTLE_SECONDS)
    with meter() as second:
        sleep(seconds)
    return second.power()


_COUNTER = ("energy_uj", "max_energy_range_uj")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _is_package(zone: Path) -> bool:
    """Laptops have a ``psys`` zone beside the packages, which counts them a second time."""
    try:
        return (zone / "name").read_text(encoding="ascii").startswith("package")
    except OSError:
        return False
