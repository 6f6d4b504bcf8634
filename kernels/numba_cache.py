"""Where numba keeps compiled kernels: it refuses to compile where it finds no folder that it can write to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_VARIABLE = "NUMBA_CACHE_DIR"


def place_numba_cache() -> None:
    """Leaves numba its folder where it can have one: the user's choice, the source's own, or one in the user's home.

    Else it is given one in the temporary folder, and without that it compiles anew in each run.
    """
    chosen = os.environ.get(_VARIABLE)
    if chosen and _can_write(Path(chosen), make=True):
        return
    if _can_write(Path(__file__).parent / "__pycache__", make=True) or _can_write(Path(os.path.expanduser("~"))):
        os.environ.pop(_VARIABLE, None)
        return
    folder = _own_temporary_folder()
    if folder is not None:
        os.environ[_VARIABLE] = str(folder)
        return
    from numba.core.dispatcher import Dispatcher

    Dispatcher.enable_caching = lambda self: None


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


def _can_write(folder: Path, make: bool = False) -> bool:
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
