"""Studies as a user runs them: real runs of the toy scene, resumed, interrupted, replaced.

They run the program in this process, without another interpreter and its imports.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import yaml

from lego_response_distill import main as program
from machine.files import CsvLog
from machine.interrupts import Stopped
from settings.errors import ExitCode
from tests.program import csv_rows
from tests.toy_scene import write_toy_scene
from tools.ablate import main

TABLE = "results/toy/studies/arms/table"


def write_study(root: Path, **changes) -> Path:
    study = {
        "name": "arms",
        "base": "toy.yaml",
        "seeds": [0, 1],
        "common": {"train": {"max_steps": 90, "samples_per_step": 2048}},
        "arms": {"plain": {}, "blank": {"train": {"lr": 1e-9}}},  # learns nothing
        "baseline": "plain",
    }
    path = root / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False), encoding="utf-8")
    return path


def arguments(root: Path, *more: str) -> list[str]:
    return ["--study", str(root / "study.yaml"), "--assets", str(root), "--output", str(root), *more]


def finished(root: Path) -> dict[str, int]:
    """When each run wrote its evaluation."""
    return {path.parent.name: path.stat().st_mtime_ns for path in root.glob("logs/toy/arms_*/eval_step_*[0-9].csv")}


def execute_here(command: list[str], log: Path) -> tuple[int, str]:
    """What the runner does in another process, in this one: the same command line for its status and its words."""
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(output):
        status = program(command[2:])
    sys.stderr.write(output.getvalue())
    if status == ExitCode.INTERRUPTED:
        raise Stopped(signal.SIGINT)
    return status, output.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _runs_in_this_process():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.studies.runner._execute", execute_here)
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A finished study of two arms and two seeds."""
    root = tmp_path_factory.mktemp("study")
    write_toy_scene(root)
    write_study(root)
    assert main(arguments(root)) == 0
    return root


def test_advice_for_a_single_run_says_where_a_study_has_its_settings(tmp_path, capsys):
    write_toy_scene(tmp_path)
    write_study(tmp_path, common={"teacher": {"ply": "gone.ply"}})
    assert main(arguments(tmp_path, "--dry-run")) == 2
    error = capsys.readouterr().err
    assert "gone.ply: teacher.ply: found nothing" in error and "`--set teacher.ply=PATH`" in error
    assert f"(A setting goes under common in {tmp_path}/study.yaml: this command has no --set.)" in error


def test_the_table_has_the_figures_of_the_runs(ran) -> None:
    psnr = []
    for seed in (0, 1):
        (path,) = ran.glob(f"logs/toy/arms_plain_s{seed}/eval_step_000090.csv")
        psnr.append(float(next(row["psnr"] for row in csv_rows(path) if row["reference"] == "teacher")))
    table = {(row["arm"], row["metric"], row["reference"]): row for row in csv_rows(ran / f"{TABLE}.csv")}
    plain = table["plain", "psnr", "teacher"]
    assert [float(plain["seed_0"]), float(plain["seed_1"])] == psnr and psnr[0] != psnr[1]
    assert float(plain["mean"]) == pytest.approx(sum(psnr) / 2) and plain["n"] == "2"
    assert float(plain["sd"]) == pytest.approx(abs(psnr[0] - psnr[1]) / 2**0.5)
    assert float(table["plain", "steps", ""]["mean"]) == 90
    assert float(table["plain", "samples_per_s", ""]["mean"]) > 1000
    blank = table["blank", "psnr", "teacher"]
    assert blank["n"] == "0" and blank["mean"] == "" and blank["remarks"].count("COLLAPSED") == 2
    markdown = (ran / f"{TABLE}.md").read_text(encoding="utf-8")
    assert "4 of 4 runs finished." in markdown and "torch" in markdown
    assert not list(ran.glob("results/toy/arms_*/eval/*frame_00001.png"))


def test_a_finished_study_is_not_run_again(ran, capsys) -> None:
    before, table = finished(ran), (ran / f"{TABLE}.md").read_text(encoding="utf-8")
    assert len(before) == 4
    assert main(arguments(ran)) == 0
    assert finished(ran) == before
    assert table in capsys.readouterr().out


