"""Ends that nobody planned: signals that let a loop finish its step, and the clock that says when to save."""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Ctrl-C; what clusters and ``kill`` send; a terminal that closes; a batch system's warning that time is nearly over.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_UNDISTURBED = 1.0  # s, for files to be tidied up; people press Ctrl-C twice
_PATIENCE = 3  # signals after which a loop no longer waits for its step
_PROGRAMS = (Path(__file__).resolve().parents[1], Path(__file__).resolve().parents[1] / "tools")
_raised: int | None = None  # the signal that ``signals_stop`` raised for


class Stopped(KeyboardInterrupt):
    """A signal that ends the program.

    Attributes:
        status: the exit status that says so, 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def end_at_once_while_starting() -> None:
    """Where one of this checkout's programs starts, Ctrl-C ends it without a traceback until ``signals_stop`` runs."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    if main is not None and Path(main).resolve().parent in _PROGRAMS:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, _end_at_once)


@contextmanager
def signals_stop() -> Iterator[None]:
    """While it runs, the signals raise ``Stopped``, so that files are left whole; the next second cannot disturb that.

    Python drops an exception that comes while it tidies up an object or calls back from C: so later signals raise it
    again, the next ``Interrupt`` is asked to stop from its beginning, and ``stop_behind`` knows of it. Nothing is
    printed of one that is dropped.
    """
    global _raised
    last = -math.inf

    def stop(number: int, _: object) -> None:
        global _raised
        nonlocal last
        if time.monotonic() - last < _UNDISTURBED:
            return
        last, _raised = time.monotonic(), number
        atexit.register(_ignore_signals)  # a second Ctrl-C may come while Python shuts down
        raise Stopped(number)

    def tell(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, Stopped):
            told_before(dropped)

    before, told_before, sys.unraisablehook = _handle(stop), sys.unraisablehook, tell
    try:
        yield
    finally:
        _raised, sys.unraisablehook = None, told_before
        _restore(before)


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The signal's exception, if C code turned it into this one, as numba's dispatcher does, or dropped it, from which
    this one came, as llvmlite does while it compiles.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return Stopped(_raised) if cause is None and _raised is not None else cause


class Interrupt:
    """While its ``with`` block runs, a signal only sets ``signal``; the third one stops at once.

    Outside the main thread signals cannot be caught: there it leaves them to the caller.

    Attributes:
        signal: number of the signal that asks to stop; None: none does.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._count = 0
        self._before: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def __enter__(self) -> Interrupt:
        self._before = _handle(self._ask)
        self.signal = _raised
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    def _ask(self, number: int, _: object) -> None:
        self.signal, self._count = self.signal or number, self._count + 1
        if self._count >= _PATIENCE:
            raise Stopped(self.signal)


class SaveClock:
    """Says when so many minutes have passed since it last said so; None: never."""

    def __init__(self, minutes: float | None) -> None:
        self._seconds = None if minutes is None else 60 * minutes
        self._since = time.monotonic()

    def due(self) -> bool:
        """Whether they have; if so they begin anew."""
        if self._seconds is None or time.monotonic() - self._since < self._seconds:
            return False
        self._since = time.monotonic()
        return True


def _handle(handler: Callable[[int, object], None]) -> dict[int, object]:
    """Installs a handler of all signals; what handled them before."""
    before: dict[int, object] = {}
    for number in _SIGNALS:
        # ``nohup`` has a hangup ignored, and wants it so. A shell has Ctrl-C ignored in what it runs in the background.
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            try:
                before[number] = signal.signal(number, handler)
            except ValueError:  # not the main thread
                break
    return before


def _restore(before: dict[int, object]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _end_at_once(number: int, _: object) -> None:
    """Ends the process whatever it is importing, some of which makes another error of an exception."""
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
