"""Where a run's files go, and that they are whole or absent."""

from __future__ import annotations

import json
import os

import pytest
import torch

from machine.files import CsvLog, atomic_path, write_csv
from machine.run_folder import RunFolder
from settings.config import Config
from settings.errors import InputError
from settings.loading import load_config

COLUMNS = ("step", "loss", "power_w")


@pytest.fixture
def config() -> Config:
    return Config(scene="toy", run="first", tag="w020", seed=5, data={"resolution": 8}, teacher={"kind": "bricks"})


def test_paths(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    assert folder.checkpoint_path(20000) == tmp_path / "results/toy/first/checkpoints/step_020000.pth"
    assert folder.eval == tmp_path / "results/toy/first/eval"
    assert folder.training_csv == tmp_path / "logs/toy/first/training_metrics.csv"
    assert folder.eval_csv(50000) == tmp_path / "logs/toy/first/eval_step_050000_w020.csv"
    assert folder.eval_csv(50000, tag="") == tmp_path / "logs/toy/first/eval_step_050000.csv"
    assert folder.eval_frames_csv(50000) == tmp_path / "logs/toy/first/eval_step_050000_w020_frames.csv"
    assert list(tmp_path.iterdir()) == []


def test_latest_checkpoint_is_the_one_written_last_and_ignores_other_files(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    assert folder.latest_checkpoint() is None
    folder.create()
    assert folder.latest_checkpoint() is None
    names = ["step_200000.pth", "step_000900.pth", "step_1000000.pth", ".step_2000000.1.tmp.pth", "step_x.pth"]
    for written, name in enumerate(names):
        (folder.checkpoints / name).touch()
        os.utime(folder.checkpoints / name, (written, written))
    assert folder.latest_checkpoint() == folder.checkpoints / "step_1000000.pth"
    os.utime(folder.checkpoints / "step_000900.pth", (9, 9))
    assert folder.latest_checkpoint() == folder.checkpoints / "step_000900.pth"


def test_prepare_records_config_and_versions(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.prepare("cpu")
    assert load_config(folder.config_yaml) == config
    versions = json.loads(folder.versions_json.read_text())
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert versions["seed"] == 5 and versions["device"] == "cpu" and versions["device_name"]
    assert {"python", "numpy", "numba", "lego-response-distill", "git_commit", "platform", "command"} <= set(versions)
    assert sorted(path.name for path in folder.results.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "eval",
        "versions.json",
    ]


@pytest.mark.parametrize("in_the_way", ["results", "results/toy", "results/toy/first/checkpoints", "logs/toy/first"])
def test_a_file_in_the_way_is_named(config, tmp_path, in_the_way):
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).write_text("mine")
    with pytest.raises(InputError) as caught:
        RunFolder(config, tmp_path).prepare("cpu")
    assert caught.value.found == f"a file in the way, {tmp_path / in_the_way}"
    assert (tmp_path / in_the_way).read_text() == "mine"
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_folder_that_refuses_files_is_named(config, tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write whatever the mode says
    with pytest.raises(InputError, match="Permission denied.*folder that can be written to"):
        RunFolder(config, tmp_path).create()


def test_atomic_path_replaces_on_success_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_write_csv_leaves_empty_what_is_not_measured(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, [{"step": 1, "loss": 0.1, "power_w": None}, {"step": 2, "loss": 1e-9}], COLUMNS)
    assert path.read_text() == "step,loss,power_w\n1,0.1,\n2,1e-09,\n"
    with pytest.raises(ValueError, match="los_s"):
        write_csv(path, [{"step": 3, "los_s": 1}], COLUMNS)
    assert path.read_text().endswith("2,1e-09,\n")


def test_every_row_is_on_disk_at_once(tmp_path):
    path = tmp_path / "log.csv"
    log = CsvLog(path, COLUMNS)
    assert path.read_text() == "step,loss,power_w\n"
    log.append({"step": 50, "loss": 0.5, "power_w": 71.5})
    assert path.read_text() == "step,loss,power_w\n50,0.5,71.5\n"
    with pytest.raises(ValueError, match="extra"):
        log.append({"step": 100, "extra": 1})
    log.append({"step": 100, "loss": None})
    assert path.read_text() == "step,loss,power_w\n50,0.5,71.5\n100,,\n"
    CsvLog(path, COLUMNS)
    assert path.read_text() == "step,loss,power_w\n"


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ("", "50,0.5,\n100,0.25,7\n"),
        ("150,0.1,\n200,0.05,\n", "50,0.5,\n100,0.25,7\n"),
        ("12", "50,0.5,\n100,0.25,7\n"),  # torn: would pass for a step before 150
        ("120,0.3,9", "50,0.5,\n100,0.25,7\n"),  # torn: the last cell may be cut
        ("120,0.3\n130,0.2,1\n", "50,0.5,\n100,0.25,7\n"),  # damaged: nothing after it is trusted
        ("\0\0\0\n", "50,0.5,\n100,0.25,7\n"),
        ("120,0.3,9\n", "50,0.5,\n100,0.25,7\n120,0.3,9\n"),
    ],
)
def test_resume_keeps_whole_rows_before_the_step(tmp_path, tail, kept):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,power_w\n50,0.5,\n100,0.25,7\n" + tail)
    log = CsvLog(path, COLUMNS, first_step=150)
    assert path.read_text() == "step,loss,power_w\n" + kept
    log.append({"step": 150, "loss": 1.0})
    assert path.read_text() == "step,loss,power_w\n" + kept + "150,1.0,\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [None, "", "step,lo"])
def test_resume_without_a_whole_header_starts_anew(tmp_path, text):
    path = tmp_path / "log.csv"
    if text is not None:
        path.write_text(text)
    CsvLog(path, COLUMNS, first_step=10)
    assert path.read_text() == "step,loss,power_w\n"


def test_resume_of_a_file_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,0.5\n")
    with pytest.raises(InputError, match="header: found step,loss, expected step,loss,power_w"):
        CsvLog(path, COLUMNS, first_step=10)
    assert path.read_text() == "step,loss\n1,0.5\n"
