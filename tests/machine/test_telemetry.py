"""The NVML code path on a fake NVML; and silence where there is none."""

import threading
from types import SimpleNamespace

import pytest
import torch

from machine import telemetry
from machine.telemetry import GpuMonitor

CUDA = torch.device("cuda", 1)


class FakeNvml:
    """Power goes 100 W, 200 W, 300 W, ... by sample."""

    def __init__(self, fails_at=None):
        self.handles, self.samples, self.shut, self.fails_at = [], 0, False, fails_at
        self.fifth = threading.Event()

    def nvmlInit(self):  # noqa: N802 - pynvml's names
        if self.fails_at == 0:
            raise RuntimeError("driver not loaded")

    def nvmlShutdown(self):  # noqa: N802
        self.shut = True

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        self.handles.append(uuid)
        return uuid

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self.handles.append(index)
        return index

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        self.samples += 1
        if self.samples == self.fails_at:
            raise RuntimeError("not supported")
        if self.samples >= 5:
            self.fifth.set()
        return 100_000 * self.samples


@pytest.fixture
def uuids(monkeypatch):
    """Two torch devices with UUIDs."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=f"uuid-{i}"))


def test_a_short_block_has_the_reading_at_its_end(uuids):
    nvml = FakeNvml()
    with GpuMonitor(CUDA, interval_s=60, nvml=nvml) as monitor:
        assert monitor.mean_power_w() == 100.0
    assert monitor.mean_power_w() == 200.0
    assert nvml.handles == ["GPU-uuid-1"] and nvml.shut


def test_samples_come_from_the_thread_and_end_with_the_block(uuids):
    nvml = FakeNvml()
    with GpuMonitor(CUDA, interval_s=0.001, nvml=nvml) as monitor:
        assert nvml.fifth.wait(10)
    count = nvml.samples
    assert monitor.mean_power_w() == pytest.approx(100 * (count + 2) / 2)
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu-power"]
    assert nvml.samples == count


def test_recent_power_is_since_the_last_reading(uuids):
    with GpuMonitor(CUDA, interval_s=60, nvml=FakeNvml()) as monitor:
        assert monitor.recent_power_w() == 100.0
        assert monitor.recent_power_w() == 100.0  # nothing new: the latest stands
        monitor._sample()
        monitor._sample()
        assert monitor.recent_power_w() == 250.0


class Counting(FakeNvml):
    """Its energy counter goes up by 600 J from one reading to the next."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        self.joules = getattr(self, "joules", 5000) + 600
        return 1000 * self.joules


@pytest.mark.parametrize(("seconds", "watts"), [(2.0, 300.0), (1.9, 200.0)])
def test_the_mean_is_the_energy_counters_where_the_block_is_long_enough(uuids, seconds, watts):
    now = 7.0
    with GpuMonitor(CUDA, interval_s=60, nvml=Counting(), clock=lambda: now) as monitor:
        assert monitor.mean_power_w() == 100.0
        now += seconds
    assert monitor.mean_power_w() == watts


@pytest.mark.parametrize(("status", "watts"), [(0, 42.5), (3, 100.0)])
def test_the_power_of_the_moment_is_read_where_the_driver_has_it(uuids, status, watts):
    field = SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=42_500))
    nvml = FakeNvml()
    nvml.NVML_SUCCESS, nvml.NVML_FI_DEV_POWER_INSTANT = 0, 186
    nvml.nvmlDeviceGetFieldValues = lambda handle, fields: [field]
    with GpuMonitor(CUDA, interval_s=60, nvml=nvml) as monitor:
        assert monitor.recent_power_w() == watts


@pytest.mark.parametrize("fails_at", [0, 1])
def test_failure_is_none_without_noise(uuids, capfd, recwarn, fails_at):
    with GpuMonitor(CUDA, interval_s=60, nvml=FakeNvml(fails_at)) as monitor:
        assert monitor.recent_power_w() is None
    assert monitor.mean_power_w() is None
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_a_failure_midway_keeps_what_was_measured(uuids):
    with GpuMonitor(CUDA, interval_s=0.001, nvml=FakeNvml(fails_at=3)) as monitor:
        monitor._thread.join(10)
    assert monitor.mean_power_w() is not None


def test_an_error_in_the_block_passes_through_and_ends_the_thread(uuids):
    with pytest.raises(ZeroDivisionError), GpuMonitor(CUDA, interval_s=0.001, nvml=FakeNvml()):
        _ = 1 / 0
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu-power"]


@pytest.mark.parametrize(
    ("visible", "handle"),
    [("", 1), ("3,7", 7), ("GPU-aa, GPU-bb", "GPU-bb"), (None, 1)],
)
def test_without_uuids_the_environment_says_which(monkeypatch, visible, handle):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace())
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert telemetry.nvml_handle(FakeNvml(), CUDA) == handle


def test_the_cpu_asks_no_nvml():
    cpu = torch.device("cpu")
    with GpuMonitor(cpu, nvml=object()) as monitor:
        pass
    assert monitor.mean_power_w() is None and monitor.recent_power_w() is None
    assert telemetry.gpu_mem_gib(cpu) is None
    telemetry.reset_gpu_peak(cpu)
    telemetry.synchronize(cpu)


def test_peak_memory_is_in_gib(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    assert telemetry.gpu_mem_gib(CUDA) == 1.5
