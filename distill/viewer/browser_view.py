"""The viewer's page: viser's camera and controls on one side, the render worker on the other."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.viewer.keyframes import KeyframePath
from distill.viewer.local_server import local_server
from distill.viewer.pictures import MODES
from distill.viewer.render_worker import Look, Picture, RenderWorker
from distill.viewer.subjects import Subject
from distill.viewer.viewpoints import DatasetCamera, Viewpoint
from scene.frames import spread
from settings.errors import InputError
from settings.words import counted

if TYPE_CHECKING:
    import viser

_TRAINED, _HELD_OUT = (70, 130, 220), (240, 140, 30)  # colours of the dataset's cameras
_MOST_FRUSTA = 200
_FRUSTUM_SHARE = 0.06  # of the box's diagonal
_JPEG_QUALITY = 90
_SIDES = 16, 2048  # the least and the most of full pictures' longest side, pixels
_FIGURES_EVERY_S = 0.2
_DEFAULT_BETWEEN = 29  # views between keyframes: a second at 30 frames/s
_log = logging.getLogger(__name__)


def import_viser(field: str) -> ModuleType:
    """The package, which is optional and slow to import.

    Args:
        field: what asks for it, for the message.

    Raises:
        InputError: it is missing or broken.
    """
    try:
        import viser
    except ImportError as error:
        found = f"asked for, but the package viser cannot be imported ({error})"
        raise InputError("viewer", field, found, "the package viser", 'pip install "viser>=1.1"') from error
    return viser


class BrowserView:
    """Serves a subject to browsers until ``close``.

    Whoever makes it has ``worker`` take its turns: a thread of its own, or training between two steps.

    Args:
        subject: what is looked at.
        host: address to listen at.
        port: the port; the next free one where it is taken.
        width: the longest side of full pictures in pixels, at first.
        begin: called before each picture.

    Raises:
        InputError: viser is missing; the host or the port cannot be listened at; the keyframes' file is damaged.
    """

    def __init__(
        self, subject: Subject, host: str, port: int, width: int, begin: Callable[[], None] = lambda: None
    ) -> None:
        import_viser("tools/view.py")
        self.subject, self._width = subject, width
        self._path = KeyframePath(subject.keyframes, subject.config.data)
        self.worker = RenderWorker(subject.pictures, self._show, begin)
        self.has_shown = threading.Event()
        """Set when the first full picture has gone to a browser."""
        self._panels: dict[int, _Panel] = {}
        self._gone: set[int] = set()  # clients come and go on threads of a pool: one may have gone before it has come
        self._coming = threading.Lock()
        _check_address(host, port)
        logging.getLogger("websockets").setLevel(logging.WARNING)
        self._server = local_server(host, port, f"{subject.config.scene}/{subject.config.run}")
        # Shown until there is a picture. What encodes pictures, which is slow to import, is there from now on.
        self._server.scene.set_background_image(np.full((8, 8, 3), 128, np.uint8), format="jpeg")
        self._server.gui.main_panel.dock_right()
        self._place_camera()
        self._frusta: list[Any] | None = None  # made when they are first shown: it takes a while
        self._server.on_client_connect(self._connected)
        self._server.on_client_disconnect(self._disconnected)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self._server.get_host()}:{self._server.get_port()}"

    def offer_modes(self) -> None:
        """What can be shown has changed: pages are told."""
        for panel in list(self._panels.values()):
            panel.mode.options = self.subject.pictures.modes

    def close(self) -> None:
        """Ends the server."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._server.stop()

    def _place_camera(self) -> None:
        view, up = self.subject.start(), self.subject.up
        self._server.scene.set_up_direction(up)
        camera = self._server.initial_camera
        camera.position, camera.look_at, camera.up, camera.fov = view.position, self._focus(view), up, view.fov

    def _focus(self, view: Viewpoint) -> np.ndarray:
        """What a camera turns about: the place on its axis that is nearest to the middle of the scene box."""
        box = self.subject.pictures.box
        away = max((np.array(box.centre) - view.position) @ view.ahead, 1e-2 * float(np.linalg.norm(box.extent)))
        return view.position + away * view.ahead

    def _add_frusta(self) -> list[Any]:
        scale = _FRUSTUM_SHARE * float(np.linalg.norm(self.subject.pictures.box.extent))
        handles = []
        for camera in spread(self.subject.cameras, _MOST_FRUSTA):
            view = camera.viewpoint
            handle = self._server.scene.add_camera_frustum(
                f"/cameras/{camera.name}", view.fov, camera.aspect, scale=scale, thickness=0.02 * scale,
                color=_HELD_OUT if camera.held_out else _TRAINED, wxyz=view.wxyz, position=view.position, visible=False,
            )  # fmt: skip
            handle.on_click(lambda event, camera=camera: self._jump(event.client, camera.viewpoint))
            handles.append(handle)
        return handles

    def _jump(self, client: viser.ClientHandle, view: Viewpoint) -> None:
        camera = client.camera
        self._panels[client.client_id].through = view
        with client.atomic():
            # Setting the orientation keeps the axis that the mouse turns about, unless the view is rolled.
            camera.position, camera.wxyz, camera.look_at = view.position, view.wxyz, self._focus(view)
            camera.fov = view.fov

    def _connected(self, client: viser.ClientHandle) -> None:
        panel = _Panel(client, self.subject, self._width, self._path, self)
        with self._coming:
            if client.client_id in self._gone:
                return
            self._panels[client.client_id] = panel
        client.camera.on_update(lambda _: self.ask(client.client_id))
        self.ask(client.client_id)

    def _disconnected(self, client: viser.ClientHandle) -> None:
        with self._coming:
            self._gone.add(client.client_id)
            panel = self._panels.pop(client.client_id, None)
        self.worker.forget(client.client_id)
        if panel is not None:
            _log.info("a browser has left: %s", panel.summary())

    def ask(self, client: int) -> None:
        """Has a client's picture drawn, from where it looks now."""
        panel = self._panels.get(client)
        if panel is None:
            return
        look = panel.look()
        with self._coming:
            if client in self._panels:
                self.worker.ask(client, look)

    def jump(self, client: viser.ClientHandle, name: str) -> None:
        """To the dataset's camera of that name."""
        camera = next(camera for camera in self.subject.cameras if camera.name == name)
        self._jump(client, camera.viewpoint)

    def show_frusta(self, shown: bool) -> None:
        """Of all pages."""
        if self._frusta is None:
            self._frusta = self._add_frusta()
        for handle in self._frusta:
            handle.visible = shown

    def _show(self, client: int, look: Look, picture: Picture) -> None:
        panel = self._panels.get(client)
        if panel is not None:
            panel.show(look, picture)
            if picture.is_full:
                self.has_shown.set()


