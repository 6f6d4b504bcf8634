"""The table of what tools/gpu_check.sh measured."""

from __future__ import annotations

import json

import pytest
import torch

from distill.benchmarks.benchmark_table import COLUMNS, rows_of
from distill.benchmarks.case import Case
from distill.benchmarks.measurement import Limits, Timing
from distill.evaluation.results import EVAL_COLUMNS
from machine.files import write_csv
from settings.errors import InputError
from tools.results_table import check_device, main, results_table


@pytest.fixture
def run(tmp_path):
    """Writes the files of a run into an output folder's report."""

    def write(name, training, rows, versions):
        logs, results = (tmp_path / "report" / kind / "lego" / name for kind in ("logs", "results"))
        logs.mkdir(parents=True)
        results.mkdir(parents=True)
        write_csv(logs / "training_metrics.csv", training, ("step", "wall_s"))
        write_csv(logs / "eval_step_000200.csv", rows, EVAL_COLUMNS)
        (logs / "eval_step_000200_frames.csv").write_text("step,frame\n")
        (results / "versions.json").write_text(json.dumps(versions))

    return write


def test_a_run_is_a_line_and_what_was_not_measured_is_an_empty_cell(run, tmp_path):
    common = {"split": "holdout", "avg_fps": 215.5}
    rows = [
        {**common, "reference": "teacher", "psnr": 38.126, "ssim": 0.9},
        {**common, "reference": "ground_truth", "psnr": 35.5, "ssim": 0.97},
        {**common, "split": "train", "reference": "teacher", "psnr": 50.0},
    ]
    training = [{"step": 100, "wall_s": 30}, {"step": 1200, "wall_s": 60.01}]
    run("hash", training, rows, {"device_name": "A GPU", "command": "python x.py"})
    lines = results_table(tmp_path, "commit a").splitlines()
    assert lines[0] == "Code: commit a."
    assert lines[-1] == "| lego/hash | A GPU | 60 | 1,200 | 38.13 | 35.50 | 0.9700 | 216 |  | `python x.py` |"


def test_a_collapsed_run_is_marked(run, tmp_path):
    row = {"split": "holdout", "reference": "teacher", "psnr": 11.0, "collapsed": "COLLAPSED"}
    run("blank", [], [row], {})
    assert results_table(tmp_path).splitlines()[-1] == "| lego/blank **COLLAPSED** |  |  |  | 11.00 |  |  |  |  |  |"


def test_tests_and_benchmark_come_first(tmp_path):
    report = tmp_path / "report"
    report.mkdir()
    (report / "tests_kernels.xml").write_text(
        '<testsuites><testsuite errors="1" failures="2" skipped="3" tests="10" time="4.6" '
        'timestamp="2026-01-02T03:04:05"/></testsuites>'
    )
    where = {"device_name": "A GPU", "threads": 16, "torch": "2.14", "date": "2026-01-02", "command": "python b.py"}
    timing = Timing(Case("kernel", "triton", lambda: None, bytes=1e6), [0.002, 0.001, 0.004], 1.5)
    write_csv(report / "benchmark.csv", rows_of([timing], Limits(1e9, 1e12), where), COLUMNS)
    lines = results_table(tmp_path).splitlines()
    assert lines[0] == "- tests_kernels, 2026-01-02: 4 passed, 3 failed, 3 skipped, 5 s."
    assert lines[-1] == "| kernel | triton | 1.00 | 2.00 | 4.00 | 1.0 |  | 1.50 | 50.0 % |"


def test_an_empty_folder_is_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="no tests, benchmark or runs"):
        results_table(tmp_path)
    assert main([str(tmp_path), "--write", str(tmp_path / "table.md")]) == 2
    assert "tools/gpu_check.sh first" in capsys.readouterr().err and not (tmp_path / "table.md").exists()


def test_what_is_missing_on_the_machine_is_named(monkeypatch):
    check_device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="one that torch finds"):
        check_device("cuda")
    monkeypatch.setattr("tools.results_table.find_spec", lambda name: None if name in ("triton", "numba") else object())
    with pytest.raises(InputError, match="no numba"):
        check_device("cpu")
    monkeypatch.setattr("tools.results_table.find_spec", lambda name: None if name == "triton" else object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="no triton"):
        check_device("cuda")
