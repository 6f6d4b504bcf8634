"""Random numbers for a run whose generator is on the host."""

from __future__ import annotations

import torch


def host_integer(high: int, generator: torch.Generator) -> int:
    """A random whole number in [0, high), of a generator on the CPU.

    Read as an array, which a tensor on a GPU refuses: what must not wait for a device cannot come to.
    """
    return int(torch.randint(high, (1,), generator=generator).numpy()[0])


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator for what is drawn on ``device``, seeded by the next number of a generator on the CPU."""
    return torch.Generator(device).manual_seed(host_integer(2**63 - 1, generator))
