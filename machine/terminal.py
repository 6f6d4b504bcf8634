"""Where what a command prints goes to: a terminal, or a file that keeps all of it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
_LIVE, _KEPT = 0.5, 30.0
_LATE = 3.0  # seconds
_log = logging.getLogger(__name__)


def redraw_seconds() -> float:
    """How often the bar of long work is drawn anew: in a batch job's log every drawing stays, a line each."""
    return _LIVE if sys.stderr is not None and sys.stderr.isatty() else _KEPT


def progress_bar(
    items: Iterable[T] | None = None, desc: str = "", total: float | None = None, **options: object
) -> tqdm[T]:
    """The bar of long work, on stderr; all bars of this program are made here.

    Args:
        items: what is gone through; None: ``update`` says how far it is.
        desc: what is done, in a word.
        options: others of tqdm's.
    """
    seconds = redraw_seconds()
    # tqdm draws a bar that has stood still for ``maxinterval`` seconds, however rarely it is asked to.
    options = {"mininterval": seconds, "maxinterval": max(10.0, seconds), "dynamic_ncols": True} | options
    return tqdm(items, desc, total, **options)


def late_bar(items: Iterable[T], desc: str, total: float | None = None, unit: str = "it") -> tqdm[T]:
    """The bar of what is over in a moment where a scene is small: it appears after three seconds, and does not stay."""
    return progress_bar(items, desc, total, unit=unit, delay=_LATE, leave=False)


@contextmanager
def late_word(text: str) -> Iterator[None]:
    """Around work of unknown length, which takes a moment where a scene is small: after three seconds the log says what
    is done.
    """
    timer = threading.Timer(_LATE, _log.info, args=("%s", text))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
