"""Interleaving, refusals, the roofline and the table, by hand."""

from types import SimpleNamespace

import pytest
import torch

from distill.benchmarks import kernel_cases, measurement, run_cases
from distill.benchmarks.benchmark_table import COLUMNS, markdown, rows_of
from distill.benchmarks.case import TINY, Case, implementations
from distill.benchmarks.kernel_cases import (
    adam_cases,
    grouped_mlp_cases,
    hash_encoding_cases,
    radiance_mlp_cases,
    shading_cases,
)
from distill.benchmarks.measurement import Limits, Timing, limit_cases, limits_from, measure
from distill.rendering import renderer
from settings.errors import InputError

CPU = torch.device("cpu")
WHERE = {"device": "cpu", "device_name": "X", "threads": 1, "torch": "2", "date": "2026-01-02", "command": "c"}


def work(calls, name):
    return lambda: calls.append(name)


def test_rounds_are_interleaved_and_the_first_is_not_counted():
    calls = []
    cases = [Case("kernel", name, work(calls, name), before=work(calls, f"before {name}")) for name in "ab"]
    timings = measure("group", cases, 2, CPU, least_s=0)
    assert calls == ["before a", "a", "before b", "b"] * 3
    assert [len(timing.seconds) for timing in timings] == [2, 2]
    assert [(timing.peak_gib, timing.failure) for timing in timings] == [(None, None)] * 2


def test_work_with_a_clock_of_its_own_is_believed():
    timings = measure("group", [Case("steps", "torch", lambda: 12.5)], 2, CPU, least_s=0)
    assert timings[0].seconds == [12.5, 12.5]


def test_short_work_is_repeated_within_a_round_and_its_mean_counts(monkeypatch):
    now, calls = 0.0, []

    def takes(seconds):
        nonlocal now
        calls.append(seconds)
        now += seconds

    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now)
    case = Case("kernel", "torch", lambda: takes(2.0), before=lambda: takes(6.0))
    (timing,) = measure("group", [case], 1, CPU, least_s=20.0)
    assert timing.seconds == [2.0] and calls == [6.0, 2.0] * (1 + 1 + 3), "uncounted, tried, then 20 s of them"


class Event:
    """A CUDA event of a GPU on which each call of a case takes 3 ms."""

    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = Event.now

    def elapsed_time(self, end):
        return end.at - self.at


def test_on_a_gpu_events_time_calls_that_queue_up(monkeypatch):
    waits, calls = [], []

    def queued():
        calls.append(len(waits))
        Event.now += 3.0

    def before():
        Event.now += 100.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(measurement, "synchronize", waits.append)
    for name in ("reset_gpu_peak", "gpu_mem_gib"):
        monkeypatch.setattr(measurement, name, lambda device: 0.5)
    (timing,) = measure("group", [Case("kernel", "triton", queued, before)], 1, torch.device("cuda"))
    assert timing.seconds == [pytest.approx(0.003)] and timing.peak_gib == 0.5
    assert calls.count(2) > 10 and len(waits) == 3, "many calls, and one wait after them all"


def test_a_case_that_fails_is_told_at_once_and_the_others_go_on():
    def refuse():
        raise ValueError("kernel k: implementation 'triton' cannot run on cpu")

    def break_down():
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with")

    def cases():
        yield Case("k", "triton", refuse)
        yield Case("k", "other", break_down)
        yield Case("k", "torch", lambda: 0.5)
        raise TypeError("no such kernel")

    kept = []
    timings = measure(
        "group", cases(), 2, CPU, least_s=0, keep=lambda timings: kept.append(rows_of(timings, None, WHERE))
    )
    assert [len(timing.seconds) for timing in timings] == [0, 0, 2, 0]
    assert [row["failure"] for row in kept[1]] == [
        "ValueError: kernel k: implementation 'triton' cannot run on cpu",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
    ]
    assert kept[-1] == rows_of(timings, None, WHERE) and len(kept) == 3 + 2
    assert (kept[-1][-1]["case"], kept[-1][-1]["failure"]) == ("group", "TypeError: no such kernel")
    assert timings[0].failure.__traceback__ is None and timings[1].failure.__traceback__ is not None


