"""The evaluation of a student as a whole: its CSV and the parity table agree."""

import pytest
import torch

from distill.evaluation.parity import parity_csv
from distill.evaluation.student_evaluation import evaluate_student
from distill.model.model import build_model
from machine.run_folder import RunFolder
from settings.loading import load_config
from teacher.sources import load_teacher
from tests.program import csv_rows
from tests.toy_scene import BOTH_SPLITS, write_toy_scene

CPU = torch.device("cpu")


def test_both_tables_have_one_frame_rate(tmp_path, monkeypatch):
    """Neither means nor hiccups come between: two renders in three take 0.1 s, the others 7 s."""

    def timed(render, index, device, clock=None):
        return render(index), 7.0 if index % 3 == 0 else 0.1

    for module in ("evaluator", "speed"):
        monkeypatch.setattr(f"distill.evaluation.{module}.timed", timed)
    path = write_toy_scene(tmp_path, eval={"reference": "teacher", **BOTH_SPLITS})
    config = load_config(path, [], assets=tmp_path)
    teacher, folder = load_teacher(config), RunFolder(config, tmp_path)
    folder.prepare(CPU)
    result = evaluate_student(config, teacher, build_model(config, teacher, CPU), 5, folder, CPU)
    parity = csv_rows(parity_csv(folder, 5))[0]
    everything = next(row for row in result.rows if row["split"] == "all")
    assert everything["avg_fps"] == float(parity["fps_median"]) == pytest.approx(10.0)
