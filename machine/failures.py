"""What fails though the input is right: disks, permissions, memory, GPUs, and terminals that are gone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import torch

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_FULL_HINT = " Make room and run it again; what was finished before is whole."
_MEMORY_HINT = "Use fewer or smaller views, a smaller student or fewer samples a step, or end other programs."
_GPU_HINT = "CUDA_LAUNCH_BLOCKING=1 before the command and --debug after it show where."
_GPU_WORDS = ("CUDA error", "Triton Error [CUDA]")  # torch has a class for it since version 2.8, Triton none
_TRITON_ERRORS = "triton.runtime.errors"  # a module that need not be there: what a GPU has too little of, or is too new
_TRITON_HINT = "--set kernels=torch goes without compiled kernels, several times slower."
# Of torch, which has no exception of its own for the processor's memory, and of threads.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "can't start new thread")


def machine_failure(error: BaseException, going_on: str = "") -> str | None:
    """What failed, in one line, where it is the machine; None: the error is the program's own.

    Args:
        going_on: how the command goes on from where it was, a sentence; empty: it has nothing to go on from.
    """
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename is not None else ""
        text = error.strerror or " ".join(str(error).split()) or type(error).__name__
        if error.errno in _FULL:
            return f"{named}{text}.{_FULL_HINT}{going_on and f' {going_on}'}"
        return f"{named}{text}.{' Choose a shorter one.' if is_name_too_long(error) else ''}"
    told = str(error).strip().splitlines()
    if type(error).__module__ == _TRITON_ERRORS:
        return f"the GPU: {(told or [type(error).__name__])[0][:200].rstrip('.')}. {_TRITON_HINT}"
    is_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    is_memory |= isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY_WORDS)
    if not is_memory and isinstance(error, RuntimeError) and told and told[0].startswith(_GPU_WORDS):
        return f"the GPU: {told[0][:200]}. {_GPU_HINT}"
    if not is_memory:
        return None
    return f"out of memory{f' ({told[0][:200]})' if told else ''}. {_MEMORY_HINT}"


def is_name_too_long(error: BaseException) -> bool:
    """Whether a path that was asked for is one that the file system cannot have: then it is the input that is wrong."""
    return isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG


def is_machines_fault(error: OSError) -> bool:
    """Whether the machine is at fault, not the path: the disk is full or broken, or memory or handles ran out."""
    return error.errno in {*_FULL, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


class ForgivingStream:
    """A text stream whose reader may go away: from then on what is written is dropped.

    Attributes:
        error: why it could not be written; None: it could.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream if stream is not None else open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        self.error: Exception | None = None
        with suppress(AttributeError, ValueError, OSError):
            self._stream.reconfigure(errors="backslashreplace")  # a locale may lack letters of a path

    def write(self, text: str) -> int:
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._attempt(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, work: Any) -> None:
        if self.error is not None:
            return
        try:
            work()
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.error = error
            with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())  # else what is buffered fails again at exit


@contextmanager
def forgiving_output() -> Iterator[ForgivingStream]:
    """While it runs, stdout and stderr may go away without ending the program; gives stdout."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed: a file opened later would take its place, and receive what is meant for a terminal
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams = ForgivingStream(before[0]), ForgivingStream(before[1])
    try:
        yield streams[0]
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
