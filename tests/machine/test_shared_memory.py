"""Memory that several processes see, here several memories of one."""

import os

import pytest
import torch

from machine.shared_memory import SharedMemory, attach, bytes_of, create

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memory files")


@pytest.fixture
def place():
    place = create(bytes_of(tensors_of(0)), 3)
    yield place
    os.close(place.file)


def tensors_of(rank):
    torch.manual_seed(rank)
    return [torch.randn(5, 3), torch.randn(()), torch.randint(256, (7,), dtype=torch.uint8)]


def test_all_get_the_same_bits_of_the_sum_and_the_largest_exchange_after_exchange(place):
    memories = [SharedMemory(attach(place), rank, 3) for rank in range(3)]
    assert memories[0].capacity >= bytes_of(tensors_of(0)) == 3 * 64
    for turn in range(3):
        tensors = [tensors_of(3 * turn + rank) for rank in range(3)]
        a, b, c = zip(*[tensors_of(3 * turn + rank) for rank in range(3)], strict=True)
        for memory, own in zip(memories, tensors, strict=True):
            memory.put(own)
        for memory, own in zip(memories, tensors, strict=True):
            memory.take(own[:2], own[2:])
        for found in tensors:
            assert torch.equal(found[0], a[0] + a[1] + a[2]) and torch.equal(found[1], b[0] + b[1] + b[2])
            assert torch.equal(found[2], torch.stack(c).amax(0))


def test_memory_of_another_machine_is_not_taken_for_this_one_s(place):
    assert attach(place._replace(token=bytes(64))) is None
    assert attach(place._replace(process=2**30)) is None
    assert attach(place) is not None


def test_where_the_system_has_none_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert create(64, 2) is None
