"""A teacher that goes on rendering while its student trains: new views, made ahead of their turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from scene.cameras import Cameras
from scene.cells import CellGrid
from settings.config import Config
from teacher.rasterizer import Rasterizer
from teacher.sources.teacher import Teacher
from teacher.views.output_folder import parallel_map
from teacher.views.rasterized import View, render_view
from teacher.views.sight import view_reach


class LiveView(NamedTuple):
    """One rendered view, its camera (a set of one), and where its rays may end (see ``Sight``), if that was asked."""

    camera: Cameras
    view: View
    reach: Tensor | None = None


class ViewProducer(Protocol):
    """Gives the views of an endless sequence in order."""

    def first(self, start: int, count: int) -> Iterable[LiveView]:
        """Views ``start`` to ``start + count - 1``, before training, as fast as the machine can."""

    def start(self, index: int) -> None:
        """Begins with view ``index``."""

    def take(self) -> LiveView:
        """The next view; waits for it where it is not ready, and raises what rendering it raised."""

    def stop(self) -> None:
        """Ends the work; ``start`` begins it again."""


Render = Callable[[int], LiveView]


class InlineProducer:
    """Renders a view when it is asked for: for a device that does nothing else meanwhile.

    Args:
        render: view k, a function of k alone.
    """

    def __init__(self, render: Render) -> None:
        self._render, self._next = render, 0

    def first(self, start: int, count: int) -> Iterable[LiveView]:
        return map(self._render, range(start, start + count))

    def start(self, index: int) -> None:
        self._next = index

    def take(self) -> LiveView:
        view = self._render(self._next)
        self._next += 1
        return view

    def stop(self) -> None:
        return


class ThreadedProducer:
    """Renders views ahead of their turn in a thread beside training.

    Args:
        render: view k, a function of k alone; called from several threads.
        ahead: views that may wait for their turn.
        most: of the first ones, how many may be rendered at a time; None: as many as there are CPUs.
    """

    def __init__(self, render: Render, ahead: int, most: int | None = None) -> None:
        self._render, self._ahead, self._most = render, ahead, most
        self._changed = threading.Condition()
        self._ready: deque[LiveView] = deque()
        self._error: BaseException | None = None
        self._running = False
        self._thread: threading.Thread | None = None

    def first(self, start: int, count: int) -> Iterable[LiveView]:
        return parallel_map(lambda i: self._render(start + i), count, self._most)

    def start(self, index: int) -> None:
        self._ready.clear()
        self._error, self._running = None, True
        self._thread = threading.Thread(target=self._work, args=(index,), name="live teacher", daemon=True)
        self._thread.start()

    def take(self) -> LiveView:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or not self._running)
            if not self._ready:
                raise self._error or RuntimeError("the producer is not running")
            view = self._ready.popleft()
            self._changed.notify_all()
            return view

    def is_ready(self) -> bool:
        """Whether ``take`` would not wait."""
        with self._changed:
            return bool(self._ready or self._error)

    def stop(self) -> None:
        with self._changed:
            self._running = False
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self, index: int) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: not self._running or len(self._ready) < self._ahead)
                    if not self._running:
                        return
                view = self._render(index)
                index += 1
                with self._changed:
                    self._ready.append(view)
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, training is told
            with self._changed:
                self._error = error
                self._changed.notify_all()


def make_producer(config: Config, teacher: Teacher, device: torch.device, grid: CellGrid | None = None) -> ViewProducer:
    """The live teacher of a run: on the CPU in a thread of its own, on CUDA in line with training.

    Args:
        grid: by whose cells the views' reach is measured; None: they bring none.
    """
    # Beside training one thread, which has use for the others; before it views are rendered side by side.
    name, drawing = config.teacher.rasterizer, teacher.drawing
    rasterizer = Rasterizer(teacher.gaussians, name, device=device, threads=1, drawing=drawing)
    beside = rasterizer.device.type == "cpu"

    def render(index: int) -> LiveView:
        camera = teacher.poses.camera(index)
        reach = None if grid is None else view_reach(rasterizer, camera, 0, grid)
        return LiveView(camera, render_view(rasterizer, camera, 0), reach)

    if not beside:
        return InlineProducer(render)
    return ThreadedProducer(render, teacher.live.ahead, rasterizer.views_at_a_time())
