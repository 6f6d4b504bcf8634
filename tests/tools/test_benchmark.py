"""The benchmark's table, and that every kernel it times still runs."""

from __future__ import annotations

import pytest

from tools.benchmark import main, measure, table


def test_the_table_compares_medians_with_the_first_implementation() -> None:
    text = table({("kernel", "torch"): [0.3, 0.1, 0.2], ("kernel", "numba"): [0.04, 0.06, 0.05]})
    assert text.splitlines()[2] == "| kernel | torch | 100.00 | 200.00 | 300.00 | 1.0 |"
    assert text.splitlines()[3] == "| kernel | numba | 40.00 | 50.00 | 60.00 | 4.0 |"


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    calls: list[str] = []
    cases = [("kernel", name, lambda name=name: calls.append(name)) for name in ("a", "b")]
    seconds = measure(cases, repeats=2)
    assert calls == ["a", "b"] * 3
    assert {key: len(values) for key, values in seconds.items()} == {("kernel", "a"): 2, ("kernel", "b"): 2}


def test_every_implementation_of_the_small_kernels_is_timed(capsys) -> None:
    groups = ["--only", "radiance_mlp", "--only", "adam", "--only", "voxelize", "--only", "ssim"]
    assert main([*groups, "--repeats", "1"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 2 + 6 + 3 + 2


def test_a_ply_needs_its_cameras(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--ply", "somewhere.ply"])
    assert "--transforms" in capsys.readouterr().err
    assert main(["--only", "rasterize", "--ply", "nowhere.ply", "--transforms", "none.json"]) == 2
    assert "nowhere.ply" in capsys.readouterr().err
