"""From where a client looks to its picture: coarse at once, then in full, piece by piece, when the camera rests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from distill.viewer.viewpoints import Viewpoint
from scene.cameras import Cameras

COARSE_S = 0.05
"""What a coarse picture is to take."""
PIECE_S = 0.08
"""What a piece of the full picture is to take: so long a camera that moves on may have to wait."""
REST_S = 0.15
"""A camera rests that has not moved for so long."""
_LEAST_WIDTH = 48  # of a coarse picture
_MOST_PIECES = 16  # of a full one: what a piece costs whatever its size is paid so often
_FIRST_SHARE = 1 / 64  # of a picture's pixels, while nothing is known of what they cost

Parts = dict[str, float]
"""Seconds by what they were spent on."""
Draw = Callable[[str, Cameras], tuple[np.ndarray, Parts]]
"""Draws the one camera in a mode: (H, W, 3) uint8, and what took how long. Each row must not depend on the others."""


@dataclass(frozen=True)
class Look:
    """What a client wants to see, at ``width`` x ``height`` pixels in full."""

    mode: str
    viewpoint: Viewpoint
    width: int
    height: int


class Picture(NamedTuple):
    """What it gets: image (h, w, 3) uint8, the seconds it took by part, and whether it is the full one."""

    image: np.ndarray
    parts: Parts
    is_full: bool


@dataclass
class _Task:
    """A client's wish, and how far it is fulfilled."""

    look: Look
    asked_at: float
    is_fresh: bool = True  # nothing of it has been shown yet
    is_done: bool = False
    rows: list[np.ndarray] = field(default_factory=list)
    parts: Parts = field(default_factory=dict)


class RenderWorker:
    """Draws for any number of clients, one piece at a time; the newest wish of each counts, older ones are abandoned.

    Wishes come from any thread; ``turn`` is for one alone.

    Args:
        draw: see ``Draw``.
        show: takes a client's picture; on the thread of ``turn``.
        begin: called before each picture, be it drawn whole or in pieces.
        clock: seconds.
    """

    def __init__(
        self,
        draw: Draw,
        show: Callable[[int, Look, Picture], None],
        begin: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._draw, self._show, self._begin, self._clock = draw, show, begin, clock
        self._tasks: dict[int, _Task] = {}
        self._changed = threading.Condition()
        # Pixels that a mode's coarse picture and its pieces are to have: the cost of the last one told.
        self._pixels: dict[tuple[str, float], float] = {}

    def ask(self, client: int, look: Look) -> None:
        """The client wants to see this from now on; without effect where it does already."""
        with self._changed:
            task = self._tasks.get(client)
            if task is None or task.look != look:
                self._tasks[client] = _Task(look, self._clock())
                self._changed.notify()

    def forget(self, client: int) -> None:
        """The client has gone."""
        with self._changed:
            self._tasks.pop(client, None)

    def refresh(self) -> None:
        """What is drawn has changed: full pictures that were shown are to be drawn anew, without coarse ones."""
        with self._changed:
            for client, task in self._tasks.items():
                if task.is_done:
                    self._tasks[client] = _Task(task.look, self._clock() - REST_S, is_fresh=False)
            self._changed.notify()

    @property
    def is_watched(self) -> bool:
        """Whether there is a client."""
        return bool(self._tasks)

    def turn(self) -> bool:
        """Draws the next piece of what is wanted, if there is any to be drawn now; whether there was."""
        with self._changed:
            client = self._next()
            if client is None:
                return False
            task = self._tasks[client]
        if task.is_fresh:
            self._draw_coarse(client, task)
        else:
            self._draw_piece(client, task)
        return True

    def run(self, stop: threading.Event) -> None:
        """Takes turns until told to stop."""
        while not stop.is_set():
            if not self.turn():
                with self._changed:
                    if self._next() is None:
                        self._changed.wait(REST_S / 3)

    def _next(self) -> int | None:
        """The client whose turn it is: those whose camera has moved first."""
        now = self._clock()
        for client, task in self._tasks.items():
            if task.is_fresh:
                return client
        for client, task in self._tasks.items():
            if not task.is_done and now - task.asked_at >= REST_S:
                return client
        return None

    def _draw_coarse(self, client: int, task: _Task) -> None:
        look = task.look
        share = min(1.0, self._budget(look, COARSE_S) / (look.width * look.height)) ** 0.5
        width = min(look.width, max(_LEAST_WIDTH, int(look.width * share)))
        height = max(1, round(look.height * width / look.width))
        self._begin()
        image, parts = self._timed(look.mode, look.viewpoint.cameras(width, height), COARSE_S)
        task.is_fresh, task.is_done = False, width == look.width
        self._show(client, look, Picture(image, parts, task.is_done))

    def _draw_piece(self, client: int, task: _Task) -> None:
        look, top = task.look, sum(len(rows) for rows in task.rows)
        rows = max(int(self._budget(look, PIECE_S) / look.width), -(-look.height // _MOST_PIECES))
        whole = look.viewpoint.cameras(look.width, look.height)
        piece = replace(whole, cy=whole.cy - top, height=min(rows, look.height - top))
        if not top:
            self._begin()
        image, parts = self._timed(look.mode, piece, PIECE_S)
        task.rows.append(image)
        for name, seconds in parts.items():
            task.parts[name] = task.parts.get(name, 0.0) + seconds
        if top + piece.height == look.height:
            task.is_done = True
            if self._tasks.get(client) is task:
                self._show(client, look, Picture(np.concatenate(task.rows), task.parts, True))
            task.rows = []

    def _budget(self, look: Look, seconds: float) -> float:
        return self._pixels.get((look.mode, seconds), look.width * look.height * _FIRST_SHARE)

    def _timed(self, mode: str, cameras: Cameras, seconds: float) -> tuple[np.ndarray, Parts]:
        """Draws, and learns how many pixels can be had in such a time."""
        start = self._clock()
        drawn = self._draw(mode, cameras)
        spent = max(self._clock() - start, 1e-6)
        # No more than fourfold at a time: the first call of a kind may also have loaded its kernels.
        factor = min(4.0, max(0.25, seconds / spent))
        self._pixels[mode, seconds] = cameras.width * cameras.height * factor
        return drawn
