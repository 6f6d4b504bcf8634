"""How a study's runs are started and told apart, with a short script in place of the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from distill.studies.runner import RunState, StudyRunner
from distill.studies.study_plan import load_study
from settings.errors import ExitCode, InputError

SCRIPT = """import os, sys
open(os.environ["CALLS"], "a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A study of two arms whose program is ``script``."""

    def _make(script: str, lr: float = 0.01) -> StudyRunner:
        base = {"scene": "toy", "run": "any", "data": {"resolution": 64}, "teacher": {"kind": "bricks"}}
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
        arms = {"plain": {"train": {"lr": lr}}, "other": {"train": {"lr": 0.5}}}
        study = {"name": "arms", "base": "base.yaml", "seeds": [0], "arms": arms, "baseline": "plain"}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        (tmp_path / "program.py").write_text(SCRIPT + script, encoding="utf-8")
        monkeypatch.setenv("CALLS", str(tmp_path / "calls.txt"))
        monkeypatch.setattr("distill.studies.runner.PROGRAM", tmp_path / "program.py")
        return StudyRunner(load_study(tmp_path / "study.yaml"), tmp_path, "command")

    return _make


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text(encoding="utf-8").splitlines()


def test_a_crash_stops_the_study_and_is_not_taken_for_divergence(make, tmp_path, capfd) -> None:
    runner = make("print('so far'); raise KeyError('broken')")
    assert runner.run() == 1
    assert [runner.state(run) for run in runner.plan.runs] == [RunState.STARTED, RunState.NEW]
    assert len(calls(tmp_path)) == 1 and runner.outcomes() == []
    shown = capfd.readouterr().err
    assert "so far" in shown and "KeyError: 'broken'" in shown
    console = (tmp_path / "logs/toy/arms_plain_s0/console.log").read_text(encoding="utf-8")
    assert "so far" in console and "KeyError" in console


def test_ctrl_c_ends_the_run_under_way_and_begins_no_other(make, tmp_path) -> None:
    runner = make("import time; os.kill(os.getppid(), 2); time.sleep(60)")
    assert runner.run() == ExitCode.INTERRUPTED
    assert [runner.state(run) for run in runner.plan.runs] == [RunState.STARTED, RunState.NEW]
    assert len(calls(tmp_path)) == 1


def test_a_run_that_was_started_goes_on_and_a_new_one_starts(make, tmp_path) -> None:
    runner = make("sys.exit(9)")
    assert runner.run() == 9 and runner.run() == 9
    first, second = calls(tmp_path)
    assert "--resume" not in first and second == f"{first} --resume auto"
    config = Path(first.split()[1])
    assert config.name == "arms_plain_s0.yaml" and "lr: 0.01" in config.read_text(encoding="utf-8")


def test_a_run_of_other_settings_is_neither_finished_nor_gone_on_with(make, tmp_path) -> None:
    make("sys.exit(9)").run()
    changed = make("sys.exit(9)", lr=0.02)
    with pytest.raises(InputError, match="1 runs of other settings"):
        changed.check()
    changed.check(replace=True)
    assert changed.state(changed.plan.runs[0]) is RunState.NEW
    assert not (tmp_path / "logs/toy/arms_plain_s0").exists()


def test_a_damaged_record_and_missing_figures_are_named(make, tmp_path) -> None:
    runner = make("sys.exit(0)")  # done, it says, and has written nothing
    with pytest.raises(InputError, match=r"training_metrics\.csv"):
        runner.run()
    record = tmp_path / "results/toy/arms_plain_s0/study_run.json"
    assert json.loads(record.read_text())["status"] == "done"
    record.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"study_run\.json"):
        runner.check()


def test_a_divergence_is_recorded_with_the_programs_own_words(make, tmp_path) -> None:
    words = "step 3: loss term 'rgb' is nan"
    versions = '{"device_name": "a laptop", "torch": "2", "git_commit": null}'
    script = f"""
name = os.path.basename(sys.argv[2]).removesuffix(".yaml")
open(os.path.join(sys.argv[4], "results", "toy", name, "versions.json"), "w").write('{versions}')
print("train: 10%\\rerror: {words}", file=sys.stderr)
sys.exit({int(ExitCode.DIVERGED)})
"""
    runner = make(script)
    assert runner.run() == 0 and len(calls(tmp_path)) == 2
    assert [(outcome.status, outcome.remark) for outcome in runner.outcomes()] == [("diverged", words)] * 2
    assert words in runner.table() and "0 of 1" in runner.table()
    assert runner.run() == 0 and len(calls(tmp_path)) == 2  # it would diverge again
