"""Where a run's files go, and what is recorded there."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from machine.run_folder import RunFolder, checkpoint_at, results_folder, set_aside_as
from machine.run_identity import RunIdentity
from settings.config import Config
from settings.errors import InputError
from settings.loading import load_config


@pytest.fixture
def config() -> Config:
    return Config(scene="toy", run="first", tag="w020", seed=5, data={"resolution": 8}, teacher={"kind": "bricks"})


def test_paths(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    assert folder.checkpoint_path(20000) == tmp_path / "results/toy/first/checkpoints/step_020000.pth"
    assert folder.eval == tmp_path / "results/toy/first/eval"
    assert folder.training_csv == tmp_path / "logs/toy/first/training_metrics.csv"
    assert folder.eval_csv(50000) == tmp_path / "logs/toy/first/eval_step_050000_w020.csv"
    assert RunFolder(config.model_copy(update={"tag": ""}), tmp_path).eval_csv(50000) == (
        tmp_path / "logs/toy/first/eval_step_050000.csv"
    )
    assert folder.eval_frames_csv(50000) == tmp_path / "logs/toy/first/eval_step_050000_w020_frames.csv"
    assert list(tmp_path.iterdir()) == []


def test_latest_checkpoint_is_that_of_the_highest_step_and_ignores_other_files(config, tmp_path, caplog):
    folder = RunFolder(config, tmp_path)
    assert folder.latest_checkpoint() is None
    folder.create()
    assert folder.latest_checkpoint() is None
    names = ["step_200000.pth", "step_000900.pth", "step_1000000.pth", ".step_2000000.1.tmp.pth", "step_x.pth"]
    for written, name in enumerate(names):
        (folder.checkpoints / name).touch()
        os.utime(folder.checkpoints / name, (written, written))
    assert folder.latest_checkpoint() == folder.checkpoints / "step_1000000.pth" and not caplog.records
    os.utime(folder.checkpoints / "step_000900.pth", (9, 9))
    assert folder.latest_checkpoint() == folder.checkpoints / "step_1000000.pth"
    assert "step_1000000.pth has the highest step and is taken, though step_000900.pth was written later" in caplog.text
    caplog.clear()
    os.utime(folder.checkpoints / "step_1000000.pth", (9, 9))  # by a copy, as it may be
    assert folder.latest_checkpoint() == folder.checkpoints / "step_1000000.pth" and not caplog.records


def test_of_one_step_the_automatic_checkpoint_comes_second(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.create()
    for name in ("step_000010.pth", "autosave_step_000010.pth"):
        (folder.checkpoints / name).touch()
    assert folder.latest_checkpoint().name == "step_000010.pth"


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def fill(folder: RunFolder, *names: str, content: str = "") -> None:
    for name in names:
        (folder.checkpoints / name).write_text(content)


def test_what_an_earlier_run_left_is_set_aside_where_another_begins(config, tmp_path, caplog):
    folder = RunFolder(config, tmp_path)
    earlier = folder.checkpoints / "earlier"
    folder.prepare("cpu")
    assert not earlier.exists()
    fill(folder, "step_000010.pth", "step_000020.pth", "step_000020.lrd", "autosave_step_000015.pth", "mine.lrd")
    with caplog.at_level("INFO"):
        folder.prepare("cpu", None, folder.checkpoints / "step_000020.pth", 20)
    assert not earlier.exists() and not caplog.records
    folder.prepare("cpu", None, folder.checkpoints / "step_000010.pth", 10)  # what is gone on from is before them
    assert names_in(folder.checkpoints) == ["earlier", "mine.lrd", "step_000010.pth"]
    assert names_in(earlier / "1") == ["autosave_step_000015.pth", "step_000020.lrd", "step_000020.pth"]
    with caplog.at_level("INFO"):
        folder.prepare("cpu")
    assert names_in(folder.checkpoints) == ["earlier", "mine.lrd"] and folder.latest_checkpoint() is None
    assert names_in(earlier / "2") == ["step_000010.pth"] and len(names_in(earlier / "1")) == 3
    assert f"moved to {earlier / '2'}, since they are from an earlier run: step_000010.pth" in caplog.text
    shutil.rmtree(earlier / "1")
    fill(folder, "step_000030.pth")
    folder.prepare("cpu")
    assert names_in(earlier) == ["2", "3"] and names_in(earlier / "3") == ["step_000030.pth"]


def test_so_are_an_earlier_runs_evaluations(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.create()
    (folder.results / "point_cloud/iteration_30").mkdir(parents=True)
    kept = ["eval_step_000020_earlier-1.csv", "eval_step_000030.csv", "training_metrics.csv"]  # of what is kept
    first = ["eval_step_000010.csv", "eval_step_000010_frames.csv"]
    last = ["eval_step_000020.csv", "eval_step_000020_64px_parity.csv", "eval_step_1000000.csv"]
    for name in (*kept, *first, *last):
        (folder.logs / name).touch()
    folder.prepare("cpu", None, folder.checkpoints / "step_000010.pth", 10)
    assert names_in(folder.logs) == sorted([*kept, *first, "earlier"]) and names_in(folder.logs / "earlier/1") == last
    folder.prepare("cpu")
    assert names_in(folder.logs) == sorted([*kept, "earlier"]) and names_in(folder.logs / "earlier/2") == first


@pytest.mark.parametrize("name", ["earlier/1/step_000020.pth", "elsewhere/best.pth"])
def test_a_run_that_goes_on_from_elsewhere_has_nothing_of_another_one(config, tmp_path, name):
    folder = RunFolder(config, tmp_path)
    folder.create()
    fill(folder, "step_000020.pth", content="old")
    folder.prepare("cpu")
    fill(folder, "step_000010.pth", "step_000020.pth", "step_000030.lrd", content="new")
    folder.prepare("cpu", None, folder.checkpoints / name, 20)
    assert names_in(folder.checkpoints) == ["earlier"]
    assert names_in(folder.checkpoints / "earlier/2") == ["step_000010.pth", "step_000020.pth", "step_000030.lrd"]
    assert (folder.checkpoints / "earlier/1/step_000020.pth").read_text() == "old"


def test_checkpoints_on_another_disk_stay_there(config, tmp_path):
    folder, there = RunFolder(config, tmp_path), tmp_path / "other_disk"
    there.mkdir()
    folder.results.mkdir(parents=True)
    folder.checkpoints.symlink_to(there)
    fill(folder, "step_000010.pth")
    folder.prepare("cpu")
    assert names_in(there / "earlier/1") == ["step_000010.pth"]


def test_what_is_in_the_way_of_setting_aside_is_named(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.create()
    fill(folder, "step_000010.pth", "earlier")
    with pytest.raises(InputError, match="output folder: found a file in the way, .*checkpoints/earlier"):
        folder.prepare("cpu")
    assert (folder.checkpoints / "step_000010.pth").is_file()


def test_what_was_set_aside_has_a_number(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    assert set_aside_as(folder.checkpoints / "earlier/3/step_000010.pth") == "3"
    for path in (folder.checkpoint_path(10), folder.results / "point_cloud/earlier/3/iteration_10"):
        assert set_aside_as(path) is None


@pytest.mark.parametrize("linked", ["results", "results/toy/first/checkpoints"])
def test_a_run_s_folder_is_found_through_a_link_to_another_disk(config, tmp_path, linked):
    folder, there = RunFolder(config, tmp_path / "home"), tmp_path / "disk"
    there.mkdir()
    (tmp_path / "home" / linked).parent.mkdir(parents=True)
    (tmp_path / "home" / linked).symlink_to(there)
    folder.create()
    for name, number in (("step_000010.pth", None), ("earlier/2/step_000010.pth", "2")):
        assert results_folder(folder.checkpoints / name) == folder.results
        assert set_aside_as(folder.checkpoints / name) == number
    assert results_folder(tmp_path / "best.pth") is None


def test_a_fit_sets_aside_an_earlier_one_and_leaves_a_students_checkpoints(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.create()
    cloud = folder.results / "point_cloud/iteration_60/point_cloud.ply"
    cloud.parent.mkdir(parents=True)
    cloud.touch()
    fill(folder, "fit_latest.pth")
    (folder.logs / "eval_step_000060.csv").touch()
    folder.prepare("cpu")
    assert names_in(folder.logs) == ["eval_step_000060.csv"]
    assert cloud.is_file() and names_in(folder.checkpoints) == ["fit_latest.pth"], "a student may be of these Gaussians"
    fill(folder, "step_000010.pth")
    fit = RunIdentity(config, fits_teacher=True)
    folder.prepare("cpu", fit, folder.checkpoints / "fit_latest.pth", 60)
    assert cloud.is_file()
    folder.prepare("cpu", fit)
    assert not cloud.exists() and names_in(folder.checkpoints) == ["earlier", "step_000010.pth"]
    assert (folder.results / "point_cloud/earlier/1/iteration_60/point_cloud.ply").is_file()
    assert names_in(folder.logs / "earlier/1") == ["eval_step_000060.csv"]


def test_the_latest_compact_file_is_that_of_the_highest_step(config, tmp_path):
    folder = RunFolder(config, tmp_path)
    folder.create()
    assert folder.latest_compact() is None
    for written, name in enumerate(["step_999999.lrd", "step_1000000.lrd", "small.lrd", "step_2000000.pth"]):
        (folder.checkpoints / name).touch()
        os.utime(folder.checkpoints / name, (written, written))
    assert folder.latest_compact() == folder.checkpoints / "step_1000000.lrd"


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
        "identity.json",
        "versions.json",
    ]


@pytest.mark.parametrize("in_the_way", ["results", "results/toy", "results/toy/first/checkpoints", "logs/toy/first"])
def test_a_file_in_the_way_is_named(config, tmp_path, in_the_way):
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).write_text("mine")
    folder = RunFolder(config, tmp_path)
    for attempt in (folder.check_creatable, lambda: folder.prepare("cpu")):
        with pytest.raises(InputError) as caught:
            attempt()
        assert caught.value.found == f"a file in the way, {tmp_path / in_the_way}"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / in_the_way]
    if in_the_way.startswith("logs"):
        assert not (tmp_path / "results").exists()


def test_a_folder_that_refuses_files_is_named(config, tmp_path, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root may write whatever the mode says
    with pytest.raises(InputError, match="Permission denied.*folder that can be written to"):
        RunFolder(config, tmp_path).create()


def test_whether_folders_could_be_made_is_told_without_making_any(config, tmp_path, monkeypatch):
    folder = RunFolder(config, tmp_path / "new")
    folder.check_creatable()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="Permission denied.*folder that can be written to"):
        folder.check_creatable()
    assert not list(tmp_path.iterdir())


def test_a_folder_without_checkpoints_is_named_and_a_citys_for_what_it_is(tmp_path):
    with pytest.raises(InputError, match="run folder: found no checkpoint, .*Train first"):
        checkpoint_at(tmp_path)
    city = tmp_path / "city.json"
    assert checkpoint_at(city) == city, "a file that is not there"
    city.touch()
    for path in (tmp_path, city):
        with pytest.raises(InputError, match="run folder: found a city, .*tools/render_city.py draws the city"):
            checkpoint_at(path)


def test_of_a_city_a_blocks_run_is_named_which_can_be_taken(tmp_path):
    (tmp_path / "city.json").touch()
    run = tmp_path / "blocks/b001/run/results/city/b001"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    (run / "checkpoints/step_000007.pth").touch()
    with pytest.raises(InputError, match=rf"each of its blocks has a run, such as {re.escape(str(run))}\.$"):
        checkpoint_at(tmp_path)
    assert checkpoint_at(run).name == "step_000007.pth"
    with pytest.raises(InputError, match=r"a folder above 1 run: results/city/b001, .*Name it: .*city/b001\.$"):
        checkpoint_at(tmp_path / "blocks/b001/run")


def test_a_folder_above_runs_names_them(tmp_path):
    for number in range(5):
        run = tmp_path / f"results/bricks/run_{number}"
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").touch()
        (run / "checkpoints/step_000007.pth").touch()
    names = ", ".join(f"run_{number}" for number in range(4))
    said = (
        rf"found no run, but a folder above 5 runs: {names} and 1 more, expected .*Name one of them: .*bricks/run_0\."
    )
    with pytest.raises(InputError, match=said):
        checkpoint_at(tmp_path / "results/bricks")
    for folder, name in ((tmp_path / "results", "bricks/run_0"), (tmp_path, "results/bricks/run_0")):
        with pytest.raises(InputError, match=f"above 5 runs: {name}, "):
            checkpoint_at(folder)


def test_the_folder_of_a_fitted_teacher_is_said_to_be_one(tmp_path):
    cloud = tmp_path / "point_cloud/iteration_7/point_cloud.ply"
    cloud.parent.mkdir(parents=True)
    cloud.touch()
    (tmp_path / "config.yaml").touch()
    with pytest.raises(InputError, match="found a teacher that tools/train_teacher.py fitted, .*--model .* distils it"):
        checkpoint_at(tmp_path)


def test_the_folder_of_a_fit_that_was_stopped_is_said_to_be_one(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/fit_latest.pth").touch()
    with pytest.raises(InputError, match="found a teacher whose fit by tools/train_teacher.py was stopped, .*--resume"):
        checkpoint_at(tmp_path)


def test_the_run_of_a_folder_and_of_its_checkpoints(tmp_path):
    run = tmp_path / "results/bricks/mine"
    (run / "checkpoints/earlier/1").mkdir(parents=True)
    for path in (run, run / "checkpoints/step_000007.lrd", run / "checkpoints/earlier/1/step_000007.pth"):
        assert results_folder(path) == run
    for path in (tmp_path, run.parent, run / "small.lrd", tmp_path / "checkpoints/step_000007.pth"):
        assert results_folder(path) is None
