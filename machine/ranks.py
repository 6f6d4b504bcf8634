"""Several processes that train one student together, as ``torchrun`` starts them; without its variables, nothing here.

A process is a rank, 0 the first of them: it alone writes files and says something. What is on the CPU is exchanged by
gloo, what is on GPUs by NCCL.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.threads import available_threads, limit_threads
from machine.failures import machine_failure
from machine.shared_memory import SharedMemory, attach, bytes_of, create
from settings.errors import ExitCode, InputError

# Another rank may be evaluating, or wait for the viewer; one that has died is noticed at once.
_LONGEST = timedelta(days=7)
_FAREWELL = 3.0  # s, for the others to find out by themselves what ended this rank
_POLL = 0.02  # s

Value = TypeVar("Value")


class RankLost(RuntimeError):
    """Another process of the run has ended before its work was done."""


@dataclass(frozen=True)
class _Group:
    """The processes, this one's place among them, and a store of small values that all see."""

    rank: int
    size: int
    local_rank: int
    store: dist.Store
    said: Counter[str] = field(default_factory=Counter)
    shared: list[SharedMemory | None] = field(default_factory=list)  # the last is in use; None: there is none to be had


_group: _Group | None = None  # None: this process is alone


def join() -> None:
    """Makes this process one of those that torchrun has started; does nothing where it has not, or one alone.

    They share the machine's CPU threads, unless ``NUMBA_NUM_THREADS`` says how many are each one's.

    Raises:
        InputError: a variable is no number, or the others cannot be reached.
    """
    global _group
    places = _places(os.environ)
    if places is None:
        return
    rank, size, local_rank, local_size = places
    if "NUMBA_NUM_THREADS" not in os.environ:
        limit_threads(max(1, available_threads() // local_size))
    try:
        store, _, _ = next(dist.rendezvous("env://", rank, size))
        # torchrun's own store outlives the processes, which it may start anew.
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_LONGEST)
    except (RuntimeError, ValueError) as error:
        found = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({str(error).splitlines()[0][:200]})"
        hint = "Start all of them with torchrun, which sets these."
        raise InputError(
            "environment", "MASTER_ADDR, MASTER_PORT", found, f"where {size} processes meet", hint
        ) from error
    _group = _Group(rank, size, local_rank, dist.PrefixStore("run", store))


def leave(status: int) -> None:
    """Ends the exchange, once the others have come as far: torchrun stops all when one has ended with an error.

    Args:
        status: this process's exit status. An error's is that of the ranks, too, that have lost this one by it.
    """
    global _group
    if _group is None:
        return
    group, _group = _group, None
    is_error = status not in (ExitCode.DONE, ExitCode.COLLAPSED)
    with suppress(RuntimeError, KeyboardInterrupt):  # torchrun itself is gone, or in a hurry
        if is_error:
            group.store.compare_set("status", "", str(int(status)))
        group.store.add("left", 1)
        until = time.monotonic() + (_FAREWELL if is_error else math.inf)
        while group.store.add("left", 0) < group.size and time.monotonic() < until:
            time.sleep(_POLL)
        if not is_error:  # else the others may still wait for this rank, and NCCL then for them
            dist.destroy_process_group()


def size() -> int:
    """How many processes there are."""
    return 1 if _group is None else _group.size


def is_first() -> bool:
    """Whether this process writes and speaks for all: that of rank 0."""
    return _group is None or _group.rank == 0


def part(count: int, together: int = 1) -> slice:
    """Which of ``count`` things are this rank's: a part that begins at a multiple of ``together``."""
    if _group is None:
        return slice(0, count)
    groups = -(-count // together)
    start, stop = (groups * place // _group.size * together for place in (_group.rank, _group.rank + 1))
    return slice(start, min(stop, count))


def own_device(name: str) -> str:
    """The device of this rank where ``name`` is asked for: of GPUs, each process of a machine has its own.

    Raises:
        InputError: one GPU is asked for by its number, which all would share.
    """
    if _group is None or not name.startswith("cuda"):
        return name
    if name != "cuda":
        hint = "CUDA_VISIBLE_DEVICES chooses among the GPUs."
        raise InputError("--device", "device", f"{name} of {_group.size} processes", "auto, cuda or cpu", hint)
    return f"cuda:{_group.local_rank}"


def says_first(text: str) -> bool:
    """Whether this rank is the first to say this (again, if it is repeated), so that what concerns all is told once."""
    if _group is None:
        return True
    _group.said[text] += 1
    digest = hashlib.sha256(text.encode()).hexdigest()
    with suppress(RuntimeError):  # torchrun is gone
        return _group.store.add(f"said {digest} {_group.said[text]}", 1) == 1
    return True


def status_of_lost() -> int | None:
    """The exit status of the first rank that has ended with an error, and said so; None: none has."""
    with suppress(RuntimeError):
        if _group is not None and _group.store.check(["status"]):
            return int(_group.store.get("status"))
    return None


def total(values: Tensor) -> Tensor:
    """The sum over all ranks, in place; the same bits on each.

    Raises:
        RankLost: as all exchanges do.
    """
    if _group is not None:
        _exchange(lambda: dist.all_reduce(values))
    return values


def largest(values: Tensor) -> Tensor:
    """The largest of all ranks, value by value, in place."""
    if _group is not None:
        _exchange(lambda: dist.all_reduce(values, dist.ReduceOp.MAX))
    return values


def combine(sums: Sequence[Tensor], largest: Sequence[Tensor] = ()) -> bool:
    """``total`` and ``largest`` of several tensors on the CPU, at once and in place, through memory that all ranks see.

    Returns:
        Whether it was done; it is not where ranks are on several machines, or the system lets none share memory.
    """
    if _group is None:
        return True
    tensors = [*sums, *largest]
    shared = _shared_memory(_group, bytes_of(tensors))
    if shared is None:
        return False
    shared.put(tensors)
    _exchange(lambda: dist.all_reduce(torch.zeros(1)))  # waits for all
    shared.take(sums, largest)
    return True


def largest_of(*numbers: float) -> list[float]:
    """As ``largest``, of numbers."""
    return [*numbers] if _group is None else largest(torch.tensor(numbers, dtype=torch.float64)).tolist()


def of_first(number: float) -> float:
    """Rank 0's number."""
    return largest_of(number if is_first() else -math.inf)[0]


def value_of_first(value: Value) -> Value:
    """Rank 0's value, of plain objects."""
    if _group is None:
        return value
    values = [value]
    _exchange(lambda: dist.broadcast_object_list(values, src=0))
    return values[0]


def gathered(items: Iterator[Value], most: int) -> Iterator[Value]:
    """On rank 0 the items of all ranks as they come; the others send theirs and have none.

    Args:
        most: items that a rank has at most; the same on all.
    """
    if _group is None:
        yield from items
        return
    for _ in range(most):
        item = [*_next(items)]
        received: list[list[Value]] | None = [[]] * _group.size if is_first() else None
        _exchange(lambda item=item, received=received: dist.gather_object(item, received, dst=0))
        for sent in received or ():
            yield from sent


def _shared_memory(group: _Group, size: int) -> SharedMemory | None:
    """Memory for so many bytes of each rank; all ranks have it, or none."""
    if group.shared and (group.shared[-1] is None or group.shared[-1].capacity >= size):
        return group.shared[-1]
    own = create(size, group.size) if is_first() else None
    place = value_of_first(own)
    memory = None if place is None else attach(place)
    lacking = largest_of(float(memory is None))[0]
    if own is not None:
        os.close(own.file)
    group.shared[:] = [SharedMemory(memory, group.rank, group.size) if not lacking else None]
    return group.shared[-1]


def _next(items: Iterator[Value]) -> Iterator[Value]:
    with suppress(StopIteration):
        yield next(items)


def _exchange(call: Callable[[], object]) -> None:
    try:
        call()
    except RuntimeError as error:
        if machine_failure(error) is not None:
            raise
        raise RankLost("another process of this run has ended: go on with --resume auto") from error


def _places(variables: Mapping[str, str]) -> Sequence[int] | None:
    """Rank and number of processes, of all and on this machine; None: not started by torchrun, or alone.

    Raises:
        InputError: a variable is no number.
    """
    if any(name not in variables for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")):
        return None
    found = {name: variables[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    found["LOCAL_WORLD_SIZE"] = variables.get("LOCAL_WORLD_SIZE", found["WORLD_SIZE"])
    for name, text in found.items():
        if not text.isdecimal():
            hint = "torchrun sets it; unset it to train with one process."
            raise InputError("environment", name, repr(text), "a whole number", hint)
    rank, count, local_rank, local_count = (int(text) for text in found.values())
    return None if count <= 1 else (rank, count, local_rank, max(1, local_count))
