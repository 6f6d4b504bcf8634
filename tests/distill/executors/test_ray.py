"""Jobs through Ray, with real workers that die."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from distill import executors
from distill.executors.job import Job, Phase
from settings.errors import InputError
from settings.executors import ExecutorConfig, RayConfig
from tests.distill.executors.jobs import counting, status_of_interrupted

RAY = ExecutorConfig(kind="ray", retries=1)


@pytest.fixture(scope="module")
def ray() -> Iterator[object]:
    """A cluster of this machine alone, which has room for two jobs."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "300")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def test_a_job_whose_worker_is_killed_goes_on_where_it_was(tmp_path, ray) -> None:
    jobs = [
        counting(tmp_path, "worker", killed_at=5, victim="os.getppid()"),
        counting(tmp_path, "itself", killed_at=5),
        Job("wrong", [sys.executable, "-c", "print('error: no such file'); exit(2)"], tmp_path, tmp_path / "w.log"),
    ]
    states = executors.run(jobs, RAY, tmp_path)
    assert [(state.phase, state.attempts) for state in states.values()] == [
        (Phase.DONE, 2),
        (Phase.DONE, 2),
        (Phase.FAILED, 1),
    ]
    assert {(tmp_path / f"{name}.txt").read_text() for name in ("worker", "itself")} == {"0 1 2 3 4 5 6 7 8 9"}
    assert states["wrong"].reason == "no such file"
    assert [line for line in jobs[0].log.read_text().splitlines() if "from" in line] == ["from 0", "from 5"]


def test_a_signal_lets_the_jobs_save(tmp_path, ray) -> None:
    assert status_of_interrupted(tmp_path, RAY) == 130


def test_memory_that_runs_out_is_retried_less_often(tmp_path, ray, monkeypatch) -> None:
    def runs_out(ref: object) -> None:
        raise ray.exceptions.OutOfMemoryError("memory ran out\nand more")

    monkeypatch.setattr(ray, "get", runs_out)
    settings = ExecutorConfig(kind="ray", retries=5)
    state = executors.run([counting(tmp_path, "a", steps=1)], settings, tmp_path)["a"]
    assert (state.phase, state.attempts, state.reason) == (Phase.FAILED, 2, "memory ran out")


def test_a_cluster_that_is_not_there_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'found nothing installed.*pip install -e "\.\[ray\]"'):
        executors.run([counting(tmp_path, "a")], RAY, tmp_path)
    with pytest.raises(InputError, match="city.executor.kind: ray: found nothing installed"):
        executors.check_executor(RAY)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    nowhere = ExecutorConfig(kind="ray", ray=RayConfig(address="127.0.0.1:1"))
    with pytest.raises(InputError, match=r"address: found 127\.0\.0\.1:1 \(.*refused\), expected the address of"):
        executors.run([counting(tmp_path, "a")], nowhere, tmp_path)
    with pytest.raises(InputError, match=r"city.executor.ray: address: found 127\.0\.0\.1:1"):
        executors.check_executor(nowhere)
