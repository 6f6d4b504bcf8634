"""The curves of a study: which points make a line, and that they are drawn."""

from __future__ import annotations

import pytest
import yaml

from distill.studies.outcome import SECONDS, Outcome
from distill.studies.study_plan import load_study
from distill.studies.study_plot import Line, draw_quality_over_time, lines_by_size
from distill.studies.study_table import summarize
from scene.images import read_image

TEACHER, TRUTH = ("psnr", "teacher"), ("psnr", "ground_truth")


@pytest.fixture
def plan(tmp_path):
    base = {"scene": "toy", "run": "any", "data": {"resolution": 64}, "teacher": {"kind": "bricks"}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    budgets = {"long": {}, "short": {}, "wide": {"data": {"resolution": 128}}}
    study = {"name": "arms", "base": "base.yaml", "seeds": [0, 1], "budgets": budgets, "baseline": "plain"}
    study["arms"] = {"plain": {}, "other": {"train": {"lr": 0.5}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return load_study(tmp_path / "study.yaml")


def outcome(arm, budget, seconds, psnr, seed=0, status="done"):
    return Outcome(arm, budget, seed, status, {TEACHER: psnr, TRUTH: psnr - 3, SECONDS: seconds})


def test_a_line_goes_from_short_to_long_runs_of_one_size_by_the_mean_of_the_seeds(plan):
    outcomes = [outcome("plain", "long", 100, 30.0), outcome("plain", "long", 104, 32.0, seed=1)]
    outcomes += [outcome("plain", "short", 10, 25.0), outcome("plain", "wide", 10, 20.0)]
    outcomes += [outcome("other", "long", 100, 31.0), outcome("other", "short", 10, 9.0, status="collapsed")]
    lines = lines_by_size(plan.runs, summarize(plan.study, outcomes))
    assert lines == {  # one point of another size, or beside a collapsed run, is no line
        "64 pixels": [
            Line("plain", "teacher", (10.0, 102.0), (25.0, 31.0)),
            Line("plain", "ground_truth", (10.0, 102.0), (22.0, 28.0)),
        ]
    }


def test_lines_are_drawn_and_a_study_without_any_leaves_no_file(plan, tmp_path):
    path = tmp_path / "curves.png"
    outcomes = [outcome("plain", "long", 100, 30.0)]
    assert not draw_quality_over_time(plan.runs, summarize(plan.study, outcomes), path) and not path.exists()
    outcomes.append(outcome("plain", "short", 10, 25.0))
    assert draw_quality_over_time(plan.runs, summarize(plan.study, outcomes), path)
    assert read_image(path).shape[2] in (3, 4)