def test_a_case_may_fail_after_it_was_measured():
    answers = iter([1.0, 2.0])
    (timing,) = measure("group", [Case("k", "torch", lambda: next(answers))], 3, CPU, least_s=0)
    (row,) = rows_of([timing], None, WHERE)
    assert (row["median_s"], row["rounds"], row["failure"]) == (2.0, 1, "StopIteration: no message")
    assert markdown([row]).endswith("| 1.0 | not measured: StopIteration: no message |  |  |")


def test_a_bad_file_ends_the_benchmark():
    def cases():
        raise InputError("a.ply", "file", "none", "one")
        yield

    with pytest.raises(InputError):
        measure("group", cases(), 1, CPU)


@pytest.mark.parametrize(
    ("moved", "computed", "seconds"), [(200.0, 10.0, 2.0), (100.0, 3000.0, 3.0), (None, 500.0, 0.5), (None, None, None)]
)
def test_the_roofline_is_the_longer_of_moving_and_computing(moved, computed, seconds):
    case = Case("kernel", "torch", lambda: None, bytes=moved, flops=computed)
    assert Limits(100.0, 1000.0).least_seconds(case) == seconds


def test_the_limits_are_the_best_rounds_of_a_copy_and_a_product():
    timings = measure("group", [*limit_cases(CPU, TINY), Case("kernel", "torch", lambda: 0.5)], 2, CPU, least_s=0)
    copy, multiply = timings[:2]
    assert all(0 < second < 60 for timing in (copy, multiply) for second in timing.seconds)
    copy.seconds, multiply.seconds = [2.0, 1.0], [4.0, 8.0]
    limits, others = limits_from(timings)
    assert limits == Limits(2 * TINY.copied / 1.0, 2 * TINY.matrix**3 / 4.0)
    assert [timing.case.name for timing in others] == ["kernel"]
    again = [Timing(copy.case, [0.5]), Timing(multiply.case, [9.0])]
    assert limits_from([*timings, *again])[0] == Limits(2 * TINY.copied / 0.5, 2 * TINY.matrix**3 / 4.0)
    assert limits_from([copy])[0] is None


def test_the_table_compares_medians_with_the_first_of_the_same_case():
    first = Case("kernel", "torch", lambda: None, items=1000, unit="points", bytes=1e6)
    other, fast = Case("another", "torch", lambda: None), Case("kernel", "numba", lambda: None)
    timings = [Timing(first, [0.3, 0.1, 0.2]), Timing(other, [1.0]), Timing(fast, [0.04, 0.06, 0.05], 0.25)]
    rows = rows_of(timings, Limits(1e8, 1e9), WHERE)
    assert all(set(row) == set(COLUMNS) for row in rows)
    lines = markdown(rows).splitlines()
    assert lines[0] == "X, 1 CPU thread, torch 2, 2026-01-02, `c`. Copies 0.1 GB/s, multiplies 1 GFLOP/s."
    assert lines[4] == "| kernel | torch | 100.00 | 200.00 | 300.00 | 1.0 | 5,000 points/s |  | 5.0 % |"
    assert lines[5] == "| kernel | numba | 40.00 | 50.00 | 60.00 | 4.0 |  | 0.25 |  |"
    assert lines[6] == "| another | torch | 1000.00 | 1000.00 | 1000.00 | 1.0 |  |  |  |"


def test_training_has_steps_and_rays_per_second():
    case = Case("training hash_grid", "numba", lambda: 0.5, items=100, unit="rays")
    line = markdown(rows_of([Timing(case, [0.5])], Limits(1, 1), WHERE)).splitlines()[-1]
    assert "| 2 steps/s, 200 rays/s |" in line


def test_what_the_hash_encoding_moves_is_counted_from_its_sizes():
    case = next(hash_encoding_cases(CPU, TINY))
    # 1,024 points with 8 outputs, forward and backward; 4 levels of 4,096 entries of two floats, read, read, written.
    assert case.bytes == 1024 * (2 * 12 + 2 * 4 * 8) + 3 * 4 * 2 * 4 * 4096
    assert case.flops == 2 * 1024 * 4 * 8 * (2 * 2 + 2)


