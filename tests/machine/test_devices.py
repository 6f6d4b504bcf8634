"""Devices by name, and random numbers that a device cannot tell from the host's."""

import torch

from machine.devices import device_name, generator_on, host_integer


def test_a_processor_is_named_with_its_cores():
    assert "core" in device_name(torch.device("cpu"))


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