class _Panel:
    """One page's controls, and what is shown on it."""

    def __init__(
        self, client: viser.ClientHandle, subject: Subject, width: int, path: KeyframePath, view: BrowserView
    ) -> None:
        self._client, self._subject, self._path = client, subject, path
        self.shown_at: dict[bool, list[float]] = {False: [], True: []}
        """When coarse pictures were shown, and full ones."""
        self._told_at = 0.0
        self.through = subject.start()
        """The dataset's camera that was gone to last: while the browser's stays there, it has that one's lens."""
        gui, number = client.gui, client.client_id
        gui.add_markdown(subject.title)
        self.mode = gui.add_dropdown("show", subject.pictures.modes)
        self._meaning = gui.add_markdown("")
        self._side = gui.add_slider("longest side, px", *_SIDES, 1, int(np.clip(width, *_SIDES)))
        self._figures = gui.add_markdown("")
        for control in (self.mode, self._side):
            control.on_update(lambda _: view.ask(number))
        if subject.cameras:
            with gui.add_folder("cameras"):
                self._add_cameras(view)
        with gui.add_folder("keyframes"):
            self._add_keyframes()

    def _add_cameras(self, view: BrowserView) -> None:
        gui = self._client.gui
        shown = gui.add_checkbox(
            "show cameras", False, hint="blue: trained on; orange: held out. Click one to look through it."
        )
        shown.on_update(lambda event: view.show_frusta(event.target.value))
        labels = {_label(camera): camera.name for camera in self._subject.cameras}
        chosen = gui.add_dropdown("look through", tuple(labels))
        chosen.on_update(lambda event: view.jump(self._client, labels[event.target.value]))

    def _add_keyframes(self) -> None:
        gui = self._client.gui
        said = gui.add_markdown("")
        between = gui.add_slider("frames between", 0, 240, 1, _DEFAULT_BETWEEN)
        add, drop, save = (gui.add_button(name) for name in ("add this view", "remove the last", "save the path"))

        def tell(words: str = "") -> None:
            said.content = f"{counted(len(self._path.viewpoints), 'keyframe')}. {words}"

        @add.on_click
        def _(_: Any) -> None:
            self._path.viewpoints.append(self.look().viewpoint)
            tell()

        @drop.on_click
        def _(_: Any) -> None:
            del self._path.viewpoints[-1:]
            tell()

        @save.on_click
        def _(_: Any) -> None:
            if not self._path.viewpoints:
                return tell("Add some first.")
            look = self.look()
            try:
                frames = self._path.save(int(between.value), look.width, look.height)
                words = "`tools/render_path.py --path` makes a film of them."
                tell(f"{counted(frames, 'frame')} in `{self._path.file}`: {words}")
            except (InputError, OSError) as error:
                tell(f"Not saved: {error}")

        tell()

    def look(self) -> Look:
        """What the page wants to see."""
        camera = self._client.camera
        aspect = camera.image_width / max(camera.image_height, 1)
        longest = int(min(self._side.value, max(camera.image_width, camera.image_height)))
        width, height = (longest, longest / aspect) if aspect >= 1 else (longest * aspect, longest)
        view = Viewpoint.of_browser(camera.wxyz, camera.position, camera.fov)
        if view.is_where(self.through, max(self._subject.pictures.box.extent)):
            view = replace(view, lens=self.through.lens)
        return Look(self.mode.value, view, max(1, round(width)), max(1, round(height)))

    def show(self, look: Look, picture: Picture) -> None:
        """Sends the picture, and now and then its figures."""
        start = time.perf_counter()
        self._client.scene.set_background_image(picture.image, format="jpeg", jpeg_quality=_JPEG_QUALITY)
        now = time.perf_counter()
        parts = picture.parts | {"sending": now - start}
        self.shown_at[picture.is_full].append(now)
        if picture.is_full or now - self._told_at > _FIGURES_EVERY_S:
            self._told_at = now
            self._meaning.content = MODES[look.mode]
            self._figures.content = figures(picture, parts, look)

    def summary(self) -> str:
        """How many pictures it got, and how many coarse ones a second in the second that had most."""
        coarse = np.array(self.shown_at[False])
        words = f"{len(coarse)} coarse pictures and {len(self.shown_at[True])} full ones"
        if len(coarse) > 1:
            most = max(np.searchsorted(coarse, coarse + 1.0) - np.arange(len(coarse)))
            words += f", at most {most} coarse ones in a second"
        return words


def figures(picture: Picture, parts: dict[str, float], look: Look) -> str:
    """Frames a second and the time of each part, as Markdown."""
    height, width = picture.image.shape[:2]
    total = sum(parts.values())
    size = f"{width}x{height}" + ("" if picture.is_full else f" of {look.width}x{look.height}")
    rows = "".join(f"\n| {name} | {1e3 * seconds:.1f} ms |" for name, seconds in parts.items())
    return f"**{1 / max(total, 1e-6):.1f} frames/s** at {size}\n\n| part | time |\n|---|---|{rows}"


def _label(camera: DatasetCamera) -> str:
    return f"{camera.name} (held out)" if camera.held_out else camera.name


def _check_address(host: str, port: int) -> None:
    """viser itself would try a thousand ports before it gave up on a host."""
    if not 0 <= port < 1 << 16:
        raise InputError("viewer", "--port", port, "0 (any that is free) to 65535")
    try:
        socket.create_server((host, 0)).close()
    except OSError as error:
        found = f"{host} ({error.strerror or error})"
        raise InputError(
            "viewer", "--host", found, "an address of this machine", "127.0.0.1, or 0.0.0.0 for all."
        ) from error
