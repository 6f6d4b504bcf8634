"""Runs from folders: old and new CSVs, marks, gaps, parity, sizes."""

from __future__ import annotations

import pytest
import torch

from distill.reports.dashboard.run_files import Problems
from distill.reports.dashboard.run_records import Run, read_runs
from distill.reports.dashboard.stage_tables import measured_on
from tests.distill.reports.dashboard.toy_runs import write_run


def _only(root) -> tuple[Run, Problems]:
    problems = Problems(root)
    (run,) = read_runs(root, problems)
    return run, problems


def _old(root, text: str) -> None:
    folder = root / "logs" / "lego" / "stage1a"
    folder.mkdir(parents=True)
    (folder / "eval_step_020000.csv").write_text(text)


def test_a_whole_run(tmp_path) -> None:
    write_run(tmp_path, "one", 30.0)
    run, problems = _only(tmp_path)
    assert (run.key, run.stage, run.student, run.width, run.steps) == ("toy/one", "1a", "hash_grid", 100, 1000)
    assert (run.figure("psnr"), run.gap_to_blank, run.gap_to_teacher, run.mark) == (30.0, 20.0, None, None)
    assert [picture.kind for picture in run.latest.pictures] == ["worst_1", "worst_2", "worst_3", "median"]
    assert len(run.latest.frames) == 4 and len(run.training) == 20 and problems.found == []


def test_what_had_the_run_s_name_before_is_no_run(tmp_path) -> None:
    write_run(tmp_path, "one", 30.0)
    earlier = tmp_path / "logs/toy/one/earlier/1"
    earlier.mkdir(parents=True)
    (earlier / "eval_step_002000.csv").write_text("step,psnr\n2000,40\n")
    run, problems = _only(tmp_path)
    assert (run.key, run.figure("psnr")) == ("toy/one", 30.0) and not problems.found


def test_what_a_rate_study_fits_is_no_run(tmp_path) -> None:
    write_run(tmp_path, "one", 30.0)
    for tree, name in (("logs", "fitting_metrics.csv"), ("results", "table.csv")):
        (tmp_path / tree / "toy/one_rates").mkdir()
        (tmp_path / tree / "toy/one_rates" / name).write_text("step,wall_s,psnr_batch\n5,1,50\n")
    run, problems = _only(tmp_path)
    assert run.key == "toy/one" and not problems.found


def test_a_citys_blocks_are_runs_of_the_city(tmp_path) -> None:
    write_run(tmp_path, "one", 30.0)
    city = tmp_path / "results" / "toy" / "city"
    for name in ("b000", "b001", "b002"):
        (city / "blocks" / name).mkdir(parents=True)
        (city / "blocks" / name / "config.yaml").write_text("run: what the block's run is given\n")
    (city / "city.json").write_text("{}")
    write_run(city / "blocks/b000/run", "b000", 22.0)
    write_run(city / "blocks/b001/run", "b001", 24.0)
    problems = Problems(tmp_path)
    runs = {run.key: run.figure("psnr") for run in read_runs(tmp_path, problems)}
    assert runs == {"toy/one": 30.0, "toy/city/b000": 22.0, "toy/city/b001": 24.0} and not problems.found


def test_an_old_csv_of_a_blank_student_is_likely_blank(tmp_path) -> None:
    _old(tmp_path, "step,psnr,ssim,lpips,avg_fps\n20000,9.61,0.8,0.3,5\n")
    run, problems = _only(tmp_path)
    assert run.mark[0] == "likely blank" and "9.61" in run.mark[1] and "psnr_blank" in run.mark[1]
    assert run.gap_to_blank is None and run.blank_unknown and run.figure("lpips_vgg") == 0.3
    assert [problem.reason for problem in problems.found] == ["without the column psnr_blank"]


def test_an_old_csv_of_a_good_student_cannot_be_told(tmp_path) -> None:
    _old(tmp_path, "psnr\n25\n")
    run, _ = _only(tmp_path)
    assert run.mark is None and run.blank_unknown and run.steps == 20000


@pytest.mark.parametrize(("psnr", "collapsed"), [(10.4, True), (9.0, True), (10.6, False)])
def test_collapsed_is_near_the_blank_picture(tmp_path, psnr, collapsed) -> None:
    write_run(tmp_path, "one", psnr, blank=10.0)
    run, _ = _only(tmp_path)
    assert (run.mark is not None and run.mark[0] == "COLLAPSED") == collapsed


