"""Parity of a small student with the toy scene's teacher, on a clock that gives known figures."""

import json
import logging
from dataclasses import replace

import pytest
import torch

from distill.evaluation.parity import FIGURES, PARITY_COLUMNS, exported_figures, measure_parity, parity_csv, ratios
from distill.evaluation.speed import Speed
from distill.model.model import build_model
from machine.run_folder import RunFolder
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.program import csv_rows
from tests.toy_scene import BOTH_SPLITS, SIZE, write_toy_scene

CPU = torch.device("cpu")


class Clock:
    """Students are twice as fast as teachers; counts what is timed."""

    def __init__(self):
        self.calls, self.sizes = [], []

    def __call__(self, render, frames, device, *, burn_in):
        output = render(frames[0])
        assert not output.rgb.requires_grad
        self.sizes.append(tuple(output.rgb.shape))
        self.calls.append((list(frames), burn_in))
        rate = 20.0 if len(self.calls) % 2 else 10.0
        return Speed(len(frames), rate, 1.5, None, 2 * rate, 7.0, 2.0, None, None, None)


@pytest.fixture
def setup(tmp_path):
    """Makes (config, teacher, model, prepared folder) of the toy scene."""

    def make(*overrides, **sections):
        path = write_toy_scene(tmp_path, **{"eval": BOTH_SPLITS} | sections)
        config = load_config(path, overrides, assets=tmp_path)
        teacher = load_teacher(config)
        folder = RunFolder(config, tmp_path)
        folder.prepare(CPU)
        return config, teacher, build_model(config, teacher, CPU), folder

    return make


def measured(setup, clock, **options):
    config, teacher, model, folder = setup
    options = {"identity": "one", "burn_in": 2, **options}
    return measure_parity(config, teacher, model, 300, folder, CPU, speed=clock, **options)


def test_both_are_timed_on_the_same_views_and_compared(setup, tmp_path):
    made, clock = setup("tag=x"), Clock()
    student, teacher, ratio = measured(made, clock).rows
    assert clock.calls == [(list(range(17)), 2)] * 2 and clock.sizes == [(SIZE, SIZE, 3)] * 2
    assert (student["fps_median"], teacher["fps_median"], ratio["fps_median"]) == (20.0, 10.0, 2.0)
    assert (student["power_avg_w"], student["power_idle_w"], ratio["power_avg_w"]) == (40.0, 7.0, 2.0)
    assert ratio["energy_per_frame_j"] == 1.0 and ratio["fps_iqr"] is None and ratio["power_idle_w"] is None
    assert student["parameters"] == made[2].student.parameter_count()
    assert teacher["parameters"] == len(made[1].gaussians) * (3 + 3 + 4 + 1 + 3)
    assert teacher["size_mib"] == (tmp_path / "point_cloud.ply").stat().st_size / 2**20
    assert student["parameters"] * 4 / 2**20 < student["size_mib"] < student["parameters"] * 4 / 2**20 + 0.01
    assert student["size_fp16_mib"] < 0.7 * student["size_mib"] and teacher["size_fp16_mib"] is None
    assert ratio["size_fp16_mib"] == student["size_fp16_mib"] / teacher["size_mib"]
    path = tmp_path / "logs/toy/first/eval_step_000300_x_parity.csv"
    assert path == parity_csv(made[3], 300)
    rows = csv_rows(path)
    assert tuple(rows[0]) == PARITY_COLUMNS and [row["subject"] for row in rows] == ["student", "teacher", "ratio"]
    assert {row["gpu_peak_gib"] for row in rows} == {row["cpu_package_power_avg_w"] for row in rows} == {""}
    assert rows[0]["frames"] == "17" and rows[0]["width"] == str(SIZE)


