"""Where compiled kernels are kept, down to nowhere."""

import os
from pathlib import Path

import pytest

from kernels import numba_cache


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Places the cache where only the folders named can be written to; what the environment says then."""

    def _place(*writable: Path, chosen: Path | None = None) -> str | None:
        monkeypatch.setattr(numba_cache, "_can_write", lambda folder, make=False: folder in writable)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(chosen)) if chosen else monkeypatch.delenv("NUMBA_CACHE_DIR", False)
        numba_cache.place_numba_cache()
        return os.environ.get("NUMBA_CACHE_DIR")

    return _place


def test_the_first_folder_that_can_be_written_to(tmp_path, place):
    source, home = Path(numba_cache.__file__).parent / "__pycache__", Path(os.path.expanduser("~"))
    own = tmp_path / f"lego-response-distill-{os.getuid()}"
    assert place(source, home, own) is None and place(home, own) is None
    assert place(own) == str(own) and own.stat().st_mode & 0o777 == 0o700
    assert place(tmp_path, source, chosen=tmp_path) == str(tmp_path)
    assert place(own, chosen=tmp_path / "read_only") == str(own)


def test_without_any_folder_kernels_are_compiled_anew(tmp_path, place, monkeypatch):
    from numba.core.dispatcher import Dispatcher

    monkeypatch.setattr(Dispatcher, "enable_caching", Dispatcher.enable_caching)
    own = tmp_path / f"lego-response-distill-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)  # another user could put code there
    before = Dispatcher.enable_caching
    assert place(own) is None and Dispatcher.enable_caching is not before
