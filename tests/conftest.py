"""Who runs the tests: this process, or workers that it hands them out to."""

import os
from collections import Counter
from pathlib import Path

import pytest

# Each test of theirs takes as long as hundreds of others.
_LONGEST = "test_triton_compiles.py", "test_separate_device.py"


def pytest_collection_modifyitems(items):
    """Workers take a file each: those of few tests come last, and none that takes long, for which others would wait."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in _LONGEST, -tests[item.path]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """A process per core, four at most as each holds torch; none besides this one for the tests of one file."""
    alone = len(config.args) == 1 and Path(config.args[0].split("::")[0]).is_file()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if alone else min(cores, int(os.environ.get("NUMBA_NUM_THREADS", cores)), 4)


def pytest_configure(config):
    """Takes what tests share where tests are run: who only hands them out has no use for torch, nor waits for it."""
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("tests.shared_fixtures")
