"""CUDA graphs on the CPU: what is recorded are torch's operators, and a replay runs them on the same memory again.

A recorded operator that would wait for a GPU raises, as it does there.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from kernels.triton_support import triton_refusal
from tests.no_waiting import NoWaiting


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        self.calls.append((operator, args, kwargs or {}, result))
        return result


@contextmanager
def _triton_launches(calls: list):
    """Records what Triton's interpreter is asked to run too, and not what it asks of torch."""
    if triton_refusal(torch.device("cpu")) is not None:
        yield
        return
    from triton.runtime.interpreter import InterpretedFunction

    run = InterpretedFunction.run

    def launch(function, *args, **kwargs):
        calls.append((partial(run, function), args, kwargs, None))
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return run(function, *args, **kwargs)

    with patch.object(InterpretedFunction, "run", launch):
        yield


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


class FakeStreams:
    """The current stream, and what makes another one current."""

    def __init__(self) -> None:
        self.current = FakeStream()

    @contextmanager
    def stream(self, stream: FakeStream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def set_stream(self, stream: FakeStream) -> None:
        self.current = stream

    @contextmanager
    def recording(self, graph: FakeGraph, stream: FakeStream, capture_error_mode: str):
        """As ``torch.cuda.graph``: after an error the recording cannot be ended, and its stream stays the current one.

        Other threads may ask what they want of the device only in the mode that is checked here.
        """
        assert isinstance(stream, FakeStream) and capture_error_mode == "thread_local"
        before, self.current = self.current, stream
        try:
            with NoWaiting(), _Recorder() as recorder, _triton_launches(recorder.calls):
                yield
        except BaseException:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nmore lines")  # noqa: B904
        self.current = before
        graph.calls = recorder.calls


def install(monkeypatch) -> tuple[list[FakeGraph], FakeStreams]:
    """Puts the fakes in the place of torch's; returns the graphs that will be made, as they come, and the streams."""
    made, streams = [], FakeStreams()

    def make() -> FakeGraph:
        made.append(FakeGraph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", streams.recording)
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", streams.stream)
    monkeypatch.setattr(torch.cuda, "set_stream", streams.set_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams.current)
    return made, streams