def test_a_teacher_drawn_on_the_cpu_is_said_to_be_measured_there(setup, monkeypatch):
    config, teacher, model, folder = setup()
    monkeypatch.setattr("distill.evaluation.parity.device_name", str)
    run_on, drawn_on = torch.device("cpu", 0), torch.device("cpu")
    parity = measure_parity(config, teacher, model, 300, folder, run_on, identity="one", speed=Clock())
    assert [row["source"] for row in parity.rows[:2]] == [f"measured on {run_on}", f"measured on {drawn_on}"]


def test_a_supersampled_student_stands_beside_a_teacher_of_as_many_pixels_as_it_has_rays(setup):
    half, clock = SIZE // 2, Clock()
    made = setup(f"data.resolution={half}")
    assert made[2].settings.supersample == 2
    student, teacher, _ = measured(made, clock).rows
    assert clock.sizes == [(half, half, 3), (SIZE, SIZE, 3)] and student["width"] == teacher["width"] == half
    assert teacher["source"].endswith(f", timed at {SIZE}x{SIZE}") and "timed" not in student["source"]


def test_a_teacher_timed_at_another_size_than_its_pictures_are_drawn_at_says_both(setup):
    half, own = SIZE // 2, ("teacher.kind=gaussians", "data.ground_truth=false")
    made = setup(f"data.resolution={half}", *own, "render.supersample=1", f"teacher.fitted_width={SIZE}")
    assert measured(made, Clock()).rows[1]["source"].endswith(f"; its pictures are drawn at {SIZE}x{SIZE}")
    made = setup(f"data.resolution={half}", *own, "render.supersample=2", f"teacher.fitted_width={SIZE}")
    assert measured(made, Clock()).rows[1]["source"].endswith(f", timed at {SIZE}x{SIZE}")


def test_a_teacher_s_near_plane_leaves_out_of_its_time_what_it_leaves_out_of_its_views(setup):
    drawn = []

    def clock(render, frames, device, *, burn_in):
        drawn.append(float(render(frames[0]).alpha.max()))
        return Clock()(render, frames, device, burn_in=burn_in)

    measured(setup(), clock)
    measured(setup("teacher.near=2.6"), clock)  # behind the whole block
    _, seen, left_out = drawn  # the student's time is recorded already
    assert seen > 0.9 and left_out == 0


def test_the_table_is_one_a_person_can_read(setup):
    text = measured(setup(), Clock()).table()
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")] == ["", "student", "teacher", "ratio"]
    assert [cell.strip() for cell in lines[1].split("|")] == ["frames/s, median", "20", "10", "2"]
    assert "CPU package" not in text and "GPU peak" not in text  # nobody has these figures
    assert lines[-1].startswith("student: measured on ")


def test_what_is_recorded_is_not_timed_again(setup, monkeypatch):
    made, clock = setup(), Clock()
    measured(made, clock)
    before = parity_csv(made[3], 300).read_bytes()
    measured(made, clock)
    assert len(clock.calls) == 2 and parity_csv(made[3], 300).read_bytes() == before
    measured(made, clock, identity="two")
    assert len(clock.calls) == 3  # the teacher is the same
    measured(made, clock, identity="two", burn_in=3)
    assert len(clock.calls) == 5
    measured(made, clock, identity="two", burn_in=3, fresh=True)
    assert len(clock.calls) == 7
    made[1].views.cameras.cx[3] += 1
    measured(made, clock, identity="two", burn_in=3)
    assert len(clock.calls) == 9
    monkeypatch.setattr("distill.evaluation.parity.code_digest", lambda: "another program")
    measured(made, clock, identity="two", burn_in=3)
    assert len(clock.calls) == 11


def test_there_is_no_ratio_to_nothing():
    """A teacher may take no memory beside what others hold."""
    assert set(ratios(dict.fromkeys(FIGURES, 1.0), dict.fromkeys(FIGURES, 0.0)).values()) == {None}
    assert ratios(dict.fromkeys(FIGURES, 1.0), dict.fromkeys(FIGURES, 2.0))["gpu_peak_gib"] == 0.5


