"""Training on a device whose tensors cannot meet the CPU's: rounded weights, planes and directions among it."""

import subprocess
import sys

import pytest

from settings.loading import REPO_ROOT
from tests.separate_device import STUDENTS, is_there
from tests.toy_scene import write_toy_scene


@pytest.mark.skipif(not is_there(), reason="this version of torch cannot be given a device")
def test_students_train_there_as_on_the_cpu_to_their_compact_files(tmp_path):
    command = [sys.executable, "-m", "tests.separate_device", str(write_toy_scene(tmp_path))]
    result = subprocess.run(command, cwd=REPO_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    figures = {name: float(figure) for name, figure in map(str.split, result.stdout.splitlines())}
    assert figures.pop("refused") == 3  # of three ways to meet the CPU's tensors
    assert figures.keys() == STUDENTS.keys() and max(figures.values()) < 1e-4
