"""Jobs as processes of this machine: their ends, their retries, and what is left when we are stopped or killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distill import executors
from distill.executors import processes
from distill.executors.job import Job, JobState, Phase
from settings.executors import ExecutorConfig
from tests.distill.executors.jobs import counting, status_of_interrupted
from tests.program import wait_for

TWO = ExecutorConfig(workers=2, retries=2)


def one(folder: Path, script: str, settings: ExecutorConfig = TWO) -> JobState:
    job = Job("one", [sys.executable, "-c", script], folder, folder / "logs/one.log")
    return executors.run([job], settings, folder)["one"]


def test_a_killed_job_goes_on_where_it_was_and_the_others_are_not_disturbed(tmp_path) -> None:
    jobs = [counting(tmp_path, "a", killed_at=5), counting(tmp_path, "b"), counting(tmp_path, "c")]
    told: list[tuple[str, Phase]] = []
    states = executors.run(jobs, TWO, tmp_path, lambda job, state: told.append((job.name, state.phase)))
    assert [state.phase for state in states.values()] == [Phase.DONE] * 3
    assert [state.attempts for state in states.values()] == [2, 1, 1]
    assert {(tmp_path / f"{name}.txt").read_text() for name in "abc"} == {"0 1 2 3 4 5 6 7 8 9"}
    assert [phase.value for name, phase in told if name == "a"] == ["running", "waiting", "running", "done"]
    assert jobs[0].log.read_text().splitlines() == ["from 0", "from 5"]


@pytest.mark.parametrize(
    ("script", "attempts", "status", "reason"),
    [
        ("print('error: b.yaml: no'); exit(2)", 1, 2, "b.yaml: no"),
        ("print('COLLAPSED: blank'); exit(3)", 1, 3, "blank"),
        ("exit(1)", 1, 1, "ended with exit status 1; see"),
        ("import os; os.kill(os.getpid(), 9)", 3, 137, "ended by signal 9; see"),
        ("exit(130)", 3, 130, "ended by signal 2; see"),
    ],
)
def test_only_what_a_signal_ended_is_tried_again_and_not_for_ever(tmp_path, script, attempts, status, reason) -> None:
    state = one(tmp_path, script)
    assert (state.phase, state.attempts, state.status) == (Phase.FAILED, attempts, status)
    assert state.reason.startswith(reason)


def test_a_log_may_be_a_name_alone(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job("one", [sys.executable, "-c", "print('here')"], tmp_path, Path("one.log"))
    assert executors.run([job], TWO, tmp_path)["one"].phase is Phase.DONE
    assert (tmp_path / "one.log").read_text() == "here\n"


def test_a_command_that_is_not_there_is_named(tmp_path) -> None:
    state = executors.run([Job("one", ["no such"], tmp_path, tmp_path / "log")], TWO, tmp_path)["one"]
    assert (state.phase, state.attempts, state.reason) == (Phase.FAILED, 1, "no such: No such file or directory")


def test_jobs_share_the_cores_and_the_gpus(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("distill.executors.local.available_threads", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    show = "import os; print(*[os.environ[name] for name in ('NUMBA_NUM_THREADS', 'CUDA_VISIBLE_DEVICES')])"
    jobs = [Job(name, [sys.executable, "-c", show], tmp_path, tmp_path / name) for name in "ab"]
    executors.run(jobs, ExecutorConfig(), tmp_path)
    assert sorted(job.log.read_text() for job in jobs) == ["3 4\n", "3 7\n"]


def test_a_signal_is_passed_on_and_the_jobs_ends_are_waited_for(tmp_path) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert status_of_interrupted(tmp_path, TWO) == 130
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells of a parent's death on Linux alone")
def test_no_job_outlives_us(tmp_path) -> None:
    job = counting(tmp_path, "a", pause=0.05, steps=1000)
    start = f"runpy.run_path({processes.__file__!r})['start']"
    script = (
        f"import runpy, time; {start}({job.command!r}, {str(tmp_path)!r}, {str(job.log)!r}, {{}}, 15); time.sleep(60)"
    )
    ours = subprocess.Popen([sys.executable, "-S", "-c", script])
    wait_for(lambda: (tmp_path / "a.txt").exists())
    ours.kill()
    ours.wait()
    wait_for(lambda: "saved" in (tmp_path / "a.log").read_text())
    count = (tmp_path / "a.txt").read_text()
    time.sleep(0.2)
    assert (tmp_path / "a.txt").read_text() == count
