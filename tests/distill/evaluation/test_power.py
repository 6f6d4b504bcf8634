"""RAPL on a made-up powercap folder, NVML on a made-up NVML."""

from types import SimpleNamespace

import pytest
import torch

from distill.evaluation.power import CpuPackages, Power, PowerMeter, idle_power

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Nvml:
    """A GPU that draws 50 W."""

    def __init__(self, works=True):
        self.works = works

    def nvmlInit(self): ...  # noqa: N802 - pynvml's names

    def nvmlShutdown(self): ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        if not self.works:
            raise RuntimeError("not supported")
        return 50_000


@pytest.fixture
def powercap(tmp_path):
    """Makes a folder of zones: name -> (energy, range)."""

    def make(**zones):
        for name, (label, energy, span) in zones.items():
            zone = tmp_path / name.replace("_", ":").replace("rapl:", "intel-rapl:", 1)
            zone.mkdir(exist_ok=True)
            (zone / "name").write_text(f"{label}\n")
            (zone / "energy_uj").write_text(f"{energy}\n")
            (zone / "max_energy_range_uj").write_text(f"{span}\n")
        return tmp_path

    return make


def clock(*times):
    return iter(times).__next__


def test_energy_over_time_of_all_packages_and_nothing_twice(powercap):
    def zones(seconds):
        return powercap(
            rapl_0=("package-0", 1_000_000 + 20_000_000 * seconds, 10**9),
            rapl_1=("package-1", 5 + 10_000_000 * seconds, 10**9),
            rapl_0_0=("core", 15_000_000 * seconds, 10**9),
            rapl_2=("psys", 90_000_000 * seconds, 10**9),
        )

    with PowerMeter(CPU, powercap=zones(0), clock=clock(100.0, 104.0)) as meter:
        assert meter.has_reading
        zones(4)
    assert meter.power() == Power(gpu_w=None, cpu_package_w=pytest.approx(30.0))


def test_a_counter_that_starts_again(powercap):
    folder = powercap(rapl_0=("package-0", 999_000, 999_999))
    with PowerMeter(CPU, powercap=folder, clock=clock(0.0, 2.0)) as meter:
        powercap(rapl_0=("package-0", 3_000, 999_999))
    assert meter.power().cpu_package_w == pytest.approx(4_000e-6 / 2)  # 1,000 to the end of the range, 3,000 after it


def test_what_cannot_be_read_is_none(powercap, tmp_path):
    assert CpuPackages(tmp_path / "nowhere").read() is None
    assert CpuPackages(tmp_path).read() is None
    folder = powercap(rapl_0=("package-0", 5, 10))
    (folder / "intel-rapl:0" / "energy_uj").unlink()  # as unreadable as one that only root may read
    with PowerMeter(CPU, powercap=folder) as meter:
        assert not meter.has_reading
    assert meter.power() == Power()


def test_the_gpu_comes_first_and_the_cpu_stands_in(powercap, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid="x"))
    folder = powercap(rapl_0=("package-0", 0, 10**9))
    with PowerMeter(CUDA, powercap=folder, nvml=Nvml()) as meter:
        powercap(rapl_0=("package-0", 7_000_000, 10**9))
    assert meter.power() == Power(gpu_w=50.0)
    with PowerMeter(CUDA, powercap=folder, nvml=Nvml(works=False), clock=clock(0.0, 1.0)) as meter:
        powercap(rapl_0=("package-0", 14_000_000, 10**9))
    assert meter.power() == Power(cpu_package_w=pytest.approx(7.0))


def test_gpu_power_is_sampled_ten_times_a_second_or_more():
    assert PowerMeter(CPU)._gpu._interval <= 0.1


def test_idle_waits_only_where_there_is_a_reading_first_for_what_was_before_it(powercap, tmp_path):
    waits = []
    assert idle_power(lambda: PowerMeter(CPU, powercap=tmp_path / "none"), 5.0, waits.append) == Power()
    assert waits == []
    folder, now = powercap(rapl_0=("package-0", 0, 10**9)), 0.0

    def sleep(seconds):
        nonlocal now
        waits.append(seconds)
        now += seconds
        powercap(rapl_0=("package-0", 10_000_000 if len(waits) == 1 else 20_000_000, 10**9))

    power = idle_power(lambda: PowerMeter(CPU, powercap=folder, clock=lambda: now), 5.0, sleep)
    assert waits == [1.0, 5.0] and power.cpu_package_w == pytest.approx(2.0)
