"""The clock of students and teachers, on a clock of ours."""

import numpy as np
import pytest
import torch

from distill.evaluation.power import Power
from distill.evaluation.speed import measure_speed

CPU = torch.device("cpu")


class Meter:
    """Idles at 10 W, then draws 30 W."""

    watts = iter(())

    def __init__(self, device):
        self.has_reading = False

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


def measured(timer, frames, **options):
    Meter.watts = iter((10.0, 30.0))
    return measure_speed(timer.render, frames, CPU, meter=Meter, clock=timer, **options)


def test_median_spread_and_energy_of_the_timed_frames_alone():
    timer = Timer(9.0, 9.0, 0.1, 0.2, 0.5, 0.25, 0.2)
    speed = measured(timer, [0, 1, 2, 3, 4], burn_in=2)
    assert timer.rendered == [0, 1, 0, 1, 2, 3, 4]
    rates = [10, 5, 2, 4, 5]
    assert speed.frames == 5
    assert speed.fps_median == pytest.approx(5.0)
    assert speed.fps_iqr == pytest.approx(np.percentile(rates, 75) - np.percentile(rates, 25)) == pytest.approx(1.0)
    assert (speed.cpu_package_power_idle_w, speed.cpu_package_power_avg_w) == (10.0, 30.0)
    assert speed.cpu_package_energy_per_frame_j == pytest.approx(30.0 * 1.25 / 5)
    assert speed.power_avg_w is None and speed.energy_per_frame_j is None and speed.gpu_peak_gib is None


def test_a_slow_one_is_timed_on_fewer_frames():
    speed = measured(Timer(*[4.0] * 9), range(9), burn_in=0, limit_s=10)
    assert speed.frames == 3  # begun at 0, 4 and 8 s
    assert measured(Timer(*[40.0] * 2), [0, 1], burn_in=0, limit_s=10).frames == 1


def test_burn_in_goes_round_where_frames_are_few():
    timer = Timer(*[0.1] * 5)
    measured(timer, [7], burn_in=3)
    assert timer.rendered == [7, 7, 7, 7]
