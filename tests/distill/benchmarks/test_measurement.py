"""Interleaving, refusals, the roofline and the table, by hand."""

import pytest
import torch

from distill.benchmarks import run_cases
from distill.benchmarks.benchmark_table import COLUMNS, markdown, rows_of
from distill.benchmarks.case import TINY, Case, implementations
from distill.benchmarks.kernel_cases import adam_cases, hash_encoding_cases
from distill.benchmarks.measurement import Limits, Timing, limit_cases, limits_from, measure
from distill.model.model import build_model
from distill.rendering import renderer

CPU = torch.device("cpu")
WHERE = {"device": "cpu", "device_name": "X", "threads": 1, "torch": "2", "date": "2026-01-02", "command": "c"}


def work(calls, name):
    return lambda: calls.append(name)


def test_rounds_are_interleaved_and_the_first_is_not_counted():
    calls = []
    cases = [Case("kernel", name, work(calls, name), before=work(calls, f"before {name}")) for name in "ab"]
    timings, refused = measure(cases, 2, CPU)
    assert calls == ["before a", "a", "before b", "b"] * 3
    assert [len(timing.seconds) for timing in timings] == [2, 2] and refused == []
    assert [timing.peak_gib for timing in timings] == [None, None]


def test_work_with_a_clock_of_its_own_is_believed():
    timings, _ = measure([Case("steps", "torch", lambda: 12.5)], 2, CPU)
    assert timings[0].seconds == [12.5, 12.5]


def test_a_case_that_cannot_run_is_left_out_with_its_reason():
    def refuse():
        raise ValueError("kernel k: implementation 'triton' cannot run on cpu")

    timings, refused = measure([Case("k", "triton", refuse), Case("k", "torch", lambda: None)], 1, CPU)
    assert [timing.case.implementation for timing in timings] == ["torch"]
    assert refused[0][0].implementation == "triton" and "cannot run on cpu" in str(refused[0][1])


@pytest.mark.parametrize(
    ("moved", "computed", "seconds"), [(200.0, 10.0, 2.0), (100.0, 3000.0, 3.0), (None, 500.0, 0.5), (None, None, None)]
)
def test_the_roofline_is_the_longer_of_moving_and_computing(moved, computed, seconds):
    case = Case("kernel", "torch", lambda: None, bytes=moved, flops=computed)
    assert Limits(100.0, 1000.0).least_seconds(case) == seconds


def test_the_limits_are_the_best_rounds_of_a_copy_and_a_product():
    timings, _ = measure([*limit_cases(CPU, TINY), Case("kernel", "torch", lambda: 0.5)], 2, CPU)
    copy, multiply = timings[:2]
    assert all(0 < second < 60 for timing in (copy, multiply) for second in timing.seconds)
    copy.seconds, multiply.seconds = [2.0, 1.0], [4.0, 8.0]
    limits, others = limits_from(timings)
    assert limits == Limits(2 * TINY.copied / 1.0, 2 * TINY.matrix**3 / 4.0)
    assert [timing.case.name for timing in others] == ["kernel"]


def test_the_table_compares_medians_with_the_first_of_the_same_case():
    first = Case("kernel", "torch", lambda: None, items=1000, unit="points", bytes=1e6)
    other, fast = Case("another", "torch", lambda: None), Case("kernel", "numba", lambda: None)
    timings = [Timing(first, [0.3, 0.1, 0.2]), Timing(other, [1.0]), Timing(fast, [0.04, 0.06, 0.05], 0.25)]
    rows = rows_of(timings, Limits(1e8, 1e9), WHERE)
    assert all(set(row) == set(COLUMNS) for row in rows)
    lines = markdown(rows).splitlines()
    assert lines[0] == "X, 1 CPU threads, torch 2, 2026-01-02, `c`. Copies 0.1 GB/s, multiplies 1 GFLOP/s."
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


def test_adams_gradient_is_the_same_before_each_update():
    *_, lazy = adam_cases(CPU, TINY)
    assert lazy.implementation == "lazy" and 4 * lazy.items < lazy.bytes < 32 * lazy.items


def test_with_triton_the_fused_renderer_is_timed_beside_the_waves(monkeypatch):
    rendered = []
    monkeypatch.setattr(run_cases, "implementations", lambda device: ("torch", "triton"))
    monkeypatch.setattr(
        run_cases, "_warm", lambda config, teacher, device, _: (None, build_model(config, teacher, device))
    )
    monkeypatch.setattr(run_cases, "render_frame", lambda *arguments: rendered.append(arguments[4].fused))
    monkeypatch.setattr(
        renderer, "fused_refusal", lambda field, device, name, precision: "it has none" if name == "torch" else None
    )
    monkeypatch.setattr(renderer, "resolve", lambda kernel, requested, *_: requested)
    cases = list(run_cases.run_cases(CPU, TINY, frozenset(["rendering"])))
    assert [case.implementation for case in cases] == ["torch", "triton", "triton, fused"] * 2
    for case in cases:
        case.work()
    assert rendered == [False, False, True] * 2


def test_a_gpu_has_triton_and_a_cpu_numba():
    assert implementations(CPU) == ("torch", "numba")
    assert implementations(torch.device("cuda", 0)) == ("torch", "triton")
