"""What an earlier version wrote is read as it was meant: checkpoints, configs and run folders (tests/fixtures)."""

from __future__ import annotations

import shutil
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.compact.compact_file import compact_bytes, compact_parts
from distill.compact.rounded_networks import nothing_of
from distill.evaluation.results import EVAL_COLUMNS
from distill.model.checkpoint import load_checkpoint, restore_student
from distill.model.safetensors_file import save_safetensors
from distill.training.training_log import COLUMNS
from lego_response_distill import main
from scene.images import read_image
from settings.loading import config_from_text, load_config, to_yaml
from settings.losses import INTERNAL_TERMS, PICTURE_TERMS
from settings.yaml_text import parse_yaml
from tests.program import csv_rows

EARLIER = Path(__file__).resolve().parents[1] / "fixtures" / "earlier_version"
STEM = "eval_step_000040"
CPU = torch.device("cpu")
GONE = ["assistant_student", "fitting.fade_every"]
KILO_GONE = ["student.blend"]
GONE += [f"features.{key}" for key in ("level", "balance", "min_confidence", "projector_width")]
GONE += [f"train.{key}" for key in ("assistant", "assistant_share", "pointwise_share", "points_per_step")]
GONE += [f"loss.{term}.warmup" for term in (*PICTURE_TERMS, *INTERNAL_TERMS)]
JUDGED = (0, 3)  # after 40 and 80 steps a student may be called COLLAPSED, which the version of then did not
each_student = pytest.mark.parametrize("kind", ["hash_grid", "kilo_uniform"])


def results(root: Path, kind: str) -> Path:
    return root / "results" / "toy" / kind


def logs(root: Path, kind: str) -> Path:
    return root / "logs" / "toy" / kind


def checkpoint(root: Path, kind: str) -> Path:
    return results(root, kind) / "checkpoints" / "step_000040.pth"


@pytest.fixture
def copied(tmp_path) -> Path:
    shutil.copytree(EARLIER, tmp_path, dirs_exist_ok=True)
    return tmp_path


def check_alike(found: list[dict], expected: list[dict], clocks: set[str]) -> None:
    """The rows have the same columns and the same figures, but for those of a clock."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() >= other.keys()
        for column in other.keys() - clocks - {"collapsed"}:  # what that word says has changed
            try:
                assert float(one[column]) == pytest.approx(float(other[column]), rel=2e-3, abs=1e-4), column
            except ValueError:
                assert one[column] == other[column], column


@each_student
def test_its_config_says_the_same(kind, write):
    path = results(EARLIER, kind) / "config.yaml"
    config = load_config(path)
    written, kept = parse_yaml(path.read_text(encoding="utf-8"), "then"), parse_yaml(to_yaml(config), "now")
    for field in [*GONE, *(KILO_GONE if kind == "kilo_uniform" else ())]:
        *sections, key = field.split(".")
        del reduce(getitem, sections, written)[key]
    for name, value in written.items():  # settings that are new apart
        assert kept[name] == ({**kept[name], **value} if isinstance(value, dict) else value), name
    assert load_config(write(to_yaml(config), "again.yaml")) == config


@each_student
def test_its_checkpoint_holds_the_student_and_the_config(kind):
    path = checkpoint(EARLIER, kind)
    state = load_checkpoint(path, CPU)
    config = config_from_text(state["config"], path)
    student = restore_student(state, path, CPU)
    assert config == load_config(results(EARLIER, kind) / "config.yaml")
    assert (student.kind, student.settings) == (kind, config.student)
    parity = csv_rows(logs(EARLIER, kind) / "eval_step_000040_parity.csv")
    assert str(student.parameter_count()) == parity[0]["parameters"]


@each_student
def test_a_compact_and_a_safetensors_file_are_made_of_its_checkpoint(kind, tmp_path):
    path, compact, plain = checkpoint(EARLIER, kind), tmp_path / "a.lrd", tmp_path / "a.safetensors"
    state = load_checkpoint(path, CPU)
    student = restore_student(state, path, CPU)
    compact.write_bytes(compact_bytes(state, [nothing_of(part) for part in compact_parts(state, path)], path))
    save_safetensors(plain, state)
    for made in (compact, plain):
        assert restore_student(load_checkpoint(made, CPU), made, CPU).settings == student.settings, made


@each_student
def test_evaluation_gives_the_figures_and_pictures_of_then(kind, tmp_path):
    config = results(EARLIER, kind) / "config.yaml"
    path = checkpoint(EARLIER, kind)
    # A ray ended with its wave, not at the very sample, and pictures' samples were as far apart as training's.
    as_then = ["--set", "render.fused=false", "--set", "render.picture_step=1"]
    arguments = ["--config", str(config), "--output", str(tmp_path), "--eval-only", "--checkpoint", str(path), *as_then]
    assert main(arguments) in JUDGED
    changed = "_picture-step-1_fused-false"
    for end in (".csv", "_frames.csv"):
        found, expected = logs(tmp_path, kind) / f"{STEM}{changed}{end}", logs(EARLIER, kind) / f"{STEM}{end}"
        check_alike(csv_rows(found), csv_rows(expected), {"avg_fps", "render_s"})
    then = tuple(csv_rows(logs(EARLIER, kind) / "eval_step_000040.csv")[0])
    assert then == EVAL_COLUMNS[: len(then)]
    for index in (0, 1, 8):
        pairs = (tmp_path, changed), (EARLIER, "")
        names = (results(root, kind) / f"eval/step_000040{word}_frame_{index:05d}.png" for root, word in pairs)
        found, expected = (read_image(name).astype(int) for name in names)
        assert np.abs(found - expected).max() <= 1


@each_student
def test_a_resumed_run_goes_on_and_ends_no_worse_than_the_run_of_then(kind, copied):
    # Not with the same figures: the learning rate falls otherwise since, and samples have other places in their bins.
    config = results(copied, kind) / "config.yaml"
    assert main(["--config", str(config), "--output", str(copied), "--resume", "auto"]) in JUDGED
    log, then = (csv_rows(logs(root, kind) / "training_metrics.csv") for root in (copied, EARLIER))
    assert tuple(log[0]) == COLUMNS and [row["step"] for row in log] == ["20", "40", "60", "80"]
    check_alike(log[:2], then[:2], set())
    found, expected = (csv_rows(logs(root, kind) / "eval_step_000080.csv") for root in (copied, EARLIER))
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert float(one["psnr"]) > float(other["psnr"]) - 0.1
