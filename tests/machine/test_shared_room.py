"""Memory that several processes see, here several rooms of one."""

import os

import pytest
import torch

from machine.shared_room import SharedRoom, bytes_of, made, opened

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no memory files")


@pytest.fixture
def place():
    place = made(bytes_of(tensors_of(0)), 3)
    yield place
    os.close(place.file)


def tensors_of(rank):
    torch.manual_seed(rank)
    return [torch.randn(5, 3), torch.randn(()), torch.randint(256, (7,), dtype=torch.uint8)]


def test_all_get_the_same_bits_of_the_sum_and_the_largest_exchange_after_exchange(place):
    rooms = [SharedRoom(opened(place), rank, 3) for rank in range(3)]
    assert rooms[0].capacity >= bytes_of(tensors_of(0)) == 3 * 64
    for turn in range(3):
        tensors = [tensors_of(3 * turn + rank) for rank in range(3)]
        a, b, c = zip(*[tensors_of(3 * turn + rank) for rank in range(3)], strict=True)
        for room, own in zip(rooms, tensors, strict=True):
            room.put(own)
        for room, own in zip(rooms, tensors, strict=True):
            room.take(own[:2], own[2:])
        for found in tensors:
            assert torch.equal(found[0], a[0] + a[1] + a[2]) and torch.equal(found[1], b[0] + b[1] + b[2])
            assert torch.equal(found[2], torch.stack(c).amax(0))


def test_memory_of_another_machine_is_not_taken_for_this_one_s(place):
    assert opened(place._replace(token=bytes(64))) is None
    assert opened(place._replace(process=2**30)) is None
    assert opened(place) is not None


def test_where_the_system_has_none_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    assert made(64, 2) is None
