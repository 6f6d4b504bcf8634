"""What the GPU does meanwhile: power through NVML, memory through torch. Not measurable is None, without noise."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from machine.memory import GIB

# The energy counter moves some ten times a second: of a shorter block it tells too little.
_COUNTED_SECONDS = 2.0


class GpuMonitor:
    """Samples one GPU's power draw from a thread while its ``with`` block runs.

    ``nvmlDeviceGetPowerUsage`` is a mean over the last second on many GPUs since Ampere, so that it lags behind what
    runs. The power of the moment (``NVML_FI_DEV_POWER_INSTANT``) is read instead where the driver has it, and the mean
    of a block of 2 s or more is that of the energy counter, which misses nothing between samples.

    A CPU device, a missing driver or a GPU that reports no power (MIG slices) leave every reading None.

    Args:
        device: the torch device the work runs on.
        interval_s: seconds between samples; even the power of the moment is a mean over some 25-100 ms.
        nvml: a module with pynvml's functions, None for pynvml itself.
        clock: seconds.
    """

    def __init__(
        self,
        device: torch.device,
        interval_s: float = 0.05,
        nvml: ModuleType | Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._device, self._interval, self._nvml, self._clock = device, interval_s, nvml, clock
        self._handle: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._watts: list[float] = []
        self._read = 0
        self._start: tuple[float, float] | None = None
        self._counted_w: float | None = None

    def __enter__(self) -> GpuMonitor:
        if self._device.type != "cuda":
            return self
        with contextlib.suppress(Exception):  # NVML's errors share no base with a missing package's or library's
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
            self._handle = nvml_handle(self._nvml, self._device)
            self._sample()
            self._start = self._counter()
            self._thread = threading.Thread(target=self._run, name="gpu-power", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        end = None if self._start is None else self._counter()
        if end is not None and end[0] - self._start[0] >= _COUNTED_SECONDS:
            self._counted_w = (end[1] - self._start[1]) / (end[0] - self._start[0])
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            with contextlib.suppress(Exception):
                self._sample()  # a block shorter than the interval still has its end
        if self._handle is not None:
            with contextlib.suppress(Exception):
                self._nvml.nvmlShutdown()

    def mean_power_w(self) -> float | None:
        """Mean power in W over the block so far, or None where it cannot be measured."""
        if self._counted_w is not None:
            return self._counted_w
        with self._lock:
            watts = self._watts[1:] or self._watts  # the first is of what was before the block
        return sum(watts) / len(watts) if watts else None

    def recent_power_w(self) -> float | None:
        """Mean power in W since the last call of this method (the latest sample if none came since), or None."""
        with self._lock:
            recent = self._watts[self._read :] or self._watts[-1:]
            self._read = len(self._watts)
        return sum(recent) / len(recent) if recent else None

    def _sample(self) -> None:
        watts = _instant_power_w(self._nvml, self._handle)
        if watts is None:
            watts = self._nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000.0  # NVML gives mW
        with self._lock:
            self._watts.append(watts)

    def _counter(self) -> tuple[float, float] | None:
        """(time in s, energy in J since the driver was loaded); None where the GPU does not count."""
        with contextlib.suppress(Exception):
            return self._clock(), self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1000.0
        return None

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            while not self._stop.wait(self._interval):
                self._sample()


def _instant_power_w(nvml: ModuleType | Any, handle: Any) -> float | None:
    """Power at this moment; None where the driver, the GPU or pynvml does not know the field."""
    with contextlib.suppress(Exception):
        (field,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
        if field.nvmlReturn == nvml.NVML_SUCCESS:
            return field.value.uiVal / 1000.0
    return None


def nvml_handle(nvml: ModuleType | Any, device: torch.device) -> Any:
    """NVML's handle of a CUDA device.

    NVML counts all GPUs in PCI order, torch those of ``CUDA_VISIBLE_DEVICES``, by default the fastest first. So
    they are matched by UUID; by the variable where torch gives no UUID.
    """
    index = device.index if device.index is not None else torch.cuda.current_device()
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    if uuid is not None:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    name = visible[index] if visible else str(index)
    if name.isdigit():
        return nvml.nvmlDeviceGetHandleByIndex(int(name))
    return nvml.nvmlDeviceGetHandleByUUID(name)


def gpu_mem_gib(device: torch.device) -> float | None:
    """Peak memory in GiB that tensors took on a CUDA device since ``reset_gpu_peak``; None on any other."""
    return torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None


def gpu_allocated_gib(device: torch.device) -> float | None:
    """Memory in GiB that tensors take on a CUDA device now; None on any other."""
    return torch.cuda.memory_allocated(device) / GIB if device.type == "cuda" else None


def reset_gpu_peak(device: torch.device) -> None:
    """Starts a new peak for ``gpu_mem_gib``."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    """Waits for the work queued on a CUDA device, so that a clock read next is true."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