@pytest.mark.parametrize("make", [hash_encoding_cases, radiance_mlp_cases, shading_cases, grouped_mlp_cases])
def test_kernels_are_called_in_the_type_that_training_computes_in(make, monkeypatch):
    monkeypatch.setattr(kernel_cases, "precision_on", lambda device: torch.float16)
    monkeypatch.setattr(kernel_cases, "implementations", lambda device: ("torch", "numba"))
    reference, numba = list(make(CPU, TINY))[:2]
    reference.work()
    with pytest.raises(ValueError, match="numba"):  # which has no float16
        numba.work()


def test_adams_gradient_is_the_same_before_each_update():
    *_, lazy = adam_cases(CPU, TINY)
    assert lazy.implementation == "lazy" and 4 * lazy.items < lazy.bytes < 32 * lazy.items


def test_with_triton_the_fused_renderer_is_timed_beside_the_waves(monkeypatch):
    rendered = []
    monkeypatch.setattr(run_cases, "implementations", lambda device: ("torch", "triton"))
    monkeypatch.setattr(run_cases.Run, "trainer", property(lambda run: SimpleNamespace(model=run.model)))
    frames = SimpleNamespace(render=lambda *camera: None)
    monkeypatch.setattr(run_cases, "FrameRenderer", lambda *model: (rendered.append(model[2].fused), frames)[1])
    monkeypatch.setattr(
        renderer, "fused_refusal", lambda field, device, name: "it has none" if name == "torch" else None
    )
    monkeypatch.setattr(renderer, "resolve", lambda kernel, requested, *_: requested)
    for kind in run_cases.STUDENTS:
        cases = list(run_cases.run_cases(kind, CPU, TINY, frozenset(["rendering"])))
        assert [case.implementation for case in cases] == ["torch", "triton", "triton, fused", "triton, fused, float16"]
        for case in cases:
            case.work()
    assert rendered == [False, False, True, True] * 2


def test_a_run_is_trained_in_its_first_call_and_its_steps_go_on():
    (case, *_) = run_cases.run_cases("hash_grid", CPU, TINY, frozenset(["training"]))
    run = case.work.__closure__[0].cell_contents
    assert "trainer" not in vars(run), "making a case trains nothing"
    assert case.work() > 0 and run.trainer.progress.step == TINY.warm_steps + TINY.timed_steps
    assert case.work() > 0 and run.trainer.progress.step == TINY.warm_steps + 2 * TINY.timed_steps
    assert case.items() == run.trainer.step.rays_per_step
    assert run.config.occupancy.warmup_steps == TINY.warm_steps, "the steps refresh the occupied space"
    run.trainer.step.graphs = SimpleNamespace(refusal="operation failed due to a previous error during capture")
    with pytest.raises(RuntimeError, match="during capture"):
        case.work()
    config = run_cases.run_config("hash_grid", CPU, TINY, "numba", "train.cuda_graphs=true")
    with pytest.raises(ValueError, match="its steps wait for the device"):
        run_cases.Run(config, run.teacher, CPU).step_seconds(1)


def test_on_a_gpu_training_is_timed_with_recorded_steps_too(monkeypatch):
    asked = []
    monkeypatch.setattr(run_cases, "load_teacher", lambda config: None)
    monkeypatch.setattr(run_cases, "Run", lambda config, *_: asked.append(config) or SimpleNamespace(config=config))
    cases = list(run_cases.run_cases("kilo_uniform", torch.device("cuda"), TINY, frozenset(["training"])))
    assert [case.implementation for case in cases] == ["triton", "triton, recorded"]
    assert {config.train.cuda_graphs for config in asked[:-1]} == {False} and asked[-1].train.cuda_graphs
    assert all(config.student.grid == (10, 18, 12) for config in asked)


def test_a_gpu_has_triton_and_a_cpu_numba():
    assert implementations(CPU) == ("torch", "numba")
    assert implementations(torch.device("cuda", 0)) == ("torch", "triton")
