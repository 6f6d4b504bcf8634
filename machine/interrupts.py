"""Ctrl-C that ends a loop after the step it falls in, so that what is saved is whole."""

from __future__ import annotations

import signal
from types import TracebackType


class Interrupt:
    """While its ``with`` block runs, the first Ctrl-C only sets ``asked``; a second one interrupts at once.

    Outside the main thread signals cannot be caught: there it leaves interrupts to the caller.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: object = None
        self._installed = False

    def __enter__(self) -> Interrupt:
        try:
            self._previous = signal.signal(signal.SIGINT, self._ask)
            self._installed = True
        except ValueError:  # not the main thread
            self._installed = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
