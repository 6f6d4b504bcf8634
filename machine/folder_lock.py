"""A folder that one process at a time writes to."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from settings.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: folders go unlocked there
    fcntl = None

_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder, which is made if need be; a folder that is empty in the end is taken away again.

    The system itself takes the lock from a process that dies. File systems that know no locks leave it at trying.

    Raises:
        InputError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        if fcntl is None:  # Windows deletes no file that is open
            os.close(descriptor)
        path.unlink(missing_ok=True)  # while it is held: whoever waits for this very file sees that it is gone
        if fcntl is not None:
            os.close(descriptor)
        for empty in made:
            with suppress(OSError):
                empty.rmdir()


def _acquire(path: Path) -> int:
    """A descriptor of the file at ``path``, locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            hint = "Wait until it has ended or stop it, or choose another run name or --output."
            expected = "a folder that no other process writes to"
            raise InputError(path.parent, "run folder", f"in use by {holder}", expected, hint) from error
        except OSError:
            pass  # the file system has no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its holder deleted it between our opening and locking it
