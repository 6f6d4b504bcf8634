"""What a study reads from the files of its runs."""

from __future__ import annotations

import json

import pytest

from distill.evaluation.results import EVAL_COLUMNS
from distill.studies.outcome import read_outcome
from distill.studies.study_plan import PlannedRun
from machine.files import write_csv
from machine.run_folder import RunFolder
from settings.config import Config

BOTH = ("teacher", "ground_truth")


@pytest.mark.parametrize(("kind", "references"), [("bricks", [*BOTH]), ("images", ["ground_truth"])])
def test_an_arm_taught_by_the_images_has_figures_to_ground_truth_alone(tmp_path, kind, references) -> None:
    """The images are its teacher: beside figures to another arm's teacher they would be compared with them."""
    data = {"resolution": 8, "transforms": "x.json"}
    config = Config(scene="toy", run="any", teacher={"kind": kind}, data=data)
    folder = RunFolder(config, tmp_path)
    folder.logs.mkdir(parents=True)
    folder.results.mkdir(parents=True)
    folder.training_csv.write_text("step,wall_s,rays_per_s,samples_per_ray\n20,1.5,100,2\n", encoding="utf-8")
    row = {"step": 20, "split": "holdout", "frames": 1, "psnr": 30.0, "avg_fps": 9.0}
    rows = [row | {"reference": name} for name in BOTH]
    write_csv(folder.eval_csv(20), rows, EVAL_COLUMNS)
    made_with = {"device_name": "a laptop", "torch": "2", "git_commit": None}
    folder.versions_json.write_text(json.dumps(made_with), encoding="utf-8")
    outcome = read_outcome(PlannedRun("plain", "", 0, config), tmp_path, "done", "", ("psnr", "avg_fps"))
    assert [name for metric, name in outcome.figures if metric == "psnr"] == references
    assert outcome.figures["psnr", "ground_truth"] == 30.0 and outcome.figures["avg_fps", ""] == 9.0
