"""Runs that end early: stopped by Ctrl-C, killed, and gone on with."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from lego_response_distill import main
from machine.files import CsvLog
from tests.command_line.program import LIVE, arguments, rows, setting, spawn
from tests.toy_scene import add_training_split, write_toy_scene


@pytest.fixture
def ctrl_c_at_step_20(monkeypatch):
    """A real Ctrl-C in the first run, when the second row of its log is written."""
    append, steps = CsvLog.append, []

    def append_and_interrupt(self: CsvLog, row: dict[str, object]) -> None:
        append(self, row)
        steps.append(row["step"])
        if steps == [10, 20]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(CsvLog, "append", append_and_interrupt)


@pytest.mark.parametrize("overrides", [(), LIVE], ids=["views", "live"])
def test_ctrl_c_saves_and_resume_goes_on(tmp_path, capsys, caplog, ctrl_c_at_step_20, overrides) -> None:
    config = write_toy_scene(tmp_path)
    add_training_split(tmp_path)
    assert main(arguments(config, "--max-steps", "100000", *setting(*overrides))) == 130
    assert "--resume auto" in caplog.text and "Traceback" not in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "results/toy/first/checkpoints").iterdir()] == ["step_000020.pth"]
    assert main(arguments(config, "--resume", "auto", "--max-steps", "40", *setting(*overrides))) == 0
    log = rows(tmp_path / "logs/toy/first/training_metrics.csv")
    assert [int(row["step"]) for row in log] == [10, 20, 30, 40]
    views = [int(row["live_views"] or 0) for row in log]
    assert views == sorted(views) and (views[0] > 0) == (overrides is LIVE)


def test_a_killed_run_leaves_the_last_checkpoint_and_a_readable_csv(tmp_path) -> None:
    config = write_toy_scene(tmp_path, train={"checkpoint_every": 20})
    process = spawn(config, "--max-steps", "100000")
    checkpoints = tmp_path / "results/toy/first/checkpoints"
    wait_for(lambda: checkpoints.is_dir() and len(list(checkpoints.glob("step_*.pth"))) > 2, process)
    process.kill()
    process.communicate(timeout=60)
    log = rows(tmp_path / "logs/toy/first/training_metrics.csv")
    assert len(log) > 1 and all(float(row["loss"]) > 0 for row in log[:-1])
    assert main(arguments(config, "--eval-only")) == 0


def wait_for(condition, process: subprocess.Popen, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the run did not get there in time"
        time.sleep(0.05)
