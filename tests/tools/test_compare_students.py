"""The comparison of students: one table, figures from the files the runs wrote."""

from __future__ import annotations

import csv

import yaml

from tests.toy_scene import write_toy_scene
from tools.compare_students import COLUMNS, main


def test_two_students_in_one_table(tmp_path, capsys) -> None:
    first = write_toy_scene(tmp_path)
    settings = yaml.safe_load(first.read_text()) | {"run": "kilo"}
    settings["student"] = {"kind": "kilo_uniform", "grid": [1, 2, 1], "hidden_width": 16}
    second = tmp_path / "kilo.yaml"
    second.write_text(yaml.safe_dump(settings))
    shared = ["--assets", str(tmp_path), "--output", str(tmp_path)]
    assert main(["--config", str(first), "--config", str(second), *shared, "--set", "train.max_steps=40"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = [dict(zip(COLUMNS, (cell.strip() for cell in line.split("|")[1:-1]), strict=True)) for line in table[2:]]
    assert [row["student"] for row in rows] == ["hash_grid", "kilo_uniform"]
    with open(tmp_path / "logs/toy/first/eval_step_000040.csv", encoding="utf-8") as file:
        assert rows[0]["holdout PSNR"] == f"{float(next(csv.DictReader(file))['psnr']):.2f}"
    for row in rows:
        assert row["steps"] == "40"
        parameters = int(row["parameters"].replace(",", ""))
        assert float(row["fp32 MiB"]) >= round(parameters * 4 / 2**20, 2)
        assert float(row["fp16 MiB"]) < float(row["fp32 MiB"]) or parameters < 4000
        assert row["LPIPS-vgg"] == ""


def test_bad_input_is_one_message(tmp_path, capsys) -> None:
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
