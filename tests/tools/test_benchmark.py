"""The benchmark's command line, and that every kernel it times still runs."""

from __future__ import annotations

import pytest
import torch

from distill.benchmarks.benchmark_table import COLUMNS
from distill.benchmarks.case import Case
from tests.program import csv_rows
from tools import benchmark
from tools.benchmark import main


def rows_of(text):
    """The table's lines without its head, as cells."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_implementation_of_the_kernels_is_timed(capsys):
    kernels = ("hash_encoding", "radiance_mlp", "shading", "grouped_mlp", "marching", "adam", "muon")
    groups = (*kernels, "voxelize", "ssim")
    assert main([*(word for group in groups for word in ("--only", group)), "--tiny", "--repeats", "1"]) == 0
    rows = [row for row in rows_of(capsys.readouterr().out) if not row[6].startswith("not measured")]
    found = [(row[0].split()[0], row[1]) for row in rows if row[1] != "nerfstudio (torch)"]
    networks = ("radiance_mlp", "radiance_mlp", "color_of_rays", "grouped_mlp")
    both = ("hash_encoding", *networks, "ray_marching", "compositing")
    assert found[:14] == [(kernel, name) for kernel in both for name in ("torch", "numba")]
    adam = ("torch.optim.Adam", "dense torch", "dense numba", "lazy")
    assert found[14:18] == [("adam", name) for name in adam]
    assert found[18:22] == [("muon", name) for name in ("torch", "numba")] * 2
    assert len(found) == 22 + 3 + 2


def test_training_and_rendering_of_both_students(capsys):
    assert main(["--only", "training", "--only", "rendering", "--tiny", "--repeats", "1"]) == 0
    out = capsys.readouterr().out
    rows, fused = rows_of(out), ("numba, fused", "numba, fused, float16")
    assert [(row[0].split(",")[0].split()[:2], row[1]) for row in rows] == [
        ([what, student], name)
        for student in ("hash_grid", "kilo_uniform")
        for what, names in (("training", ("torch", "numba")), ("rendering", ("torch", "numba", *fused)))
        for name in names
    ]
    assert all("steps/s" in row[6] and "rays/s" in row[6] for row in rows if row[0].startswith("training"))
    assert all("frames/s" in row[6] for row in rows if row[0].startswith("rendering"))
    assert "not measured" not in out


def test_what_two_processes_exchange_is_a_part_of_their_step(capsys):
    assert main(["--only", "exchange", "--student", "hash_grid", "--tiny", "--repeats", "1"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert [row[1] for row in rows] == ["whole step", "counts of rays and samples", "gradients"]
    assert all("hash_grid" in row[0] and float(row[3]) > 0 for row in rows), "of the one student asked for"


def test_csv_and_markdown_hold_what_is_printed(tmp_path, capsys):
    paths = tmp_path / "b.csv", tmp_path / "b.md"
    options = ["--only", "ssim", "--tiny", "--repeats", "2"]
    assert main([*options, "--csv", str(paths[0]), "--markdown", str(paths[1])]) == 0
    assert paths[1].read_text() == capsys.readouterr().out
    rows = csv_rows(paths[0])
    assert tuple(rows[0]) == COLUMNS and [row["implementation"] for row in rows] == ["torch", "numba"]
    assert {row["command"] for row in rows} == {"python tools/benchmark.py " + " ".join(options)}
    assert {row["rounds"] for row in rows} == {"2"} and {row["gpu_peak_gib"] for row in rows} == {""}


def test_a_ply_needs_its_cameras(capsys):
    with pytest.raises(SystemExit):
        main(["--ply", "somewhere.ply"])
    assert "--transforms" in capsys.readouterr().err
    assert main(["--only", "rasterize", "--ply", "nowhere.ply", "--transforms", "none.json"]) == 2
    assert "nowhere.ply" in capsys.readouterr().err


def test_what_cannot_be_done_is_said_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--device", "cuda"]) == 2
    assert "a CUDA device that torch finds" in capsys.readouterr().err
    assert main(["--csv", str(tmp_path / "none" / "b.csv")]) == 2
    assert "Make it first" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["--device", "cuda", "--only", "ssim"]) == 2
    assert "Its twins run on the CPU alone" in capsys.readouterr().err


def test_what_fails_is_a_row_of_the_csv_and_the_exit_status_says_so(tmp_path, monkeypatch, capsys):
    def fails(sizes):
        yield Case("voxelize", "numba", lambda: 0.5)
        raise RuntimeError("the compiler gave up")

    monkeypatch.setitem(benchmark.TEACHERS, "voxelize", fails)
    path = tmp_path / "b.csv"
    assert main(["--only", "voxelize", "--only", "ssim", "--tiny", "--repeats", "1", "--csv", str(path)]) == 4
    rows = csv_rows(path)
    assert [(row["case"].split()[0], row["failure"]) for row in rows] == [
        *(("voxelize", ""), ("voxelize", "RuntimeError: the compiler gave up")),
        *(("ssim", ""), ("ssim", "")),
    ]
    assert "not measured: RuntimeError: the compiler gave up" in capsys.readouterr().out


def test_the_csv_holds_what_was_measured_before_the_process_ended(tmp_path, monkeypatch):
    class Aborted(BaseException):
        """As when torch ends the process."""

    def ends(sizes):
        yield Case("voxelize", "numba", lambda: 0.5)
        raise Aborted

    monkeypatch.setitem(benchmark.TEACHERS, "voxelize", ends)
    path = tmp_path / "b.csv"
    with pytest.raises(Aborted):
        main(["--only", "ssim", "--only", "voxelize", "--tiny", "--repeats", "1", "--csv", str(path)])
    assert [row["implementation"] for row in csv_rows(path) if row["median_s"]] == ["torch", "numba"]
