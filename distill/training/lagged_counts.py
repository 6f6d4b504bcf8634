"""How many samples the rays of past steps had, read so late that nothing waits for the device to tell."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor

LAG = 4  # steps: the host is at most that far ahead of the device


class RayCount(NamedTuple):
    """Rays of a step and the samples they asked for."""

    rays: int
    samples: int


class LaggedCounts:
    """A queue of counts on their way from a device to the host.

    ``take`` gives the count of the step ``LAG`` steps before: always of the same one, so that a run does not depend on
    how fast the device is. The copy has been under way since then; what is waited for, if at all, is that old step.

    Args:
        device: where counts are; on a CUDA one they travel through page-locked memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slots = torch.zeros(LAG + 1, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._under_way: deque[tuple[int, int, object]] = deque()  # rays, slot, event
        self._next = 0

    def put(self, rays: int, samples: Tensor) -> None:
        """Sends a step's count on its way; ``samples`` () int64 on the device."""
        slot, self._next = self._next, (self._next + 1) % len(self._slots)
        self._slots[slot].copy_(samples, non_blocking=True)
        event = None
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
        self._under_way.append((rays, slot, event))

    def take(self) -> RayCount | None:
        """The count of the step ``LAG`` before the one put last; None in the first steps."""
        return self._arrived(self._under_way.popleft()) if len(self._under_way) > LAG else None

    def pending(self) -> list[tuple[int, int]]:
        """Rays and samples of the steps that have not been taken yet; waits for them."""
        return [tuple(self._arrived(entry)) for entry in self._under_way]

    def restore(self, pending: list[tuple[int, int]]) -> None:
        """Restores what another's ``pending`` gave."""
        self._under_way.clear()
        self._next = 0
        for rays, samples in pending:
            self.put(rays, torch.tensor(samples))

    def _arrived(self, entry: tuple[int, int, object]) -> RayCount:
        rays, slot, event = entry
        if event is not None:
            event.synchronize()
        return RayCount(rays, int(self._slots.numpy()[slot]))
