"""From a study file to checked runs: every arm's config is resolved and validated before anything is run."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.studies.schema import StudyConfig
from settings.config import Config
from settings.errors import InputError
from settings.loading import load_config, to_yaml, validate
from settings.yaml_text import read_mapping
from teacher.sources import check_assets


@dataclass(frozen=True)
class PlannedRun:
    """One training and its evaluation.

    Attributes:
        budget: its name; empty in a study without budgets.
        config: resolved; ``config.run`` is ``<study>_<arm>[_<budget>]_s<seed>``.
    """

    arm: str
    budget: str
    seed: int
    config: Config

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the resolved config: a run of another fingerprint is another run."""
        return hashlib.sha256(to_yaml(self.config).encode()).hexdigest()


@dataclass(frozen=True)
class StudyPlan:
    """A study and its runs: all arms of all budgets with the first seed, then with the next one."""

    study: StudyConfig
    runs: tuple[PlannedRun, ...]

    def folder(self, root: Path) -> Path:
        """``results/<scene>/studies/<name>/`` under ``root``, where the tables are."""
        return root / "results" / self.runs[0].config.scene / "studies" / self.study.name


def load_study(path: str | Path, assets: str | Path | None = None) -> StudyPlan:
    """Reads a study and resolves the config of each of its runs.

    Args:
        path: YAML file, see ``StudyConfig``.
        assets: folder that relative asset paths are under; the repository by default.

    Raises:
        InputError: the study, a config or an asset is not in order; names the file, the arm or budget and the field.
    """
    path = Path(path)
    content = read_mapping(path)
    if "arms" not in content and (of_runs := set(Config.model_fields) & set(content) - set(StudyConfig.model_fields)):
        found = f"the config of a run, with {', '.join(sorted(of_runs))}"
        hint = "Such a config is --config of lego_response_distill.py; a study names it as base."
        raise InputError(path, "study", found, "a study, with name, arms and seeds, see configs/studies/", hint)
    study = validate(StudyConfig, content, {}, str(path))
    runs = [
        PlannedRun(arm, budget, seed, _resolve(path, study, arm, budget, seed, assets))
        for seed in study.seeds
        for budget in study.budgets or ("",)
        for arm in study.arms
    ]
    names: dict[str, PlannedRun] = {}
    for run in runs:
        _check(run, path, runs[0].config.scene, study)
        if run.config.run in names:
            other = names[run.config.run]
            found = f"arms.{run.arm} with budgets.{run.budget}, and arms.{other.arm} with budgets.{other.budget}"
            raise InputError(path, "arms", f"{found}: both {run.config.run}", "names that differ", "Rename one.")
        names[run.config.run] = run
    for run in runs[: len(runs) // len(study.seeds)]:  # seeds have no assets of their own
        check_assets(run.config)
    return StudyPlan(study, tuple(runs))


def _resolve(path: Path, study: StudyConfig, arm: str, budget: str, seed: int, assets: str | Path | None) -> Config:
    overrides = dict(study.arms[arm])
    base = Path(os.path.normpath(path.parent / overrides.pop("base", study.base or "")))
    if not base.is_file():
        field = f"arms.{arm}.base" if "base" in study.arms[arm] else "base"
        raise InputError(path, field, f"{base}, which is not there", "an existing YAML file, relative to this one")
    name = "_".join(filter(None, (study.name, arm, budget, f"s{seed}")))
    layers: list[tuple[str, dict[str, Any]]] = [
        (str(path), _evaluation(study)),
        (f"{path}, common", study.common),
        (f"{path}, arms.{arm}", overrides),
        (f"{path}, budgets.{budget}", study.budgets.get(budget, {})),
        (f"{path}, seeds", {"seed": seed, "run": name}),
    ]
    return load_config(base, (), assets, layers)


def _evaluation(study: StudyConfig) -> dict[str, Any]:
    """What a study measures unless it says otherwise: what its table shows, without renders or curves."""
    measured = {"lpips": list(_lpips_nets(study)), "save_renders": False, "splits": ["holdout"]}
    return {"eval": measured, "logging": {"report": False}}


def _check(run: PlannedRun, path: Path, scene: str, study: StudyConfig) -> None:
    config, source = run.config, f"{path}, arms.{run.arm}"
    if config.scene != scene:
        raise InputError(source, "scene", config.scene, f"{scene}, as the first arm's", "A study has one scene.")
    if "holdout" not in config.eval.splits:
        raise InputError(source, "eval.splits", list(config.eval.splits), "holdout among them: it is what is compared")
    for net in _lpips_nets(study):
        if net not in config.eval.lpips_nets:
            raise InputError(
                source, "eval.lpips", config.eval.lpips, f"{net} among them, since metrics has lpips_{net}"
            )


def _lpips_nets(study: StudyConfig) -> tuple[str, ...]:
    return tuple(name.removeprefix("lpips_") for name in study.metrics if name.startswith("lpips_"))
