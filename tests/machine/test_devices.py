"""Devices by name, and random numbers that a device cannot tell from the host's."""

import pytest
import torch

from machine import devices
from machine.devices import choose_device, cuda_devices, device_name, generator_on, host_integer, numbers_on
from settings.config import Config
from settings.errors import InputError


def test_a_processor_is_named_with_its_cores():
    assert "core" in device_name(torch.device("cpu"))


def config(**settings):
    return Config(scene="s", run="r", teacher={"kind": "bricks"}, data={"resolution": 16}, **settings)


@pytest.mark.parametrize(
    ("device", "refusal", "why"),
    [
        ("cpu", None, "tinycudann on cpu, expected auto. Here it needs a CUDA device."),
        ("cuda", "it is broken", "broken"),
    ],
)
def test_tinycudann_is_refused_before_anything_begins(monkeypatch, device, refusal, why):
    monkeypatch.setattr(devices, "tinycudann_refusal", lambda: refusal)
    with pytest.raises(InputError, match=why):
        choose_device(config(kernels="tinycudann", device=device))


def test_tinycudann_has_no_planes(monkeypatch):
    monkeypatch.setattr(devices, "tinycudann_refusal", lambda: None)
    with pytest.raises(InputError, match=r"expected auto\. Here it has no planes \(student\.planes\)\."):
        choose_device(config(kernels="tinycudann", device="cuda", student={"kind": "hash_grid", "planes": [32]}))


def test_numbers_arrive_as_they_are():
    numbers = (1 << 31, 7, 0.1, 1e-5)
    found = numbers_on(torch.device("cpu"), numbers)
    assert found.dtype == torch.float64 and tuple(found.tolist()) == numbers


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_host_integer_is_torchs():
    expected = int(torch.randint(1 << 31, (1,), generator=generator(5)))
    assert host_integer(1 << 31, generator(5)) == expected
    assert {host_integer(3, generator(seed)) for seed in range(30)} == {0, 1, 2}


def test_a_generator_on_the_device_follows_from_the_runs_own():
    own, again = generator(1), generator(1)
    first, second = (torch.rand(4, generator=generator_on(torch.device("cpu"), own)) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.rand(4, generator=generator_on(torch.device("cpu"), again)))
    # Where the run's own stands tells of all that will be drawn: a resumed run draws the same.
    restored = torch.Generator()
    restored.set_state(again.get_state())
    assert torch.equal(second, torch.rand(4, generator=generator_on(torch.device("cpu"), restored)))


@pytest.mark.parametrize(
    ("count", "words"), [(0, "cpu, since torch finds no CUDA device"), (1, "cuda:0"), (4, "cuda:0 to cuda:3")]
)
def test_the_cuda_devices_that_can_be_named(count, words):
    assert cuda_devices(count) == words
