"""The viewer in a real browser: pictures come, the camera is understood, paths are recorded."""

import threading
import time
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from distill.viewer.pictures import Pictures
from distill.viewer.render_worker import Picture
from distill.viewer.subjects import Subject
from distill.viewer.viewpoints import Lens, named_cameras
from scene.formats.transforms_json import load_transforms
from scene.rays import SceneBox
from settings.errors import InputError
from settings.loading import load_config
from tests.headless_browser import Page, find_browser
from tests.program import wait_for
from tests.toy_configs import BRICKS
from tests.toy_scene import ring_of_cameras

viser = pytest.importorskip("viser")
from distill.viewer.browser_view import BrowserView, figures  # noqa: E402

WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--window-size=1000,640")
BOX = SceneBox((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))


class _Painted(Pictures):
    """Red where the camera is over the scene, green under it; costs what it is told a pixel."""

    def __call__(self, mode, cameras):
        time.sleep(5e-6 * cameras.width * cameras.height)
        image = np.zeros((cameras.height, cameras.width, 3), np.uint8)
        image[..., 0 if cameras.c2w[0, 2, 3] > 0 else 1] = 200
        return image, {"painting": 0.0}


@pytest.fixture
def subject(write, tmp_path):
    ring = ring_of_cameras(4, 40, 30)
    ring = replace(ring, fx=0.8 * ring.fx, cx=ring.cx + 5, cy=ring.cy - 2)
    cameras = named_cameras(("a", "b", "c", "d"), ring, torch.tensor([False, True, False, False]))
    pictures = _Painted(None, None, BOX, torch.device("cpu"), (1.0, 1.0, 1.0))
    return Subject("a painted scene", load_config(write(BRICKS)), pictures, cameras, tmp_path / "path.json")


def is_at(panel, camera):
    view = panel.look().viewpoint
    return view.is_where(camera.viewpoint, 2.0) and view.lens == camera.viewpoint.lens != Lens()


@pytest.mark.skipif(find_browser() is None, reason="no Chromium")
def test_in_a_browser(subject, tmp_path):
    view, stop = BrowserView(subject, "127.0.0.1", 0, 200), threading.Event()
    worker = threading.Thread(target=view.worker.run, args=(stop,))
    worker.start()
    try:
        with Page(find_browser(), view.url, tmp_path / "profile", WEBGL) as page:
            wait_for(view.has_shown.is_set)
            ((number, panel),) = view._panels.items()
            # It begins at the held-out camera, at the size that was asked for.
            wait_for(lambda: is_at(panel, subject.cameras[1]))
            assert max(panel.look().width, panel.look().height) == 200
            wait_for(lambda: "frames/s" in page.evaluate("document.body.innerText"))

            view.jump(view._server.get_clients()[number], "c")
            wait_for(lambda: is_at(panel, subject.cameras[2]))
            for name in ("add this view", "save the path"):
                page.evaluate(f"[...document.querySelectorAll('button')].find(b => b.innerText == '{name}').click()")
                time.sleep(0.1)
            wait_for(subject.keyframes.exists)
            recorded, wanted = load_transforms(subject.keyframes), subject.cameras[2].viewpoint
            torch.testing.assert_close(recorded.cameras.c2w[0].double(), wanted.c2w, atol=1e-4, rtol=0)

            coarse, full = (len(panel.shown_at[kind]) for kind in (False, True))
            page.drag("canvas", 80, 0, steps=15, pause_s=0.03)
            wait_for(lambda: len(panel.shown_at[True]) > full)
            assert len(panel.shown_at[False]) >= coarse + 3
            # The browser turned about the scene, from there and about what is up: so it understood all of it.
            assert panel.look().viewpoint.lens == Lens()
            turned = panel.look().viewpoint.position
            assert np.linalg.norm(turned) == pytest.approx(2, abs=1e-3) and not np.allclose(turned, wanted.position)
            assert turned[2] == pytest.approx(wanted.position[2], abs=1e-3)
        wait_for(lambda: not view.worker.is_watched)
    finally:
        stop.set()
        worker.join()
        view.close()


def test_a_page_that_is_gone_before_its_panel_is_made_is_not_drawn_for(subject):
    view, client = BrowserView(subject, "127.0.0.1", 0, 200), MagicMock(client_id=5)
    client.camera.image_width, client.camera.image_height = 40, 30
    try:
        view._disconnected(client)
        view._connected(client)
        assert not view.worker.is_watched and not view._panels
    finally:
        view.close()


def test_figures_name_size_rate_and_parts():
    picture = Picture(np.zeros((30, 40, 3), np.uint8), {"student": 0.03, "colours": 0.01}, False)
    look = type("Look", (), {"width": 400, "height": 300})
    text = figures(picture, picture.parts | {"sending": 0.01}, look)
    assert "**20.0 frames/s** at 40x30 of 400x300" in text and "| student | 30.0 ms |" in text


@pytest.mark.parametrize("host, port, field", [("203.0.113.1", 8080, "--host"), ("127.0.0.1", 70000, "--port")])
def test_an_address_that_cannot_be_listened_at_is_named(subject, host, port, field):
    with pytest.raises(InputError, match=field):
        BrowserView(subject, host, port, 400)
