"""A run looked at while it trains: ``logging.view``. Drawn between steps, and only when a browser asks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distill.viewer.browser_view import BrowserView, import_viser
from distill.viewer.render_worker import RenderWorker
from distill.viewer.subjects import Subject
from settings.config import Config

REFRESH_SHARE = 0.05
"""Of the time, at most, a picture whose camera rests is drawn anew for, from newer weights."""
HOST, PORT = "127.0.0.1", 8080
_log = logging.getLogger(__name__)


def check_view(config: Config) -> None:
    """Refuses before a long run what would fail in it.

    Raises:
        InputError: ``logging.view`` is on and viser is missing or broken.
    """
    if config.logging.view:
        import_viser("logging.view")


class BetweenSteps:
    """Takes a worker's turns between training steps.

    Args:
        worker: draws; nothing where it has no client.
        clock: seconds.
    """

    def __init__(self, worker: RenderWorker, clock: Callable[[], float] = time.perf_counter) -> None:
        self._worker, self._clock = worker, clock
        self._spent, self._rests_until, self._has_failed = 0.0, 0.0, False

    def __call__(self) -> float:
        """Draws a piece if one is wanted; the seconds that took, which are not training's.

        Where that fails, for want of memory perhaps, it warns and draws no more: training goes on.
        """
        if self._has_failed or not self._worker.is_watched:
            return 0.0
        start = self._clock()
        try:
            has_drawn = self._worker.turn()
        except (RuntimeError, MemoryError, OSError) as error:
            self._has_failed = True
            _log.warning("the run goes on but is no longer shown, since a picture could not be drawn: %s", error)
            return self._clock() - start
        if has_drawn:
            seconds = self._clock() - start
            self._spent += seconds
            self._rests_until = start + self._spent / REFRESH_SHARE
            return seconds
        if start >= self._rests_until:
            self._spent = 0.0
            self._worker.refresh()
        return 0.0


@contextmanager
def watched(subject: Subject, width: int) -> Iterator[Callable[[], float]]:
    """Serves a training student to browsers; gives what is to be called between steps.

    Args:
        width: the longest side of full pictures in pixels, at first.

    Raises:
        InputError: as ``BrowserView``.
    """
    view = BrowserView(subject, HOST, PORT, width, begin=subject.pictures.renew)
    _log.info("the run can be looked at in a browser: %s", view.url)
    try:
        yield BetweenSteps(view.worker)
    finally:
        view.close()
