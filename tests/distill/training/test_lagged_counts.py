"""Counts come in order and always as late, on the CPU and with the parts of CUDA that they use."""

import pytest
import torch

from distill.training.lagged_counts import LAG, LaggedCounts, RayCount

CPU = torch.device("cpu")


def feed(counts, steps):
    taken = []
    for step in steps:
        counts.put(100 + step, torch.tensor(1000 + step))
        taken.append(counts.take())
    return taken


def test_a_count_is_read_some_steps_late():
    taken = feed(LaggedCounts(CPU), range(20))
    assert taken[:LAG] == [None] * LAG
    assert taken[LAG:] == [RayCount(100 + step, 1000 + step) for step in range(20 - LAG)]


def test_another_goes_on_from_what_is_pending():
    whole = LaggedCounts(CPU)
    feed(whole, range(11))
    pending = whole.pending()
    assert pending == [(100 + step, 1000 + step) for step in range(11 - LAG, 11)]
    again = LaggedCounts(CPU)
    again.restore(pending)
    assert feed(again, range(11, 30)) == feed(whole, range(11, 30))


def test_a_few_pending_ones_are_restored_too():
    counts = LaggedCounts(CPU)
    counts.restore([(5, 50)])
    assert counts.pending() == [(5, 50)]
    assert feed(counts, range(LAG))[-1] == RayCount(5, 50)


class _Event:
    """Remembers the order of what is asked of it."""

    def __init__(self, calls):
        self.calls = calls

    def record(self, stream):
        self.calls.append(("record", stream))

    def synchronize(self):
        self.calls.append(("wait", self))


def test_on_cuda_only_the_event_of_the_old_step_is_waited_for(monkeypatch):
    calls, zeros = [], torch.zeros

    def pinned(*size, pin_memory=False, **options):
        calls.append(("pinned", pin_memory))
        return zeros(*size, **options)

    monkeypatch.setattr(torch, "zeros", pinned)
    monkeypatch.setattr(torch.cuda, "Event", lambda: _Event(calls))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    counts = LaggedCounts(torch.device("cuda", 0))
    assert calls == [("pinned", True)]
    assert feed(counts, range(LAG)) == [None] * LAG
    assert calls[1:] == [("record", "stream of cuda:0")] * LAG
    assert feed(counts, [LAG]) == [RayCount(100, 1000)]
    assert [name for name, _ in calls[-2:]] == ["record", "wait"]


@pytest.mark.parametrize("steps", [1, LAG, 3 * LAG])
def test_reading_what_is_pending_takes_nothing_away(steps):
    counts = LaggedCounts(CPU)
    feed(counts, range(steps))
    assert counts.pending() == counts.pending()
    assert len(counts.pending()) == min(steps, LAG)
