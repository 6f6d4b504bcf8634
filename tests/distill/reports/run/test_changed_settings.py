"""What of a config is not as the schema has it."""

from __future__ import annotations

from pathlib import Path

from distill.reports.run.changed_settings import KEYS_BELOW, REQUIRED, changed_settings
from settings.loading import load_config

BRICKS = "scene: toy\nrun: first\ndata: {resolution: 64}\nteacher: {kind: bricks}\n"
ALWAYS = [("scene", "toy", REQUIRED), ("run", "first", REQUIRED), ("data.resolution", 64, None)]
KIND = ("teacher.kind", "bricks", REQUIRED)


def changed(folder: Path, *overrides: str) -> list[tuple]:
    path = folder / "run.yaml"
    path.write_text(BRICKS, encoding="utf-8")
    return changed_settings(load_config(path, overrides))


def test_defaults_are_left_out_even_where_they_are_said(tmp_path) -> None:
    assert changed(tmp_path, "train.lr=0.01", "student.kind=hash_grid") == [*ALWAYS, KIND]


def test_nested_values_in_the_schemas_order(tmp_path) -> None:
    found = changed(tmp_path, "loss.depth.weight=0.5", "seed=7", "loss.rgb.kind=l1")
    assert found == [
        *ALWAYS[:2], ("seed", 7, 0), ALWAYS[2], KIND, ("loss.rgb.kind", "l1", "l2"), ("loss.depth.weight", 0.5, 0.0),
    ]  # fmt: skip


def test_a_student_of_another_kind_is_compared_with_its_own_defaults(tmp_path) -> None:
    found = changed(tmp_path, "student={kind: kilo_uniform, grid: [2, 3, 4]}")
    assert found == [
        *ALWAYS,
        KIND,
        ("student.kind", "kilo_uniform", "hash_grid"),
        ("student.grid", (2, 3, 4), (5, 9, 6)),
    ]


def test_a_section_in_place_of_a_word(tmp_path) -> None:
    found = changed(tmp_path, "teacher.live={buffer: 8}", "data.box={lower: [0, 0, 0], upper: [1, 1, 1]}")
    assert ("data.box", KEYS_BELOW, "auto") in found and ("data.box.upper", (1, 1, 1), REQUIRED) in found
    assert ("teacher.live", KEYS_BELOW, False) in found and ("teacher.live.buffer", 8, 128) in found
