import os
import subprocess
import sys
import threading
import time

import pytest

from kernels.threads import available_threads, parallel_for


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [(0, 1)]), (8, [(0, 4), (4, 8)]), (9, [(0, 4), (4, 8), (8, 9)])]
)
def test_chunks_cover_the_range_whatever_the_threads(threads, count, expected):
    chunks = []
    parallel_for(lambda start, stop, tag: chunks.append((start, stop, tag)), count, "tag", grain=4, threads=threads)
    assert sorted(chunks) == [(start, stop, "tag") for start, stop in expected]


def test_chunks_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=20)
    parallel_for(lambda start, stop: meeting.wait(), 2, grain=1, threads=2)


def test_one_thread_is_the_calling_one():
    names = []
    parallel_for(lambda start, stop: names.append(threading.current_thread()), 3, grain=1, threads=1)
    assert names == [threading.current_thread()] * 3


def test_an_error_comes_after_a_chunk_that_ran_beside_it_has_ended():
    meeting, ended = threading.Barrier(2, timeout=20), []

    def kernel(start, stop):
        meeting.wait()
        if start == 0:
            raise ZeroDivisionError("chunk 0")
        time.sleep(0.05)
        ended.append(start)

    with pytest.raises(ZeroDivisionError, match="chunk 0"):
        parallel_for(kernel, 2, grain=1, threads=2)
    assert ended == [1]


def test_the_calling_thread_takes_chunks_too_and_an_error_of_either_thread_is_raised():
    meeting, names = threading.Barrier(2, timeout=20), set()

    def kernel(start, stop):
        meeting.wait()
        names.add(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError("the other thread's")

    with pytest.raises(ZeroDivisionError, match="the other thread's"):
        parallel_for(kernel, 2, grain=1, threads=2)
    assert len(names) == 2 and threading.main_thread() in names


def test_a_caller_does_not_wait_for_threads_that_are_busy():
    taken = []

    def outer(start, stop):
        parallel_for(lambda first, last: taken.append((start, first)), 4, grain=1, threads=2)

    parallel_for(outer, 6, grain=1, threads=2)
    assert sorted(taken) == [(a, b) for a in range(6) for b in range(4)]


def test_available_threads_obeys_the_environment_and_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert available_threads() == 6
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    assert available_threads() == 2
    monkeypatch.setenv("NUMBA_NUM_THREADS", "16")
    assert available_threads() == 6
    monkeypatch.setenv("NUMBA_NUM_THREADS", "0")
    assert available_threads() == 1


def test_a_limit_reaches_numbas_own_threads_though_numba_has_read_the_environment():
    told = "print(numba.config.NUMBA_NUM_THREADS, threads.available_threads())"
    # Without torch, which has no part in it and takes most of the time to import.
    no_torch = "import sys, types; sys.modules['torch'] = types.SimpleNamespace(Tensor=object)"
    program = f"{no_torch}; import numba; from kernels import threads; threads.limit_threads(1); {told}"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
