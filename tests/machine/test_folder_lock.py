"""One process at a time writes to a folder, and a dead one none."""

import subprocess
import sys
import time

import pytest

from machine.folder_lock import locked
from settings.errors import InputError
from settings.loading import REPO_ROOT


def test_a_folder_is_held_once_and_left_as_it_was(tmp_path):
    folder = tmp_path / "new" / "run"
    with locked(folder), pytest.raises(InputError, match="in use by process .* on .*another run name"), locked(folder):
        pass
    assert not list(tmp_path.iterdir())
    with locked(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_killed_process_holds_nothing(tmp_path):
    code = "import sys, time, pathlib; from machine.folder_lock import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=REPO_ROOT)
    end = time.monotonic() + 60
    while not (tmp_path / ".lock").exists() or not (tmp_path / ".lock").read_text():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    with pytest.raises(InputError, match=f"in use by process {process.pid} on "), locked(tmp_path):
        pass
    process.kill()
    process.wait()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
