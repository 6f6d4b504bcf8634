"""The Markdown file: exact for a small case, best in bold."""

from __future__ import annotations

import pytest

from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import read_runs
from distill.reports.dashboard.stage_tables import TITLES, dashboard_markdown, stage_tables
from machine.files import write_csv
from settings.loading import REPO_ROOT
from tests.distill.reports.dashboard.toy_runs import write_run
from tests.program import csv_rows


def _markdown(root) -> str:
    problems = Problems(root)
    return dashboard_markdown(stage_tables(read_runs(root, problems)), problems.found)


def test_small_case(tmp_path) -> None:
    write_run(tmp_path, "a", 30.0, fps=40.0)
    write_run(tmp_path, "b_2", 31.0, fps=None)
    write_run(tmp_path, "gone", 10.25, fps=900.0)
    (tmp_path / "logs/toy/b_2/training_metrics.csv").write_text("")
    head, _, rules = _markdown(tmp_path).partition("\n## How to read it")
    assert (REPO_ROOT / "docs/dashboard.md").read_text(encoding="utf-8").endswith(rules), "as this program writes it"
    assert head == (
        "# Dashboard\n\n"
        "Made by `python tools/dashboard.py` from `logs/` and `results/`; written anew each time.\n\n"
        "## toy: Stage 1a: hash grid, response\n\n"
        "| run | student | steps | width px | PSNR dB | SSIM | LPIPS-vgg | FPS | size MiB | power W "
        "| gap to teacher dB | gap to blank dB | measured on | notes |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |\n"
        "| b_2 | hash_grid | 1,000 | 100 | **31.00** | **0.9000** |  |  |  |  |  | **21.00** | holdout, teacher |  |\n"
        "| a | hash_grid | 1,000 | 100 | 30.00 | **0.9000** |  | 40.0 |  |  |  | 20.00 | holdout, teacher |  |\n"
        "| gone **COLLAPSED** | hash_grid | 1,000 | 100 | 10.25 | 0.9000 |  | 900.0 |  |  |  | 0.25 | holdout, teacher "
        "| COLLAPSED: PSNR 10.25 dB is not 0.5 dB above that of a blank picture, 10.00 dB. |\n\n"
        "## Files that could not be read in full\n\n"
        "- logs/toy/b_2/training_metrics.csv: empty file\n"
    )


def test_runs_measured_otherwise_do_not_compete(tmp_path) -> None:
    write_run(tmp_path, "small", 35.0)
    write_run(tmp_path, "large", 30.0, config={"data": {"resolution": 800}})
    assert "**35.00**" not in _markdown(tmp_path) and "35.00" in _markdown(tmp_path)


def test_blocks_of_a_city_do_not_compete(tmp_path) -> None:
    """Each has a part of the city for a teacher."""
    city = tmp_path / "results/toy/city"
    for name, psnr in (("b000", 22.0), ("b001", 24.0)):
        write_run(city / "blocks" / name / "run", name, psnr)
    (city / "city.json").write_text("{}")
    assert "| 24.00 |" in _markdown(tmp_path) and "**" not in _markdown(tmp_path)


def test_the_teacher_of_a_control_is_the_images(tmp_path) -> None:
    write_run(tmp_path, "plain", config={"teacher": {"kind": "images"}})
    assert "| holdout, images |" in _markdown(tmp_path) and "holdout, teacher" not in _markdown(tmp_path)


def test_no_runs(tmp_path) -> None:
    assert "No runs yet." in _markdown(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "title", "better"),
    [
        ("lpips_vgg", 0.25, "LPIPS-vgg", min), ("ssim", 0.5, "SSIM", max), ("avg_fps", 3.0, "FPS", max),
        ("power_avg_w", 40.0, "power W", min), ("psnr_blank", 8.0, "gap to blank dB", min),
    ],
)  # fmt: skip
def test_the_best_of_a_column_is_its_least_or_its_most(tmp_path, name, value, title, better) -> None:
    for run, factor in (("low", 1), ("high", 1.5)):
        path = write_run(tmp_path, run, 30.0, pictures=False) / "eval_step_001000.csv"
        (row,) = csv_rows(path)
        write_csv(path, [row | {name: value * factor}], row)
    (table,) = stage_tables(read_runs(tmp_path, Problems(tmp_path)))
    place = TITLES[2:].index(title)
    best = [row.run.name for row in table.rows if row.cells[place].best]
    assert best == ["low" if better is min else "high"]


def test_the_smallest_file_is_the_best_and_marked_runs_do_not_compete(tmp_path) -> None:
    for run, psnr, fps, size in (("slow", 30.0, 30.0, 2.0), ("fast", 30.0, 40.0, 3.0), ("gone", 10.25, 900.0, 1.0)):
        logs = write_run(tmp_path, run, psnr, fps=fps, pictures=False)
        (logs / "eval_step_001000_parity.csv").write_text(f"subject,fps_median,size_mib\nstudent,{fps},{size}\n")
    (table,) = stage_tables(read_runs(tmp_path, Problems(tmp_path)))
    best = {
        title: [row.run.name for row in table.rows if row.cells[TITLES[2:].index(title)].best]
        for title in ("FPS", "size MiB")
    }
    assert best == {"FPS": ["fast"], "size MiB": ["slow"]}


def test_speed_and_power_that_an_evaluation_did_not_measure_are_those_beside_the_teacher(tmp_path) -> None:
    logs = write_run(tmp_path, "one", 30.0, fps=None, pictures=False)
    (logs / "eval_step_001000_parity.csv").write_text("subject,fps_median,power_avg_w\nstudent,50,7\nteacher,10,9\n")
    (table,) = stage_tables(read_runs(tmp_path, Problems(tmp_path)))
    cells = dict(zip(TITLES[2:], table.rows[0].cells, strict=False))
    assert (cells["FPS"].text, cells["power W"].text) == ("50.0", "7.0")
