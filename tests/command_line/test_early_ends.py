"""Runs that end early: stopped by a signal, killed, out of space, and gone on with, but only by their own kind."""

from __future__ import annotations

import ctypes
import errno
import os
import signal

import pytest

from distill.runs.command_line import run_command
from lego_response_distill import main
from machine.files import CsvLog
from machine.folder_lock import locked
from scene.images import read_image, write_image
from tests.program import FORKS, LIVE, arguments, csv_rows, quiet_fork, setting
from tests.toy_scene import add_training_split, write_toy_scene


@pytest.fixture
def at_step_20(monkeypatch):
    """Does something in a run when the second row of its log is to be written."""

    def set_up(act) -> None:
        append, steps = CsvLog.append, []

        def act_and_append(self: CsvLog, row: dict[str, object]) -> None:
            steps.append(row["step"])
            if steps == [10, 20]:
                act()
            append(self, row)

        monkeypatch.setattr(CsvLog, "append", act_and_append)

    return set_up


@pytest.mark.parametrize(
    ("names", "status"), [(["SIGINT", "SIGINT"], 130), (["SIGTERM"], 143), (["SIGHUP"], 129), (["SIGUSR1"], 138)]
)
def test_signals_save_and_say_which_it_was(tmp_path, caplog, at_step_20, names, status) -> None:
    config = write_toy_scene(tmp_path)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
    at_step_20(lambda: [signal.raise_signal(getattr(signal, name)) for name in names])
    assert main(arguments(config, "--max-steps", "100000")) == status
    assert "stopped at step 20" in caplog.text
    results = tmp_path / "results/toy/first"
    assert [path.name for path in (results / "checkpoints").iterdir()] == ["step_000020.pth"]
    assert not (results / ".lock").exists()


def no_space() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "training_metrics.csv")


def test_a_row_that_cannot_be_written_stops_the_run_with_its_state_saved(tmp_path, capsys, at_step_20) -> None:
    config = write_toy_scene(tmp_path)
    at_step_20(no_space)
    assert main(arguments(config, "--max-steps", "40")) == 4
    error = capsys.readouterr().err
    assert "error: training_metrics.csv: No space left on device. Make room" in error and "Traceback" not in error
    assert [path.name for path in (tmp_path / "results/toy/first/checkpoints").iterdir()] == ["step_000020.pth"]
    run = str(tmp_path / "results/toy/first")
    assert main(arguments(config, "--resume", run, "--max-steps", "40")) in (0, 3)  # too short to be good
    assert main(arguments(config, "--eval-only", "--checkpoint", run)) in (0, 3)
    assert (tmp_path / "logs/toy/first/eval_step_000040.csv").is_file()


def test_automatic_checkpoints_go_when_the_run_is_over(tmp_path, at_step_20) -> None:
    config = write_toy_scene(tmp_path)
    folder, seen = tmp_path / "results/toy/first/checkpoints", []
    at_step_20(lambda: seen.extend(sorted(path.name for path in folder.iterdir())))
    often = setting("train.checkpoint_minutes=0.00001", "train.max_steps=22")
    assert main(arguments(config, *often)) in (0, 3)
    assert seen == ["autosave_step_000018.pth", "autosave_step_000019.pth"]
    assert [path.name for path in folder.iterdir()] == ["step_000022.pth"]


