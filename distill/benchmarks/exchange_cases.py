"""What two processes that train one student exchange: processor time of their steps, and of the exchange in them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from distill.benchmarks.case import Case, Sizes
from distill.benchmarks.run_cases import Run, run_config
from kernels.threads import limit_threads
from machine import ranks
from teacher.sources import load_teacher

_STEP, _COUNTS, _GRADIENTS = "whole step", "counts of rays and samples", "gradients"
_CPU = torch.device("cpu")


def exchange_cases(kind: str, sizes: Sizes) -> Iterator[Case]:
    """Of one of ``STUDENTS``: a step of two processes of a thread each, and what they exchange in it.

    Seconds are of the processor, of all threads, and of one process (the mean of both): however many cores there are
    and whatever else runs, the parts' share of a step is what it would be on two free cores.
    """
    pair = _Pair(kind, sizes)
    name = f"exchange of two processes, {kind}, steps of {sizes.samples_per_step:,} samples (processor time)"
    for part in (_STEP, _COUNTS, _GRADIENTS):
        yield Case(name, part, lambda part=part: pair.seconds(part), items=1, unit="steps")


class _Pair:
    """Two processes that train together, and take steps when they are asked to; they end with this one."""

    def __init__(self, kind: str, sizes: Sizes) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self._steps = sizes.timed_steps
        self._ends: list[Connection] = []
        for rank in range(2):
            own, its = context.Pipe()
            context.Process(target=_serve, args=(rank, port, kind, sizes, its), daemon=True).start()
            its.close()
            self._ends.append(own)

    def seconds(self, part: str) -> float:
        """Of a part of a step, the mean over some further steps and both processes.

        Raises:
            RuntimeError: one of them has ended.
        """
        try:
            for end in self._ends:
                end.send(self._steps)
            taken = [end.recv()[part] for end in self._ends]
        except (EOFError, OSError) as error:
            raise RuntimeError("a process of the two has ended") from error
        return sum(taken) / len(taken) / self._steps


class _Clock:
    """Processor time of this process that calls took, by their part."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def of(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time kept."""

        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds[part] += time.process_time() - began

        return timed


def _serve(rank: int, port: int, kind: str, sizes: Sizes, end: Connection) -> None:
    """What each of the two does: trains for a while, then takes as many steps as it is asked for, and sends times."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    limit_threads(1)
    torch.set_num_threads(1)
    ranks.join()
    config = run_config(kind, _CPU, sizes, "numba")
    run, clock = Run(config, load_teacher(config), _CPU), _Clock()
    replicas = run.trainer.step.replicas
    replicas.share, replicas.sum = clock.of(_COUNTS, replicas.share), clock.of(_GRADIENTS, replicas.sum)
    step = clock.of(_STEP, run.step_seconds)
    with suppress(EOFError):  # who asked has gone
        while True:
            steps = end.recv()
            clock.seconds.clear()
            step(steps)
            end.send(dict(clock.seconds))
