"""Files of the earlier evaluator: what is in sRGB is a run like any, what is in linear RGB stands apart."""

from __future__ import annotations

import json

from distill.reports.dashboard.older_runs import SUMMARY, read_older_runs
from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.stage_tables import measured_on, stage_tables

HEADER = (
    "method,psnr_white,ssim_white,lpips_white,psnr_black,ssim_black,lpips_black,psnr_foreground,fps,gpu_peak_gib,"
    "power_avg_w\n"
)


def test_a_summary_is_a_run_for_each_method(tmp_path) -> None:
    lines = ("KiloNeRF,,,,,,,,30.9,,", "kilo_smoke20k,9.60659,0.76,0.26,1.24,0.01,0.6,,0.1,3.5,189.4")
    (tmp_path / SUMMARY).write_text(HEADER + "\n".join(lines) + "\n")
    problems = Problems(tmp_path)
    (run,) = read_older_runs(tmp_path, problems)
    assert (run.key, run.stage, run.steps, run.student) == ("kilo_smoke20k", "1b", 20000, "kilo_uniform")
    assert (run.figure("psnr"), run.figure("lpips_vgg"), run.figure("power_avg_w")) == (9.60659, 0.26, 189.4)
    assert measured_on(run) == "teacher, on white" and run.mark[0] == "likely blank"
    assert len(run.latest.rows) == 2 and problems.found == []


def test_linear_figures_have_a_table_of_their_own(tmp_path) -> None:
    (tmp_path / SUMMARY).write_text(HEADER + "hash_a,25,,,,,,,,,\nhash_b_10k_step050000,26,,,,,,25.5,,,\n")
    folder = tmp_path / "results" / "lego" / "hash_c" / "eval_white_step030000"
    folder.mkdir(parents=True)
    content = {"num_images": 200, "psnr": 11.0, "lpips": 0.3, "psnr_foreground": 11.0, "background": "white"}
    (folder / "metrics_white.json").write_text(json.dumps(content))
    runs = read_older_runs(tmp_path, Problems(tmp_path))
    assert [(run.key, run.stage, run.steps) for run in runs] == [
        ("hash_a", "1a", None),
        ("hash_b_10k_step050000", "linear", 50000),
        ("lego/hash_c/eval_white_step030000", "linear", 30000),
    ]
    assert measured_on(runs[1]) == "teacher, on white, in linear RGB" and not runs[1].is_comparable
    assert runs[2].mark[0] == "likely blank" and "9.4757" not in runs[2].mark[1]
    assert [table.stage for table in stage_tables(runs)] == ["1a", "linear", "linear"]


def test_a_damaged_file_is_named(tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics_white.json").write_text("{")
    problems = Problems(tmp_path)
    assert read_older_runs(tmp_path, problems) == [] and problems.found[0].file == "logs/metrics_white.json"
