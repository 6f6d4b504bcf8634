"""Study files: what runs they make, and every refusal with its file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from distill.studies.study_plan import load_study
from settings.errors import InputError
from settings.loading import REPO_ROOT

CONFIG = {"scene": "toy", "run": "any", "data": {"resolution": 64}, "teacher": {"kind": "bricks"}}
STUDY = {
    "name": "terms",
    "base": "config.yaml",
    "seeds": [3, 5],
    "budgets": {"short": {"train": {"max_steps": 7, "max_seconds": None}}, "s9": {"train": {"max_seconds": 9}}},
    "arms": {"plain": {}, "alpha": {"loss": {"alpha": {"weight": 0.5}}}},
    "baseline": "plain",
}


def write(folder: Path, study: dict, name: str = "study.yaml") -> Path:
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"train": {"max_seconds": 99}}), encoding="utf-8")
    kilo = CONFIG | {"student": {"kind": "kilo_uniform", "grid": [2, 2, 2]}}
    (folder / "kilo.yaml").write_text(yaml.safe_dump(kilo), encoding="utf-8")
    path = folder / name
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def test_arms_budgets_and_seeds_make_runs_one_seed_after_another(tmp_path) -> None:
    runs = load_study(write(tmp_path, STUDY)).runs
    assert [run.config.run for run in runs[:5]] == [
        "terms_plain_short_s3", "terms_alpha_short_s3", "terms_plain_s9_s3", "terms_alpha_s9_s3",
        "terms_plain_short_s5",
    ]  # fmt: skip
    assert len(runs) == 8 and [run.config.seed for run in runs] == [3] * 4 + [5] * 4
    alpha = runs[1].config
    assert (alpha.loss.alpha.weight, alpha.train.max_steps, alpha.train.max_seconds) == (0.5, 7, None)
    assert (runs[2].config.train.max_seconds, runs[2].config.loss.alpha.weight) == (9, 0)
    assert not alpha.eval.lpips and not alpha.eval.save_renders and alpha.eval.splits == ("holdout",)


def test_the_config_of_a_run_is_told_from_a_study(tmp_path) -> None:
    write(tmp_path, STUDY)
    with pytest.raises(
        InputError, match="config.yaml: study: found the config of a run, with data, run, scene, "
    ) as told:
        load_study(tmp_path / "config.yaml")
    assert "a study names it as base" in told.value.hint


def test_an_arms_base_common_settings_and_no_budgets(tmp_path) -> None:
    common = {"train": {"lr": 0.003}, "eval": {"save_renders": True}}
    changes = {"budgets": {}, "common": common, "metrics": ["lpips_vgg"], "seeds": [0]}
    changes["arms"] = {"plain": {}, "kilo": {"base": "kilo.yaml", "train": {"lr": 0.004}}}
    plain, kilo = load_study(write(tmp_path, STUDY | changes)).runs
    assert (plain.config.run, kilo.config.run) == ("terms_plain_s0", "terms_kilo_s0")
    assert (kilo.config.student.kind, kilo.config.train.max_seconds) == ("kilo_uniform", None)
    assert (plain.config.train.lr, kilo.config.train.lr) == (0.003, 0.004)
    assert plain.config.eval.lpips and plain.config.eval.save_renders


def test_a_fingerprint_is_that_of_the_resolved_config(tmp_path) -> None:
    first = load_study(write(tmp_path, STUDY)).runs
    again = load_study(write(tmp_path, STUDY)).runs
    changed = load_study(write(tmp_path, STUDY | {"arms": {"plain": {"train": {"lr": 0.02}}, "alpha": {}}})).runs
    assert [run.fingerprint for run in first] == [run.fingerprint for run in again]
    assert len({run.fingerprint for run in first}) == 8
    assert all(a.fingerprint != b.fingerprint for a, b in zip(first, changed, strict=True))


BAD = {
    "unknown key": ({"arm": {}}, ["study.yaml: arm:", "unknown key", "Did you mean arms?"]),
    "no arms": ({"arms": {}}, ["study.yaml: arms:", "at least one"]),
    "arm that is no mapping": ({"arms": {"plain": 3}}, ["study.yaml: arms"]),
    "baseline": ({"baseline": "gone"}, ["study.yaml: baseline:", "'gone'", "plain, alpha"]),
    "seeds": ({"seeds": [1, 1]}, ["study.yaml: seeds:", "once"]),
    "no seeds": ({"seeds": []}, ["study.yaml: seeds:"]),
    "metric": ({"metrics": ["psnr", "niqe"]}, ["study.yaml: metrics", "psnr"]),
    "arm's name": ({"arms": {"a/b": {}}, "baseline": "a/b"}, ["study.yaml: arms.a/b:", "expected A-Z"]),
    "one budget to compare": (
        {"budgets": {"b": {}}, "never_worse": 0.1}, ["study.yaml: never_worse:", "two budgets"],
    ),
    "missing base": ({"base": "none.yaml"}, ["study.yaml: base:", "none.yaml"]),
    "no base": ({"base": None}, ["study.yaml: arms.plain.base:"]),
    "missing base of an arm": ({"arms": {"plain": {"base": "x.yaml"}}}, ["study.yaml: arms.plain.base:", "x.yaml"]),
    "arm's setting": (
        {"arms": {"plain": {"loss": {"alpa": {}}}}}, ["study.yaml, arms.plain: loss.alpa:", "loss.alpha"],
    ),
    "budget's value": (
        {"budgets": {"b": {"train": {"max_steps": 0}}}}, ["study.yaml, budgets.b: train.max_steps:", ">= 1"],
    ),
    "common setting": ({"common": {"device": "tpu"}}, ["study.yaml, common: device:", "tpu"]),
    "seed of an arm": ({"arms": {"plain": {"seed": 4}}}, ["study.yaml: arms.plain.seed:", "seeds its runs"]),
    "contest": (
        {"arms": {"plain": {"train": {"max_steps": 9}}}}, ["arms.plain.train.max_steps", "budgets.short"],
    ),
    "two scenes": ({"arms": {"plain": {}, "alpha": {"scene": "other"}}}, ["arms.alpha: scene:", "toy"]),
    "no holdout": ({"common": {"eval": {"splits": ["train"]}}}, ["eval.splits:", "holdout"]),
    "no LPIPS": (
        {"common": {"eval": {"lpips": False}}, "metrics": ["lpips_vgg"]}, ["eval.lpips:", "metrics"],
    ),
    "one name for two runs": (
        {"arms": {"a": {}, "a_b": {}}, "budgets": {"b_c": {}, "c": {}}, "baseline": "a"}, ["terms_a_b_c_s3"],
    ),
    "missing asset": (
        {"arms": {"plain": {"teacher": {"kind": "gaussians", "ply": "no.ply"}, "data": {"transforms": "t.json"}}}},
        ["data.transforms", "t.json"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_study_is_one_message_with_file_and_field(tmp_path, case) -> None:
    changes, expected = BAD[case]
    with pytest.raises(InputError) as caught:
        load_study(write(tmp_path, STUDY | changes))
    assert all(text in str(caught.value) for text in expected), caught.value


@pytest.mark.parametrize("path", sorted((REPO_ROOT / "configs/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_repositorys_studies_are_in_order_but_for_the_assets(path, monkeypatch) -> None:
    monkeypatch.setattr("distill.studies.study_plan.check_assets", lambda config: None)
    plan = load_study(path)
    assert plan.study.name == path.stem and len(plan.runs) >= 2
