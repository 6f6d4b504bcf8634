"""The clock of students and teachers, on a clock of ours."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.evaluation.power import Power, PowerMeter
from distill.evaluation.speed import measure_speed

CPU = torch.device("cpu")


class Meter:
    """Reads the next of ``watts``."""

    watts = iter(())

    def __init__(self, device):
        self.has_reading = True

    def __enter__(self):
        return self

    def __exit__(self, *_): ...

    def power(self):
        return Power(cpu_package_w=next(Meter.watts))


class Timer:
    """A clock that only rendering moves, by the next of ``seconds``."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.rendered = 0.0, iter(seconds), []

    def __call__(self):
        return self.now

    def render(self, index):
        self.rendered.append(index)
        self.now += next(self.seconds)


def measured(timer, frames, watts=(10.0, 30.0), **options):
    Meter.watts = iter(watts)
    return measure_speed(timer.render, frames, CPU, meter=Meter, clock=timer, sleep=lambda seconds: None, **options)


def test_median_spread_and_energy_of_the_timed_frames_alone():
    timer = Timer(9.0, 9.0, 1.0, 2.0, 5.0, 2.5, 2.0)
    speed = measured(timer, [0, 1, 2, 3, 4], burn_in=2)
    assert timer.rendered == [0, 1, 0, 1, 2, 3, 4]
    rates = [1, 0.5, 0.2, 0.4, 0.5]
    assert speed.frames == 5
    assert speed.fps_median == pytest.approx(0.5)
    assert speed.fps_iqr == pytest.approx(np.percentile(rates, 75) - np.percentile(rates, 25)) == pytest.approx(0.1)
    assert (speed.cpu_package_power_idle_w, speed.cpu_package_power_avg_w) == (10.0, 30.0)
    assert speed.cpu_package_energy_per_frame_j == pytest.approx(30.0 * 12.5 / 5)
    assert speed.power_avg_w is None and speed.energy_per_frame_j is None and speed.gpu_peak_gib is None


def test_a_slow_one_is_timed_on_fewer_frames():
    speed = measured(Timer(*[4.0] * 9), range(9), burn_in=0, limit_s=10)
    assert speed.frames == 3  # begun at 0, 4 and 8 s
    assert measured(Timer(*[40.0] * 2), [0, 1], burn_in=0, limit_s=10).frames == 1


def test_burn_in_goes_round_where_frames_are_few():
    timer = Timer(*[0.1] * 5)
    measured(timer, [7], watts=(None, None), burn_in=3)
    assert timer.rendered == [7, 7, 7, 7]


def test_unasked_three_frames_are_not_timed_and_none_is_begun_after_half_a_minute():
    timer = Timer(*[9.9] * 10)
    assert measured(timer, range(24), watts=(None, None)).frames == 4  # begun at 0, 9.9, 19.8 and 29.7 s
    assert timer.rendered == [0, 1, 2, 0, 1, 2, 3]


def test_the_peak_on_the_gpu_is_that_of_the_timed_frames(monkeypatch):
    timer = Timer(*[0.1] * 5)
    monkeypatch.setattr("distill.evaluation.speed.reset_gpu_peak", lambda device: timer.rendered.append("peak"))
    measured(timer, [0, 1], watts=(None, None))
    assert timer.rendered == [0, 1, 0, "peak", 0, 1]


def test_where_power_is_measured_frames_come_round_until_the_reading_has_settled_and_then_for_three_seconds():
    timer = Timer(*[0.5] * 20)
    speed = measured(timer, [0, 1, 2, 3], burn_in=1)
    assert timer.rendered == [0, 1] + [0, 1, 2, 3, 0, 1]
    assert speed.frames == 6 and speed.cpu_package_energy_per_frame_j == pytest.approx(15.0)
    assert measured(Timer(*[0.5] * 20), [0, 1], burn_in=0, limit_s=1.2).frames == 3


class Gpu:
    """NVML's GPU that idles at 70 W and renders at 500 W, as ``timer`` has it: frames of 5 ms.

    Args:
        knows: which of ``instant`` and ``counter`` the driver has beside the mean over the last second.
    """

    NVML_SUCCESS, NVML_FI_DEV_POWER_INSTANT = 0, 186

    def __init__(self, knows):
        self.knows, self.now, self.busy = knows, 100.0, [(98.0, 100.0)]

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def render(self, index):
        self.busy.append((self.now, self.now + 0.005))
        self.now += 0.005

    def joules(self, start, end):
        return 70 * (end - start) + 430 * sum(max(0.0, min(b, end) - max(a, start)) for a, b in self.busy)

    def nvmlInit(self): ...  # noqa: N802 - pynvml's names

    def nvmlShutdown(self): ...  # noqa: N802

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        return uuid

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return round(1000 * self.joules(self.now - 1.0, self.now))

    def nvmlDeviceGetFieldValues(self, handle, fields):  # noqa: N802
        assert fields == [self.NVML_FI_DEV_POWER_INSTANT]
        watts = self.joules(self.now - 0.025, self.now) / 0.025
        status = 0 if "instant" in self.knows else 3
        return [SimpleNamespace(nvmlReturn=status, value=SimpleNamespace(uiVal=round(1000 * watts)))]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        if "counter" not in self.knows:
            raise RuntimeError("not supported")
        return round(1000 * self.joules(0.0, self.now // 0.1 * 0.1))  # moves ten times a second


@pytest.mark.parametrize("knows", [(), ("instant",), ("counter",), ("instant", "counter")], ids=str)
def test_energy_is_right_to_five_percent_where_the_driver_averages_over_a_second(monkeypatch, knows):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid="x"))
    gpu = Gpu(knows)

    def meter(device):
        return PowerMeter(torch.device("cuda", 0), nvml=gpu, clock=gpu.clock)

    speed = measure_speed(gpu.render, range(24), CPU, meter=meter, clock=gpu.clock, sleep=gpu.sleep)
    assert speed.frames == pytest.approx(600, abs=1) and speed.fps_median == pytest.approx(200)
    assert speed.power_idle_w == pytest.approx(70, rel=0.05), "though there was work just before"
    assert speed.energy_per_frame_j == pytest.approx(500 * 0.005, rel=0.05)