def test_only_the_run_that_was_begun_is_gone_on_with(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--max-steps", "5")) in (0, 3)
    log = (tmp_path / "logs/toy/first/training_metrics.csv").read_text()
    for change, named in (
        ("seed=1", "seed: found 0, expected 1"),
        ("data.holdout_every=5", "data.holdout_every: found 4, expected 5"),
        ("loss.depth.weight=0.1", "loss.depth.weight: found 0.0, expected 0.1"),
        ("train.lr=0.5", "train.lr: found 0.01, expected 0.5"),
    ):
        assert main(arguments(config, "--resume", "auto", *setting(change))) == 2
        assert named in capsys.readouterr().err
    picture = tmp_path / "outputs/renders/00003.png"
    write_image(picture, 255 - read_image(picture))
    assert main(arguments(config, "--resume", "auto", "--max-steps", "8")) == 2
    assert "teacher.outputs: found another file's contents" in capsys.readouterr().err
    assert (tmp_path / "logs/toy/first/training_metrics.csv").read_text() == log


def test_a_run_that_begins_anew_has_none_of_the_earlier_ones_checkpoints(tmp_path) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--max-steps", "5")) in (0, 3)
    assert main(arguments(config, "--max-steps", "3", *setting("seed=1"))) in (0, 3)
    results = tmp_path / "results/toy/first"
    assert [path.name for path in (results / "checkpoints").glob("*.pth")] == ["step_000003.pth"]
    assert [path.name for path in (results / "checkpoints/earlier/1").iterdir()] == ["step_000005.pth"]
    assert main(arguments(config, "--resume", "auto", "--max-steps", "4", *setting("seed=1"))) in (0, 3)
    assert [row.split(",")[0] for row in (tmp_path / "logs/toy/first/training_metrics.csv").open()] == [
        "step",
        "3",
        "4",
    ]


def test_of_a_damaged_checkpoint_the_one_before_it_is_named(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--max-steps", "5", *setting("train.checkpoint_steps=[3]"))) in (0, 3)
    folder = tmp_path / "results/toy/first/checkpoints"
    last, before = folder / "step_000005.pth", folder / "step_000003.pth"
    last.write_bytes(last.read_bytes()[:2000])
    more = ["--max-steps", "6", *setting("train.checkpoint_steps=[3]")]
    assert main(arguments(config, "--resume", "auto", *more)) == 2
    assert f"Or go on from the one before it: --resume {before}" in capsys.readouterr().err
    assert main(arguments(config, "--resume", str(before), *more)) in (0, 3)
    assert not last.exists() and (folder / "step_000006.pth").is_file()
    set_aside = folder / "earlier/1/step_000005.pth"
    assert set_aside.is_file()
    assert main(arguments(config, "--eval-only", "--checkpoint", str(before))) in (0, 3)
    logs = tmp_path / "logs/toy/first"
    assert not (logs / "eval_step_000003_earlier-1.csv").exists()
    set_aside.write_bytes(before.read_bytes())
    assert main(arguments(config, "--eval-only", "--checkpoint", str(set_aside))) in (0, 3)
    assert (logs / "eval_step_000003_earlier-1.csv").is_file()


def test_a_log_that_is_gone_is_told(tmp_path, caplog) -> None:
    config = write_toy_scene(tmp_path)
    assert main(arguments(config, "--max-steps", "5")) in (0, 3)
    (tmp_path / "logs/toy/first/training_metrics.csv").unlink()
    assert main(arguments(config, "--resume", "auto", "--max-steps", "6")) in (0, 3)
    assert "training_metrics.csv to append to: a new one begins at step 6" in caplog.text


def test_a_run_that_another_process_writes_is_left_alone(tmp_path, capsys) -> None:
    config = write_toy_scene(tmp_path)
    with locked(tmp_path / "results/toy/first"):
        assert main(arguments(config)) == 2
    assert f"run folder: found in use by process {os.getpid()} on " in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("overrides", [(), LIVE], ids=["views", "live"])
def test_ctrl_c_saves_and_resume_goes_on(tmp_path, capsys, caplog, at_step_20, overrides) -> None:
    config = write_toy_scene(tmp_path, train={"lr": 0.06})
    add_training_split(tmp_path)
    at_step_20(lambda: signal.raise_signal(signal.SIGINT))
    assert main(arguments(config, "--max-steps", "100000", *setting(*overrides))) == 130
    assert "--resume auto" in caplog.text and "Traceback" not in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "results/toy/first/checkpoints").iterdir()] == ["step_000020.pth"]
    assert main(arguments(config, "--resume", "auto", "--max-steps", "40", *setting(*overrides))) == 0
    log = csv_rows(tmp_path / "logs/toy/first/training_metrics.csv")
    assert [int(row["step"]) for row in log] == [10, 20, 30, 40]
    views = [int(row["live_views"] or 0) for row in log]
    assert views == sorted(views) and (views[0] > 0) == (overrides is LIVE)


@quiet_fork
@pytest.mark.skipif(not FORKS, reason="no process can go on as a copy of this one")
def test_a_killed_run_leaves_the_last_checkpoint_and_a_readable_csv(tmp_path, at_step_20) -> None:
    config = write_toy_scene(tmp_path, train={"lr": 0.06, "checkpoint_steps": [5, 15, 25]})
    at_step_20(lambda: os.kill(os.getpid(), signal.SIGKILL))
    if (run := os.fork()) == 0:
        signal.alarm(300)  # so that it fails where a copy would wait for ever for what it has not
        try:
            main(arguments(config, "--max-steps", "30"))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) == -signal.SIGKILL
    folder = tmp_path / "results/toy/first/checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["step_000005.pth", "step_000015.pth"]
    assert [row["step"] for row in csv_rows(tmp_path / "logs/toy/first/training_metrics.csv")] == ["10"]
    assert main(arguments(config, "--eval-only")) in (0, 3)  # too short to be good
    assert (tmp_path / "logs/toy/first/eval_step_000015.csv").is_file()


@pytest.mark.parametrize(("more", "told"), [((), ". --resume auto goes on from"), (("--eval-only",), "\n")])
def test_ctrl_c_before_or_after_training_says_how_to_go_on(tmp_path, capsys, monkeypatch, more, told):
    monkeypatch.setattr("lego_response_distill._work", lambda _: signal.raise_signal(signal.SIGINT))
    assert main(["--config", str(tmp_path / "none.yaml"), *more]) == 130
    assert capsys.readouterr().err.startswith(f"interrupted{told}")


def test_a_signal_while_a_kernel_compiles_is_an_interruption(capsys):
    def work():
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()  # llvmlite calls back like this
        raise RuntimeError("no compiled object yet for <Library>")

    assert run_command(work, debug=False) == 130
    assert capsys.readouterr().err == "interrupted\n"
