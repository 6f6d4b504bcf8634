"""Which process is which, and that what concerns all is said once; test_replicas has the exchanges."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from machine import ranks
from settings.errors import ExitCode, InputError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def become(monkeypatch):
    """Makes this process one of several, which share a store, without any connection."""
    store = dist.HashStore()
    groups = {}

    def become(rank: int, size: int = 3) -> None:
        group = groups.setdefault(rank, ranks._Group(rank, size, rank, store))
        monkeypatch.setattr(ranks, "_group", group)

    return become


def test_a_process_is_alone_unless_all_of_torchruns_variables_say_otherwise() -> None:
    assert ranks._places({"WORLD_SIZE": "2", "RANK": "0"}) is None
    assert ranks._places(TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert ranks._places(TORCHRUN) == (1, 4, 1, 4)
    assert ranks._places(TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}) == (1, 4, 1, 2)
    with pytest.raises(InputError, match="environment: RANK: found 'first', expected a whole number"):
        ranks._places(TORCHRUN | {"RANK": "first"})


def test_one_process_alone_does_everything() -> None:
    assert (ranks.size(), ranks.is_first(), ranks.part(7)) == (1, True, slice(0, 7))
    assert ranks.largest_of(2.0, 3) == [2.0, 3]
    assert [*ranks.gathered(iter("ab"), 2)] == ["a", "b"]
    assert ranks.says_first("x")
    assert ranks.says_first("x")
    ranks.leave(ExitCode.BAD_INPUT)


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("count", [0, 2, 64, 1000, 1001])
def test_every_thing_is_exactly_one_ranks(become, count, together) -> None:
    parts = []
    for rank in range(3):
        become(rank)
        own = ranks.part(count, together)
        parts += [*range(count)[own]]
        assert own.start % together == 0 or not len(range(count)[own])
    assert parts == [*range(count)]


def test_a_text_is_told_by_whoever_is_first_as_often_as_one_has_it_to_say(become) -> None:
    told = []
    for rank, text in [(1, "same"), (0, "same"), (0, "own"), (2, "same"), (1, "same"), (2, "same")]:
        become(rank)
        told.append(ranks.says_first(text))
    assert told == [True, False, True, False, True, False]


def test_each_rank_has_its_own_gpu_and_none_can_be_named_for_all(become) -> None:
    assert ranks.own_device("cuda:3") == "cuda:3"
    become(2)
    assert (ranks.own_device("cuda"), ranks.own_device("cpu")) == ("cuda:2", "cpu")
    with pytest.raises(InputError, match="device: found cuda:3 of 3 processes, expected auto, cuda or cpu"):
        ranks.own_device("cuda:3")


def test_the_status_of_the_first_that_failed_is_that_of_those_that_lost_it(become) -> None:
    become(0)
    assert ranks.status_of_lost() is None
    ranks._group.store.compare_set("status", "", str(int(ExitCode.BAD_INPUT)))
    become(1)
    assert ranks.status_of_lost() == ExitCode.BAD_INPUT