STATS = {
    "resolution": [SIZE, SIZE],
    "frames_timed": 17,
    "avg_fps": 8.0,
    "seconds_per_frame_median": 0.1,
    "gpu_peak_gib": 1.5,
    "power_avg_w": 40.0,
    "gaussians_bytes": 2**20,
    "device": "a GPU",
}


def test_without_gaussians_an_export_s_statistics_stand_in(setup, tmp_path):
    made = setup(teacher={"ply": None}, data={"box": {"lower": [-0.6] * 3, "upper": [0.6] * 3}})
    (tmp_path / "outputs/render_stats.json").write_text(json.dumps(STATS))
    clock = Clock()
    _, teacher, ratio = measured(made, clock).rows
    assert len(clock.calls) == 1
    assert teacher["source"] == "render_stats.json, a GPU"
    assert (teacher["fps_median"], teacher["gpu_peak_gib"], teacher["energy_per_frame_j"]) == (10.0, 1.5, 5.0)
    assert (teacher["size_mib"], teacher["parameters"], teacher["fps_iqr"]) == (1.0, None, None)
    assert ratio["fps_median"] == 2.0 and ratio["parameters"] is None


def test_without_either_the_teacher_is_empty(setup):
    made = setup(teacher={"ply": None}, data={"box": {"lower": [-0.6] * 3, "upper": [0.6] * 3}})
    parity = measured(made, Clock())
    assert all(parity.rows[1][name] is None and parity.rows[2][name] is None for name in FIGURES)
    assert parity.table().endswith("teacher: not measured")


def test_statistics_of_another_size_say_nothing_of_speed(setup, tmp_path, caplog):
    setup()
    (tmp_path / "outputs/render_stats.json").write_text(json.dumps(STATS))
    for width in (SIZE * 2, SIZE // 2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = exported_figures(tmp_path / "outputs", width)
        assert found == {"size_mib": 1.0, "source": "render_stats.json, size alone"}
        assert f"is of {SIZE}x{SIZE}" in caplog.text
    assert exported_figures(None, SIZE) == {}


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({**STATS, "seconds_per_frame_median": 0})])
def test_foreign_statistics_are_left_with_a_warning(setup, tmp_path, caplog, text):
    setup()
    (tmp_path / "outputs/render_stats.json").write_text(text)
    assert exported_figures(tmp_path / "outputs", SIZE) == {}
    assert "is not what tools/export_teacher.py writes" in caplog.text


def test_an_export_that_is_not_there_leaves_the_row_empty_with_a_warning(tmp_path, caplog):
    assert exported_figures(tmp_path / "none", SIZE) == {}
    assert "none is no folder: the teacher's speed and size are not known" in caplog.text


def test_what_others_hold_on_the_gpu_is_not_in_the_peak(setup, monkeypatch):
    made, clock = setup(), Clock()
    monkeypatch.setattr("distill.evaluation.parity.gpu_allocated_gib", lambda device: 3.0)
    weights, cells = made[2].student.state_dict().values(), made[2].grid.occupied.numel()
    own = (sum(tensor.nbytes for tensor in weights) + cells) / 2**30

    def with_peak(*arguments, **options):
        return replace(clock(*arguments, **options), gpu_peak_gib=4.0)

    student, teacher, _ = measured(made, with_peak).rows
    assert student["gpu_peak_gib"] == pytest.approx(1.0 + own, rel=1e-9)
    assert teacher["gpu_peak_gib"] == pytest.approx(1.0)


def test_a_compact_student_s_size_is_that_of_its_file(setup) -> None:
    made = setup()
    model = made[2]
    model.compact_bytes = 3 * 2**18
    student, _, ratio = measured(made, Clock()).rows
    assert student["size_mib"] == 0.75 and student["size_fp16_mib"] is None and ratio["size_fp16_mib"] is None
    assert student["parameters"] == model.student.parameter_count()
