"""The evaluation's rows: the documented columns, empty cells, and the table a person reads."""

import pytest

from distill.evaluation import evaluator, metrics, results
from distill.evaluation.results import (
    EVAL_COLUMNS,
    FRAME_COLUMNS,
    GpuFigures,
    judged_row,
    overall_gpu,
    summarize,
    verdict,
)
from tests.distill.evaluation.disc import FixedLpips, blank, make_views, read_csv, run, the_teacher, with_noise


def test_csv_columns_are_the_documented_ones(setup):
    _, folder = run(blank, make_views(), setup, tag="depth")
    columns, rows = read_csv(folder.logs / "eval_step_020000_depth.csv")
    assert ",".join(columns) == (
        "step,split,reference,frames,psnr,ssim,lpips_vgg,psnr_foreground,psnr_blank,alpha_mean,"
        "avg_fps,gpu_peak_gib,power_avg_w,collapsed,"
        "lpips_alex,depth_abs,depth_rel,alpha_iou,flicker,psnr_teacher,background,width,height,"
        "psnr_silhouette,coverage,verdict"
    )
    assert [(row["split"], row["reference"], row["frames"]) for row in rows] == [
        ("holdout", "teacher", "3"),
        ("holdout", "ground_truth", "3"),
        ("train", "teacher", "7"),
        ("train", "ground_truth", "7"),
        ("all", "teacher", "10"),
        ("all", "ground_truth", "10"),
    ]
    for row in rows:  # no GPU, and LPIPS switched off: empty, never 0
        assert row["lpips_vgg"] == row["gpu_peak_gib"] == row["power_avg_w"] == ""
        assert row["step"] == "20000" and float(row["avg_fps"]) > 0
    columns, rows = read_csv(folder.logs / "eval_step_020000_depth_frames.csv")
    assert tuple(columns) == FRAME_COLUMNS and len(rows) == 20
    assert rows[0]["frame"] == "0" and rows[0]["name"] == "r_0" and rows[0]["split"] == "holdout"
    assert rows[2]["frame"] == "1" and rows[2]["split"] == "train" and float(rows[2]["render_s"]) > 0


def test_tiny_pictures_leave_cells_empty(setup, monkeypatch):
    monkeypatch.setattr(metrics.Lpips, "load", lambda *_: FixedLpips())
    views = make_views(side=8)
    result, folder = run(the_teacher(views), views, setup, lpips=True, reference="teacher")
    _, rows = read_csv(folder.eval_csv(20000))
    assert {(row["ssim"], row["lpips_vgg"]) for row in rows} == {("", "")}
    assert float(rows[0]["psnr"]) == 100.0
    blank_psnr = f"{result.rows[0]['psnr_blank']:.2f}"
    first = result.summary_text().splitlines()[1]
    assert first.split() == ["holdout", "teacher", "3", "100.00", "-", "-", "100.00", blank_psnr, "-"]


def test_gpu_figures_reach_the_csv(setup, monkeypatch):
    class Monitor:
        def __init__(self, device): ...

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731
        mean_power_w = lambda self: 321.5  # noqa: E731

    monkeypatch.setattr(evaluator, "GpuMonitor", Monitor)
    began, rendered = [], []
    monkeypatch.setattr(evaluator, "gpu_mem_gib", lambda device: 1.25)
    monkeypatch.setattr(evaluator, "reset_gpu_peak", lambda device: began.append(len(rendered)))
    result, folder = run(lambda i, color: rendered.append(i) or blank(i, color), make_views(), setup)
    assert began == [1], "the peak is that of all frames but the one that is not timed"
    _, rows = read_csv(folder.eval_csv(20000))
    assert {(float(row["gpu_peak_gib"]), float(row["power_avg_w"])) for row in rows} == {(1.25, 321.5)}
    assert "GPU peak 1.25 GiB, mean power 322 W" in result.summary_text()


def test_the_table_s_lpips_is_vggs(setup, monkeypatch):
    monkeypatch.setattr(metrics.Lpips, "load", lambda net, device: FixedLpips() if net == "vgg" else None)
    result, _ = run(blank, make_views(), setup, lpips=["vgg", "alex"])
    assert result.summary_text().splitlines()[1].split()[5] == "0.2500"


