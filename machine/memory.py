"""How much memory there is, how much this process takes, and the refusal of what clearly does not fit."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from settings.errors import InputError

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None

MIB, GIB = 2**20, 2**30
_MEMINFO = Path("/proc/meminfo")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes
_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# Of control groups of version 2 and 1: what a group may take, what it takes, and what of that is files' pages, by their
# name in memory.stat, which it gives back when it is asked to.
_GROUP_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def size_in_words(count: float) -> str:
    """Bytes in the unit that leaves something before the decimal point."""
    for unit, bytes_each in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if count >= bytes_each:
            return f"{count / bytes_each:.2f} {unit}"
    return f"{count:.0f} bytes"


def available_bytes() -> int | None:
    """Memory that this process may still get, swap included, under the limits of its container and of all groups that
    it is in, as Slurm's or systemd's; None: nothing tells.
    """
    return min(_known_limits(), default=None)


def check_pictures_fit(
    size: tuple[int, int], count: int, pixel_bytes: int, field: str, source: str = "config", more: str = ""
) -> None:
    """Checks that pictures that are all in memory at a time can be; only what is clearly too much is refused.

    Args:
        size: (width, height) of each, pixels.
        pixel_bytes: what a pixel takes at least.
        field, source: the setting that the size is from, and where that is.
        more: what else can be done, in words.

    Raises:
        InputError: they take more memory than there is; says how much and which width would fit.
    """
    available, needed = available_bytes(), count * size[0] * size[1] * pixel_bytes
    if available is not None and needed > available:
        found = f"{size[0]}: {count} of {size[0]}x{size[1]} pixels, which take {needed / GIB:,.1f} GiB of memory"
        width = int(size[0] * math.sqrt(available / needed / 2))  # half of the memory
        hint = f"Set it to {width} or less{', or use fewer frames' if count > 1 else ''}{more and f', {more}'}."
        raise InputError(source, field, found, f"at most the {available / GIB:.1f} GiB that are free", hint)


class ResidentMemory:
    """How much memory this process has in RAM beyond what it has when this is made, its base; Linux tells.

    Attributes:
        base: bytes; None where the system does not tell.
        peak: most bytes beyond the base at the end of any stretch so far.
    """

    def __init__(self) -> None:
        give_back_freed()
        self.base, self.peak = _status_bytes("VmRSS"), 0
        self._restart()

    def stretch(self) -> int | None:
        """Most bytes beyond the base since this was made or last asked; None where the system does not tell."""
        high = None if self.base is None else _status_bytes("VmHWM")
        if high is None:
            return None
        self._restart()
        self.peak = max(self.peak, high - self.base)
        return high - self.base

    def _restart(self) -> None:
        """Has the system start a new peak."""
        try:
            _RESET.write_text("5", encoding="ascii")
        except OSError:
            self.base = None


def children_cost() -> tuple[float, int] | None:
    """What the finished child processes of this process took; None where the system does not tell.

    Returns:
        Processor time of all, theirs included, s; most memory in RAM of any, bytes: at least what this process had when
        it started that one, since the system counts from there.
    """
    if resource is None or not (usage := resource.getrusage(resource.RUSAGE_CHILDREN)).ru_maxrss:
        return None
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_UNIT


def cpu_peak_gib() -> float | None:
    """Most memory in GiB that this process has had in RAM at a time; None where the system does not tell."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT / GIB


def give_back_freed() -> None:
    """Has the C library return freed memory to the system, where it is glibc, which otherwise keeps some of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int | None:
    """A line of what the system tells about this process."""
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
        return 1024 * int(lines[name].split()[0])
    return None


def _known_limits() -> Iterator[int]:
    with suppress(OSError, ValueError):
        lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="utf-8").splitlines())
        yield sum(1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree") if name in lines)
    for folder, (limit, usage, pages) in _groups():
        with suppress(OSError, ValueError):  # "max": none
            most = int((folder / limit).read_text(encoding="utf-8"))
            taken = int((folder / usage).read_text(encoding="utf-8"))
            lines = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
            yield max(0, most - taken + int(lines.get(pages, 0)))


def _groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of this process's groups and of those that these are in, with the names of their files."""
    own = {"": "/", "memory": "/"}  # in a container its own group may be the root of what it sees
    with suppress(OSError, ValueError):
        lines = (line.split(":", 2) for line in _GROUP.read_text(encoding="utf-8").splitlines())
        own |= {name: path for _, names, path in lines for name in names.split(",")}
    for name, version, root in (("", 2, _GROUPS), ("", 2, _GROUPS / "unified"), ("memory", 1, _GROUPS / "memory")):
        path = root / own[name].strip("/")
        for folder in (path, *path.parents):
            yield folder, _GROUP_FILES[version]
            if folder == root:
                break
