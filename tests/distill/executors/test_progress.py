"""What is shown of many jobs: figures of a run's own log, a table in place on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import os
import sys

import pytest

from distill.executors.job import Job, JobState, Phase
from distill.executors.progress import Figures, ProgressView, figures
from machine.run_folder import RunFolder
from settings.config import Config

HEADER = "step,wall_s,psnr_batch\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def job(tmp_path) -> Job:
    values = {"scene": "toy", "run": "b000", "data": {"resolution": 64}, "teacher": {"kind": "bricks"}}
    run = RunFolder(Config.model_validate(values | {"train": {"max_steps": 400, "max_seconds": 80}}), tmp_path)
    run.logs.mkdir(parents=True)
    return Job("b000", ["true"], tmp_path, tmp_path / "log", run=run)


def test_the_last_whole_row_says_how_far_a_run_is(job) -> None:
    assert figures(job.run) is None
    path = job.run.training_csv
    path.write_text(HEADER)
    assert figures(job.run) is None
    path.write_text(HEADER + "50,10,20.5\n" * 1000 + "100,40,31.25\n150,4")
    assert figures(job.run) == Figures(step=100, steps=400, psnr=31.25, seconds_left=40)  # of 80 s, the sooner end
    path.write_text(HEADER + "400,60,31.25\n")
    assert figures(job.run).seconds_left == 0
    path.write_bytes(b"\xff\0")
    assert figures(job.run) is None


def test_a_terminal_has_one_table_and_the_ends_above_it(job, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((60, 3)))
    others = [Job(f"b00{number}", ["true"], job.folder, job.log) for number in (1, 2, 3)]
    view = ProgressView([job, *others])
    job.run.training_csv.write_text(HEADER + "100,30,31.25\n")
    for each in (job, *others[:2]):
        view.changed(each, JobState(Phase.RUNNING, attempts=2))
    view.refresh()
    view.refresh()  # too soon
    table = "4 jobs: 1 waiting, 3 running\nb000  step    100 of 400  psnr 31.25  0:00:50 left  attempt 2\n"
    assert sys.stderr.getvalue() == table.replace("  attempt 2", "  attempt")  # no wider and higher than the terminal
    view.changed(others[0], JobState(Phase.FAILED, 2, 2, "no such file"))
    view.refresh()
    shown = sys.stderr.getvalue().split("\x1b[2F\x1b[J")
    assert shown[1].startswith("b001: failed: no such file\n4 jobs: 1 waiting, 2 running, 1 failed\nb000")


def test_elsewhere_each_change_is_a_line(job, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    view = ProgressView([job])
    started = JobState().started()
    for state in (started, started.ended(137, "ended by signal 9", again=True), JobState(Phase.DONE)):
        view.changed(job, state)
        view.refresh()
    assert sys.stderr.getvalue() == "b000: started\nb000: interrupted: ended by signal 9\nb000: done\n"