def test_summary_is_a_table_a_person_can_read(setup):
    views = make_views()
    result, _ = run(with_noise(views, lambda i: 0.2), views, setup)
    lines = result.summary_text().splitlines()
    assert " ".join(lines[0].split()) == "split reference frames PSNR SSIM LPIPS PSNR fg PSNR blank PSNR teacher"
    assert lines[1].split()[:4] == ["holdout", "teacher", "3", "13.98"]
    assert len(lines) == 1 + 6 + 2
    assert lines[-2].endswith(" frames/s")
    assert lines[-1] == result.evidence
    assert float(lines[2].split()[8]) == round(result.rows[1]["psnr_teacher"], 2)


def test_columns_hold_every_metric():
    names = {*results.METRICS, *results.MORE_METRICS, *results.LATEST_METRICS}
    assert names < set(EVAL_COLUMNS) and names < set(FRAME_COLUMNS)


def test_a_row_names_its_background(setup):
    result, _ = run(blank, make_views(), setup, background="black")
    assert result.rows[0]["background"] == "black"
    result, _ = run(blank, make_views(alpha=False), setup)
    assert result.rows[0]["background"] == "#808080"


def test_power_is_a_mean_over_time_and_memory_the_most():
    parts = [(GpuFigures(2.0, 100.0), 3.0), (GpuFigures(3.0, None), 9.0), (GpuFigures(None, 300.0), 1.0)]
    assert overall_gpu(parts) == GpuFigures(3.0, 150.0)
    assert overall_gpu(parts[1:2]) == GpuFigures(3.0, None) and overall_gpu([]) == GpuFigures(None, None)


@pytest.mark.parametrize(
    ("psnr", "place"),
    [(9.4, "below that of"), (9.6, "within 0.5 dB of"), (10.4, "within 0.5 dB of"), (12.0, "2.00 dB above")],
)
def test_the_evidence_says_how_far_a_collapsed_student_is_from_a_blank_picture(psnr, place):
    row = {"split": "holdout", "reference": "teacher", "psnr": psnr, "psnr_blank": 10.0, "psnr_silhouette": 13.0}
    collapsed, evidence = verdict([row | {"alpha_mean": 0.01, "coverage": 0.3, "collapsed": "COLLAPSED"}])
    assert collapsed and f"PSNR {psnr:.2f} dB against the teacher is {place} a blank image (10.00 dB)" in evidence


def test_a_split_s_flicker_is_of_frames_whose_neighbour_is_in_it_too():
    plain = dict.fromkeys(FRAME_COLUMNS, 1.0) | {"step": 5, "reference": "teacher", "background": "white"}
    seconds, flicker = (0.1, 0.2, 0.4, 0.4), (None, 0.2, 0.4, 0.9)
    rows = [
        plain | {"frame": frame, "psnr": 10.0 * frame, "render_s": each, "flicker": moved}
        for frame, each, moved in zip((0, 1, 2, 4), seconds, flicker, strict=True)
    ]
    rows.append(plain | {"frame": 1, "reference": "ground_truth", "psnr": 99.0, "render_s": 9.0, "flicker": 9.0})
    row = summarize(rows, "all", "teacher", [0, 1, 2, 4], GpuFigures(None, None))
    # Frame 4's neighbour, 3, is another split's; the median of 10, 5, 2.5 and 2.5 frames/s is 3.75.
    assert row["flicker"] == pytest.approx(0.3) and row["psnr"] == 17.5 and row["frames"] == 4
    assert row["avg_fps"] == pytest.approx(3.75)
    assert summarize(rows, "train", "teacher", [2, 4], GpuFigures(None, None))["flicker"] is None


def test_a_student_is_judged_against_the_teacher_first_and_then_by_held_out_frames():
    rows = [{"reference": "ground_truth", "split": "holdout"}, {"reference": "teacher", "split": "train"}]
    assert judged_row(rows) is rows[1]
    assert judged_row([*rows, best := {"reference": "teacher", "split": "holdout"}]) is best
