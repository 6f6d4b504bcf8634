"""CUDA graphs on the CPU: what is recorded are torch's operators, and a replay runs them on the same memory again."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, result))
        return result


class FakeGraph:
    """Recording runs the operators, as a CUDA graph's does not: so the replay that follows it has nothing to do."""

    def __init__(self) -> None:
        self.calls, self.replays = [], 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        for operator, args, kwargs, result in self.calls if self.replays > 1 else ():
            again = operator(*args, **kwargs)
            for kept, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class FakeStream:
    def __init__(self, device=None) -> None:
        self.waits = []

    def wait_stream(self, other) -> None:
        self.waits.append(other)


@contextmanager
def _recording(graph: FakeGraph, stream: FakeStream):
    assert isinstance(stream, FakeStream)
    with _Recorder() as recorder:
        yield
    graph.calls = recorder.calls


def install(monkeypatch) -> list[FakeGraph]:
    """Puts the fakes in the place of torch's; returns the graphs that will be made, as they come."""
    made = []

    def make() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", _recording)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream())
    return made
