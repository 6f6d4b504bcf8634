"""A thread pool for GIL-free numba kernels.

Numba's own ``parallel=True`` compiles several times slower and its OpenMP pool spins against torch's; kernels
here are compiled serial with ``nogil=True`` and run over index ranges from this pool instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

# Options of numba's njit. Fast arithmetic is all but what supposes that values are finite: one that is not must reach
# the parameters.
COMPILED = {"cache": True, "nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
FAST = COMPILED | {"fastmath": {"reassoc", "contract", "arcp", "nsz", "afn"}}
# Besides these, for functions that only other kernels call: a wrapper for calls from Python takes each of their arrays
# apart, and as long to compile as some of them.
UNCALLED = {"no_cpython_wrapper": True}
# Besides these, where no array is made in them, callees included: without counts of references too, a kernel of many
# such parts takes a third less to compile.
INNER = UNCALLED | {"_nrt": False}
# Arguments of inner functions that are numbers: one would be compiled once more for a literal.
FIRST, SECOND = np.int64(0), np.int64(1)
# OpenBLAS multiplies matrices up to this many multiply-adds on the calling thread; larger ones would make our threads
# wait for its own pool.
SINGLE_THREAD_GEMM = 262144


def available_threads() -> int:
    """Number of CPU threads this process may use (its affinity mask, or ``NUMBA_NUM_THREADS`` if smaller)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, int(os.environ.get("NUMBA_NUM_THREADS", usable))))


def limit_threads(count: int) -> None:
    """Sets how many CPU threads kernels run on, here and in programs started from here: at least 1.

    Numba, whose own threads other packages' kernels use, reads the variable when it is imported and then not before it
    compiles something: too late where such a kernel has been run from the cache.

    Raises:
        RuntimeError: numba's own threads run already, and are not as many.
    """
    os.environ["NUMBA_NUM_THREADS"] = str(count)
    numba.config.reload_config()


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


def parallel_for(kernel: Callable[..., None], count: int, *args: Any, grain: int, threads: int | None = None) -> None:
    """Runs ``kernel(start, stop, *args)`` over ``[0, count)`` in chunks of ``grain`` indices; tensors become arrays.

    The chunk bounds depend on ``count`` and ``grain`` alone, so a kernel that writes a partial sum to slot
    ``start // grain`` gives the same bits for any number of threads. The calling thread takes chunks too: a step of
    training calls kernels so often that waking threads for each chunk took it a tenth of its time.

    Raises:
        Whatever the kernel raises first; no chunk is still running then.
    """
    threads = threads or available_threads()
    # Some 150 tensors in a step of training: ``detach`` is no more than a copy for what has no gradient.
    args = tuple(
        (arg.detach() if arg.requires_grad else arg).numpy() if isinstance(arg, Tensor) else arg for arg in args
    )
    starts = range(0, count, grain)
    left = iter(starts)  # of all threads: the interpreter's lock lets one at a time take the next

    def take() -> None:
        for start in left:
            kernel(start, min(start + grain, count), *args)

    helpers = [_pool(threads - 1).submit(take) for _ in range(min(threads, len(starts)) - 1)]
    try:
        take()
    finally:
        # One that has not begun, its thread being busy for another caller, is not waited for.
        errors = [helper.exception() for helper in helpers if not helper.cancel()]
    for error in errors:
        if error is not None:
            raise error


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Runs torch serially for a while: beside busy threads its own pool mostly waits for a core.

    Measured on loading 100 views at 400x400 with two cores that others use too: 4 s each time, against 3 to 30 s.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
