"""Memory of this machine that several processes see: what gloo sends through sockets is summed in it at once."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import torch
from torch import Tensor

_TOKEN = 64  # bytes at the start, by which the memory is known to be the right one
_ALIGNED = 64  # bytes


class Place(NamedTuple):
    """Where another process of the machine finds the memory: the file of a process, and what it begins with."""

    process: int
    file: int
    token: bytes
    bytes: int


class SharedMemory:
    """A part for each process, of which each writes its own and reads all.

    Each part has two halves, used in turn, so that all wait for one another once in an exchange: who writes to a half
    again has waited since for those who read it.
    """

    def __init__(self, memory: mmap.mmap, rank: int, size: int) -> None:
        self._halves = torch.frombuffer(memory, dtype=torch.uint8)[_TOKEN:].view(2, size, -1)
        self._rank, self._turn = rank, 0
        self.capacity = self._halves.shape[2]
        """Bytes of an exchange at most."""

    def put(self, tensors: Sequence[Tensor]) -> None:
        """Writes this process's tensors; then all have to wait for one another."""
        self._turn = 1 - self._turn
        for tensor, own in zip(tensors, self._views(self._rank, tensors), strict=True):
            own.copy_(tensor)

    def take(self, sums: Sequence[Tensor], largest: Sequence[Tensor]) -> None:
        """Gives the tensors that were put, in their order, the sum or the largest of all, on each the same bits."""
        tensors, size = [*sums, *largest], self._halves.shape[1]
        # Of two the order does not matter, so that what is here already need not be read again.
        first = self._rank if self._rank < 2 else 0
        others = [rank for rank in range(size) if rank != first]
        if first != self._rank:
            for tensor, part in zip(tensors, self._views(first, tensors), strict=True):
                tensor.copy_(part)
        for rank in others:
            parts = self._views(rank, tensors)
            for tensor, part in zip(sums, parts, strict=False):
                tensor.add_(part)
            for tensor, part in zip(largest, parts[len(sums) :], strict=True):
                torch.maximum(tensor, part, out=tensor)

    def _views(self, rank: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Where a process's tensors of these shapes are."""
        views, start = [], 0
        for tensor in tensors:
            size = tensor.numel() * tensor.element_size()
            views.append(self._halves[self._turn, rank, start : start + size].view(tensor.dtype).view(tensor.shape))
            start += _aligned(size)
        return views


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Room that tensors take."""
    return sum(_aligned(tensor.numel() * tensor.element_size()) for tensor in tensors)


def create(capacity: int, size: int) -> Place | None:
    """Memory for ``size`` processes, which stays while a process has it; None: the system has none (Linux).

    The caller closes the file, once all have opened it.
    """
    with suppress(OSError, AttributeError):
        file = os.memfd_create("ranks")
        place = Place(os.getpid(), file, os.urandom(_TOKEN), _TOKEN + 2 * size * _aligned(capacity))
        os.truncate(file, place.bytes)
        os.pwrite(file, place.token, 0)
        return place
    return None


def attach(place: Place) -> mmap.mmap | None:
    """The memory, as this process sees it; None: it is another machine's, or nobody may look."""
    with suppress(OSError, ValueError):
        file = os.open(f"/proc/{place.process}/fd/{place.file}", os.O_RDWR)
        try:
            if os.pread(file, _TOKEN, 0) == place.token:
                return mmap.mmap(file, place.bytes)
        finally:
            os.close(file)
    return None


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
