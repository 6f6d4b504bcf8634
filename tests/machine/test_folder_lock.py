"""One process at a time writes to a folder, and a dead one none."""

import os
import subprocess
import sys
import time

import pytest

from machine import folder_lock
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


def test_without_the_modules_of_unix_a_folder_is_written_to_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "fcntl", None)
    for name in ("pread", "pwrite"):
        monkeypatch.delattr(os, name)
    with folder_lock.locked(tmp_path / "run"):
        assert (tmp_path / "run/.lock").read_text().startswith(f"process {os.getpid()} on ")
        (tmp_path / "run/file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]
