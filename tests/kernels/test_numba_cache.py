"""Where compiled kernels are kept, down to nowhere."""

import os
import time
from pathlib import Path

import pytest

from kernels import numba_cache

SOURCE = Path(numba_cache.__file__).parent / "__pycache__"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Places the cache where only the folders named can be written to; what the environment says then."""

    def _place(*writable: Path, chosen: Path | None = None) -> Path | None:
        monkeypatch.setattr(numba_cache, "_can_write", lambda folder: folder in writable)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(chosen)) if chosen else monkeypatch.delenv("NUMBA_CACHE_DIR", False)
        numba_cache.place_numba_cache()
        found = os.environ.get("NUMBA_CACHE_DIR")
        return Path(found) if found else None

    return _place


def test_the_first_folder_that_can_be_written_to(tmp_path, place, monkeypatch):
    monkeypatch.setattr(numba_cache, "_digest_of_kernels", lambda: "now")
    home = Path(os.path.expanduser("~")) / ".cache" / "lego-response-distill"
    own = tmp_path / f"lego-response-distill-{os.getuid()}"
    assert place(SOURCE, home, own) == SOURCE / "numba-now"
    assert place(home, own) == home / "numba-now"
    assert place(own) == own / "numba-now" and own.stat().st_mode & 0o777 == 0o700
    assert place(tmp_path, SOURCE, chosen=tmp_path) == tmp_path / "numba-now"
    assert place(own, chosen=tmp_path / "read_only") == own / "numba-now"


def test_a_process_started_by_another_takes_its_folder(place, tmp_path):
    theirs = place(tmp_path, chosen=tmp_path)
    assert place(tmp_path, theirs, chosen=theirs) == theirs


def test_another_folder_after_a_change_of_any_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(numba_cache, "__file__", str(tmp_path / "numba_cache.py"))
    source, found = tmp_path / "march_numba.py", set()
    for text in ("a = 1", "a = 2", "a = 1"):
        source.write_text(text)
        found.add(numba_cache._digest_of_kernels())
    assert len(found) == 2


def test_what_kernels_of_days_ago_left_is_removed(tmp_path):
    old, recent, now = (tmp_path / name for name in ("numba-old", "numba-recent", "numba-now"))
    for folder in (old, recent, now):
        folder.mkdir()
    for folder in (old, now):
        os.utime(folder, (time.time() - 1e6,) * 2)
    numba_cache._remove_outdated(tmp_path, "numba-now")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numba-now", "numba-recent"]


def test_without_any_folder_kernels_are_compiled_anew(tmp_path, place, monkeypatch):
    from numba.core.dispatcher import Dispatcher

    monkeypatch.setattr(Dispatcher, "enable_caching", Dispatcher.enable_caching)
    own = tmp_path / f"lego-response-distill-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)  # another user could put code there
    before = Dispatcher.enable_caching
    assert place(own) is None and Dispatcher.enable_caching is not before
