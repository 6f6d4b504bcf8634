"""Who is answered by the viewer's server, asked over real sockets."""

import time

import pytest

from distill.viewer.local_server import local_server

viser = pytest.importorskip("viser")
import msgspec  # noqa: E402  comes with viser
from viser import _messages  # noqa: E402
from websockets.exceptions import InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402


@pytest.fixture
def server():
    made = local_server("127.0.0.1", 0, "a label")
    yield made
    made.stop()


def page(server, origin):
    """A page's socket, as a browser opens it."""
    protocol = f"viser-v{viser.__version__}"
    return connect(f"ws://127.0.0.1:{server.get_port()}", origin=origin, subprotocols=[protocol], max_size=None)


def test_its_own_page_is_answered_and_another_sites_is_not(server):
    with page(server, f"http://127.0.0.1:{server.get_port()}") as own:
        assert own.recv(timeout=10)
    with page(server, None) as no_browser:
        assert no_browser.recv(timeout=10)
    for other in ("https://evil.example", f"http://127.0.0.1:{server.get_port() + 1}", "null"):
        with pytest.raises(InvalidStatus) as refused:
            page(server, other)
        assert refused.value.response.status_code == 403 and b"pass the header Host on" in refused.value.response.body


def test_nobody_can_have_it_published(server, monkeypatch):
    asked = []
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *where: asked.append(where))
    with page(server, None) as own:
        own.recv(timeout=10)
        own.send(msgspec.msgpack.encode(_messages.ShareUrlRequest().as_serializable_dict()))
        time.sleep(0.5)
        assert own.ping().wait(10), "the server goes on"
    assert asked == []
