"""Jobs through Slurm: the file that is submitted, really run by a fake of Slurm, and what its tasks' ends mean."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distill import executors
from distill.executors import slurm
from distill.executors.job import Job, Phase
from distill.executors.slurm import array_file
from settings.errors import InputError
from settings.executors import ExecutorConfig, SlurmConfig
from tests.distill.executors.jobs import counting
from tests.program import wait_for

FAKE = Path(__file__).with_name("fake_slurm.py")
SLURM = ExecutorConfig(kind="slurm", retries=2)


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Path:
    """The folder of the fake's state; its programs are on the PATH."""
    programs, state = tmp_path / "bin", tmp_path / "queue"
    programs.mkdir()
    state.mkdir()
    for name in ("sbatch", "squeue", "scontrol"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} {name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_SLURM", str(state))
    monkeypatch.setattr(slurm, "_POLL", 0.05)
    monkeypatch.setattr(slurm, "_TICK", 0.02)
    return state


def test_killed_and_timed_out_tasks_go_on_and_failed_ones_do_not(tmp_path, queue) -> None:
    failing = Job(
        "wrong", [sys.executable, "-c", "print('error: no such file'); exit(2)"], tmp_path, tmp_path / "w.log"
    )
    jobs = [counting(tmp_path, "a", killed_at=5), counting(tmp_path, "b", pause=0.05, steps=20), failing]
    (queue / "limit_1").write_text(str(tmp_path / "b.txt"))
    states = executors.run(jobs, SLURM, tmp_path)
    assert [state.phase for state in states.values()] == [Phase.DONE, Phase.DONE, Phase.FAILED]
    assert (states["wrong"].status, states["wrong"].reason) == (2, "no such file")
    assert (tmp_path / "a.txt").read_text() == " ".join(map(str, range(10)))
    assert (tmp_path / "b.txt").read_text() == " ".join(map(str, range(20)))
    assert jobs[0].log.read_text().splitlines() == ["from 0", "from 5"]  # on the spot
    first, saved, second = jobs[1].log.read_text().splitlines()  # told, queued again
    assert (first, saved) == ("from 0", "saved") and int(second.removeprefix("from ")) > 0
    assert not (tmp_path / "slurm/submitted.json").exists()


def test_what_was_submitted_is_collected_before_anything_else(tmp_path, queue, caplog) -> None:
    caplog.set_level(logging.INFO)
    jobs = [counting(tmp_path, name) for name in "ab"]
    leave = ExecutorConfig(kind="slurm", slurm=SlurmConfig(wait=False))
    (queue / "hold").touch()
    assert [state.phase for state in executors.run(jobs, leave, tmp_path).values()] == [Phase.WAITING] * 2
    with pytest.raises(InputError, match="array job 77 without c"):
        executors.run([counting(tmp_path, "c")], leave, tmp_path)
    (queue / "hold").unlink()
    wait_for(lambda: not any(queue.iterdir()))
    assert executors.run(jobs[1:], leave, tmp_path)["b"].phase is Phase.DONE
    assert caplog.text.count("of 2 jobs") == 1 and "not collected yet" in caplog.text


def test_a_task_that_could_not_say_how_it_ended_is_asked_about(tmp_path, queue, monkeypatch) -> None:
    job = counting(tmp_path, "a")
    accounts = queue.parent / "bin/sacct"
    for answer, status, reason in (
        ("OUT_OF_MEMORY|0:125", 137, "Slurm says OUT_OF_MEMORY"),
        ("COMPLETED|0:0", 0, ""),
        ("", 137, "Slurm no longer has it"),
    ):
        monkeypatch.setattr(slurm, "_GRACE", 0.1)
        accounts.write_text(f"#!/bin/sh\necho '{answer}'\n")
        accounts.chmod(0o755)
        submission = slurm._Submission("77", tmp_path / "slurm/submitted.json", ["a"])
        submission.write()
        state = executors.run([job], SLURM, tmp_path)["a"]
        assert state.status == status and state.reason.startswith(reason)


def test_the_file_says_what_the_settings_say_and_is_sound(tmp_path) -> None:
    awkward = replace(counting(tmp_path / "it's 100%", "a"), command=["echo", "two words", "$HOME;'"], cores=3)
    options = SlurmConfig(
        partition="gpu", time_limit="1-12:00", memory="16G", lines=("module load cuda", "#SBATCH --account=me")
    )
    settings = ExecutorConfig(kind="slurm", workers=4, gpus=1, slurm=options)
    text = array_file([awkward, counting(tmp_path, "b")], settings, tmp_path / "slurm")
    head = text[: text.index("module load cuda")]
    for option in (
        "array=0-1%4", "requeue", "signal=B:USR1@120", "cpus-per-task=3", "partition=gpu", "time=1-12:00",
        "mem=16G", "gres=gpu:1", "account=me", f"output={tmp_path}/slurm/task_%a.out",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in head
    assert "export NUMBA_NUM_THREADS=3" in text
    path = tmp_path / "jobs.sbatch"
    path.write_text(text)
    assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""


def test_what_is_wrong_with_slurm_is_said(tmp_path, queue, monkeypatch) -> None:
    job = counting(tmp_path, "a")
    executors.check_executor(SLURM)  # it is there
    with pytest.raises(InputError, match=r"jobs\.sbatch: sbatch: found sbatch: error: invalid partition"):
        executors.run([job], ExecutorConfig(kind="slurm", slurm=SlurmConfig(partition="none")), tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="found no program sbatch, expected Slurm on the PATH"):
        executors.run([job], SLURM, tmp_path)
    with pytest.raises(InputError, match="city.executor.kind: slurm: found no program sbatch"):
        executors.check_executor(SLURM)
    (tmp_path / "slurm/submitted.json").write_text("{")
    with pytest.raises(InputError, match=r"submitted\.json: text"):
        executors.run([job], SLURM, tmp_path)