def test_other_settings_are_refused_and_then_replaced(ran, tmp_path, capsys) -> None:
    for folder in ("results", "logs"):
        shutil.copytree(ran / folder, tmp_path / folder)
    study = write_study(ran, arms={"plain": {"train": {"lr": 0.02}}, "blank": {"train": {"lr": 1e-9}}}, seeds=[0])
    changed = ["--study", str(study.rename(ran / "changed.yaml")), "--assets", str(ran), "--output", str(tmp_path)]
    write_study(ran)
    before = finished(tmp_path)
    assert main(changed) == ExitCode.BAD_INPUT
    error = capsys.readouterr().err
    assert "arms_plain_s0" in error and "1 runs" in error and "--replace" in error
    assert finished(tmp_path) == before
    assert main([*changed, "--replace"]) == 0
    after = finished(tmp_path)
    assert {name for name in before if after[name] != before[name]} == {"arms_plain_s0"}


def test_a_dry_run_lists_the_runs_and_writes_nothing(ran, tmp_path, capsys) -> None:
    assert main(arguments(ran, "--dry-run")) == 0
    plan = capsys.readouterr().out
    assert plan.count("finished") == 4 and "about 0 min" in plan
    write_toy_scene(tmp_path)
    write_study(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(arguments(tmp_path, "--dry-run")) == 0
    plan = capsys.readouterr().out
    assert plan.count("to run, about") == 4 and "4 runs" in plan
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_run_is_never_taken_over(tmp_path, capsys) -> None:
    write_toy_scene(tmp_path)
    write_study(tmp_path)
    theirs = tmp_path / "results/toy/arms_plain_s0"
    theirs.mkdir(parents=True)
    assert main(arguments(tmp_path, "--replace")) == ExitCode.BAD_INPUT
    assert "no study's" in capsys.readouterr().err
    assert list(theirs.iterdir()) == [] and not (tmp_path / "logs").exists()


def test_a_run_that_diverges_is_recorded_in_its_own_words(tmp_path) -> None:
    write_toy_scene(tmp_path)
    wild = {"train": {"lr": 1e30, "lr_warmup_steps": 0}}
    write_study(tmp_path, seeds=[0], arms={"wild": wild}, baseline="wild")
    assert main(arguments(tmp_path)) == 0
    record = json.loads((tmp_path / "results/toy/arms_wild_s0/study_run.json").read_text())
    assert record["status"] == "diverged" and "loss term" in record["remark"]
    markdown = (tmp_path / f"{TABLE}.md").read_text(encoding="utf-8")
    assert "seed 0 DIVERGED (step " in markdown and "1 of 1 runs finished" in markdown


def test_bad_input_of_a_run_stops_the_study_with_its_message(tmp_path, capsys) -> None:
    write_toy_scene(tmp_path)
    write_study(tmp_path)
    (tmp_path / "outputs/renders/00003.png").write_bytes(b"no picture")
    assert main(arguments(tmp_path)) == ExitCode.BAD_INPUT
    assert "00003.png" in capsys.readouterr().err
    assert "0 of 4 runs finished" in (tmp_path / f"{TABLE}.md").read_text(encoding="utf-8")


def test_ctrl_c_leaves_a_table_and_the_next_call_goes_on(tmp_path, capsys, caplog) -> None:
    write_toy_scene(tmp_path)
    arms = {"plain": {"train": {"max_steps": 20}}, "long": {"train": {"max_steps": 50}}}
    write_study(tmp_path, seeds=[0], arms=arms)
    append = CsvLog.append

    def press_ctrl_c_at_step_30(self: CsvLog, row: dict[str, object]) -> None:
        append(self, row)
        if row["step"] == 30:
            signal.raise_signal(signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CsvLog, "append", press_ctrl_c_at_step_30)
        assert main(arguments(tmp_path)) == ExitCode.INTERRUPTED
    said = capsys.readouterr()
    assert "1 of 2 runs finished" in said.out and "Traceback" not in said.err
    assert "stopped in arms_long_s0: the same command goes on" in caplog.text
    caplog.set_level("INFO")
    assert main(arguments(tmp_path)) == 0
    assert "at step 30" in caplog.text and "arms_plain_s0: finished before" in caplog.text
    assert "2 of 2 runs finished" in capsys.readouterr().out
    log = csv_rows(tmp_path / "logs/toy/arms_long_s0/training_metrics.csv")
    assert [int(row["step"]) for row in log] == [10, 20, 30, 40, 50]  # it did not start again