def test_a_csv_that_says_collapsed_is_believed(tmp_path) -> None:
    _old(tmp_path, "psnr,collapsed\nnan,COLLAPSED\n")
    assert _only(tmp_path)[0].mark[0] == "COLLAPSED"


def test_the_gap_to_the_teacher_is_of_the_same_frames(tmp_path) -> None:
    _old(
        tmp_path,
        "split,reference,psnr,psnr_teacher\nholdout,teacher,30,\nholdout,ground_truth,28,31\ntrain,ground_truth,1,99\n",
    )
    assert _only(tmp_path)[0].gap_to_teacher == 3.0


def test_a_broken_last_evaluation_leaves_the_one_before(tmp_path) -> None:
    logs = write_run(tmp_path, "one")
    (logs / "eval_step_002000.csv").write_bytes(b"")
    run, problems = _only(tmp_path)
    assert run.steps == 1000
    assert [problem.file for problem in problems.found] == ["logs/toy/one/eval_step_002000.csv"]


def test_the_evaluation_says_at_what_width_and_on_what(tmp_path) -> None:
    logs = write_run(tmp_path, "one")
    columns = "step,split,reference,psnr,ssim,lpips_vgg,avg_fps,psnr_blank,background,width\n"
    (logs / "eval_step_001000.csv").write_text(columns + "1000,holdout,teacher,30,,,,10,black,200\n")
    run, problems = _only(tmp_path)
    assert (run.width, measured_on(run), problems.found) == (200, "holdout, teacher, on black", [])


def test_tags_are_rows_of_their_own(tmp_path) -> None:
    logs = write_run(tmp_path, "one")
    (logs / "eval_step_002000_w020.csv").write_text("step,psnr\n2000,21\n")
    runs = read_runs(tmp_path, Problems(tmp_path))
    assert [(run.name, run.figure("psnr")) for run in runs] == [("one", 30.0), ("one (w020)", 21.0)]


def test_parity_gives_size_and_parameters(tmp_path) -> None:
    logs = write_run(tmp_path, "one")
    parity = "subject,fps_median,size_mib,parameters\nstudent,50,2.5,1000\nteacher,10,27,\nratio,5,0.09,\n"
    (logs / "eval_step_001000_parity.csv").write_text(parity)
    run, problems = _only(tmp_path)
    assert (run.size_mib, run.parameters) == (2.5, 1000) and problems.found == []
    assert run.latest.student_parity["fps_median"] == 50


def test_size_of_the_weights_in_the_checkpoint(tmp_path) -> None:
    write_run(tmp_path, "one")
    path = tmp_path / "results/toy/one/checkpoints/step_001000.pth"
    path.parent.mkdir()
    weights = {"box": torch.zeros(2, 3), "table": torch.zeros(1024, 512, dtype=torch.float16)}
    torch.save({"student": {"weights": weights}, "optimizer": torch.zeros(999999)}, path)
    run, _ = _only(tmp_path)
    assert (run.size_mib, run.parameters) == (1.0, 1024 * 512)
    path.write_bytes(b"junk")
    run, problems = _only(tmp_path)
    assert run.size_mib is None and "no checkpoint" in problems.found[0].reason


def test_a_run_without_logs_is_there(tmp_path) -> None:
    folder = tmp_path / "results" / "toy" / "begun"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("student: {kind: kilo_uniform}\n")
    run, _ = _only(tmp_path)
    assert (run.stage, run.steps, run.latest, run.mark) == ("1b", None, None, None)


def test_below_the_gate_or_the_silhouette_is_far_from_the_teacher(tmp_path) -> None:
    logs = write_run(tmp_path, "one", 19.0)
    run, _ = _only(tmp_path)
    assert run.mark == ("far from its teacher", "PSNR 19.00 dB is below 20 dB: run tools/check_alignment.py.")
    columns = "step,split,reference,psnr,psnr_blank,alpha_mean,psnr_silhouette,coverage,verdict\n"
    (logs / "eval_step_001000.csv").write_text(columns + "1000,holdout,teacher,12.45,11.88,0.06,18.2,0.24,COLLAPSED\n")
    run, _ = _only(tmp_path)
    assert run.mark == ("COLLAPSED", "PSNR 12.45 dB is below that of the silhouette in one colour, 18.20 dB.")
    (logs / "eval_step_001000.csv").write_text(columns + "1000,holdout,teacher,30,25,0.01,33,0.01,\n")
    assert "below the silhouette in one colour, 33.00 dB" in _only(tmp_path)[0].mark[1]
