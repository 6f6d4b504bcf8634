"""Views made ahead of their turn: in order, no farther ahead than asked, errors told, threads that end."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

from machine.devices import choose_device
from settings.loading import REPO_ROOT, load_config
from teacher.gsplat_setup import gsplat_runs
from teacher.sources import load_teacher
from teacher.sources.live_producers import InlineProducer, ThreadedProducer, make_producer

AHEAD = 3
PRODUCERS = [InlineProducer, lambda render: ThreadedProducer(render, AHEAD)]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "live teacher"]


@pytest.mark.parametrize("make", PRODUCERS)
def test_views_come_in_order_from_where_it_was_started(make) -> None:
    producer = make(lambda index: 10 * index)
    assert list(producer.first(2, 3)) == [20, 30, 40]
    producer.start(5)
    assert [producer.take() for _ in range(8)] == [50, 60, 70, 80, 90, 100, 110, 120]
    producer.stop()
    producer.start(1)
    assert producer.take() == 10
    producer.stop()
    assert not threads()


@pytest.mark.parametrize("make", PRODUCERS)
def test_what_rendering_raises_training_gets(make) -> None:
    def render(index: int) -> int:
        if index == 2:
            raise MemoryError("no room for view 2")
        return index

    producer = make(render)
    producer.start(0)
    assert [producer.take(), producer.take()] == [0, 1]  # what was ready before is still given
    with pytest.raises(MemoryError, match="view 2"):
        producer.take()
    producer.stop()
    with pytest.raises(MemoryError, match="view 2"):
        list(producer.first(0, 4))


def test_it_renders_no_farther_ahead_than_asked() -> None:
    rendered, full = [], threading.Event()

    def render(index: int) -> int:
        rendered.append(index)
        if index == AHEAD + 1:
            full.set()
        return index

    producer = ThreadedProducer(render, AHEAD)
    producer.start(0)
    for index in range(2):
        assert producer.take() == index
    assert full.wait(30)  # two taken and three ready: the thread has rendered views 0 to 4 ...
    producer.stop()
    assert rendered == list(range(AHEAD + 2))  # ... and no other


def test_taking_waits_for_the_view_that_is_being_rendered() -> None:
    go = threading.Event()

    def render(index: int) -> int:
        assert go.wait(30)
        return index

    producer = ThreadedProducer(render, AHEAD)
    producer.start(4)
    threading.Timer(0.05, go.set).start()
    assert producer.take() == 4
    producer.stop()


def test_stopping_ends_a_thread_that_waits_for_room_and_one_that_was_never_started() -> None:
    ThreadedProducer(lambda index: index, AHEAD).stop()
    producer = ThreadedProducer(lambda index: index, AHEAD)
    producer.start(0)
    assert len(threads()) == 1
    producer.stop()
    assert not threads()
    producer.stop()


def test_a_producer_that_was_stopped_does_not_keep_training_waiting() -> None:
    def render(index: int) -> int:
        raise KeyError(index)

    producer = ThreadedProducer(render, AHEAD)
    with pytest.raises(RuntimeError, match="not running"):
        producer.take()


def test_with_cuda_and_without_gsplat_a_teacher_is_drawn_on_the_cpu(monkeypatch, caplog) -> None:
    """A fresh GPU machine: all that a run does with its teacher, before and during training, and one warning."""
    monkeypatch.setitem(sys.modules, "gsplat", None)
    fresh = {"is_available": True, "device_count": 1, "get_device_capability": (9, 0), "get_arch_list": ["sm_90"]}
    for name, value in fresh.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    gsplat_runs.cache_clear()
    small = ["teacher.frames=3", "data.resolution=16", "teacher.supersample=1"]
    config = load_config(REPO_ROOT / "configs/quickstart_live.yaml", small)
    device = choose_device(config)
    teacher = load_teacher(config)
    producer = make_producer(config, teacher, device)
    gsplat_runs.cache_clear()
    assert device == torch.device("cuda") and isinstance(producer, ThreadedProducer)
    (first,) = producer.first(0, 1)
    assert first.view.rgb.device == teacher.views.rgb.device == torch.device("cpu")
    assert [record.levelname for record in caplog.records if "gsplat" in record.message] == ["WARNING"]
