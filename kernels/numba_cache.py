"""Where numba keeps compiled kernels: a folder that can be written to, and another one after every change of theirs.

Numba compiles a kernel anew when its own file has changed, but not when a function of another file has that is compiled
into it: a new version of this program would run parts of the one before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"
_PREFIX = "numba-"
_OUTDATED_SECONDS = 24 * 3600.0  # no process that was started with the kernels of then saves any more of them


def place_numba_cache() -> None:
    """Gives numba the first folder that it can have: the user's choice, beside the source, in the user's home.

    Else it is given one in the temporary folder, and without that it compiles anew in each run.
    """
    name = _PREFIX + _digest_of_kernels()
    chosen, beside = os.environ.get(_VARIABLE), Path(__file__).parent / "__pycache__"
    if chosen and Path(chosen).name == name:
        return  # by the process that started this one
    folders = [Path(chosen)] if chosen else []
    folders += [beside, Path(os.path.expanduser("~")) / ".cache" / "lego-response-distill"]
    folder = next((folder for folder in folders if _can_write(folder)), None) or _own_temporary_folder()
    if folder is not None:
        if folder == beside:
            _remove_outdated(folder, name)
        os.environ[_VARIABLE] = str(folder / name)
        return
    from numba.core.dispatcher import Dispatcher

    Dispatcher.enable_caching = lambda self: None


def _digest_of_kernels() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for source in sorted(folder.rglob("*.py")):
        if not source.stem.endswith("_triton"):
            digest.update(source.relative_to(folder).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:12]


def _remove_outdated(folder: Path, name: str) -> None:
    for other in folder.glob(f"{_PREFIX}*"):
        if other.name != name and time.time() - other.stat().st_mtime > _OUTDATED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def _own_temporary_folder() -> Path | None:
    """A folder that nobody else can write to, since what numba finds there it runs; None: there is none."""
    try:
        user = os.getuid() if hasattr(os, "getuid") else 0
        folder = Path(tempfile.gettempdir()) / f"lego-response-distill-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        is_ours = not hasattr(os, "getuid") or (status.st_uid == user and not status.st_mode & 0o022)
        return folder if is_ours and _can_write(folder) else None
    except OSError:
        return None


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
