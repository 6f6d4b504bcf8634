"""viser's server, which answers the pages that it serves itself and no other."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import viser
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response


def local_server(host: str, port: int, label: str) -> viser.ViserServer:
    """Starts a server that no page of another site can speak to, and that nobody can have published.

    viser takes any website that the user has open for its own page, and opens a tunnel through a public server for
    whoever asks.

    Args:
        host: address to listen at.
        port: the port; the next free one where it is taken.
        label: the page's title.
    """
    import viser
    from viser import _messages

    with contextlib.redirect_stdout(io.StringIO()), _own_pages_alone():  # it draws a box of its own there
        server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    server._websock_server.unregister_handler(_messages.ShareUrlRequest)
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    return server


@contextlib.contextmanager
def _own_pages_alone() -> Iterator[None]:
    """Servers that start meanwhile refuse the sockets of pages whose address is not the one that they ask at."""
    import websockets.asyncio.server as sockets

    serve = sockets.serve

    @functools.wraps(serve)
    def guarded(*places: Any, process_request: Callable[..., Any], **options: Any) -> Any:
        def answer(connection: ServerConnection, request: Request) -> Response | None:
            origin, host = request.headers.get("Origin"), request.headers.get("Host")
            if origin is not None and urlsplit(origin).netloc != host:
                words = f"a page of {origin} asks {host}: a proxy between them has to pass the header Host on\n"
                return connection.respond(HTTPStatus.FORBIDDEN, words)
            return process_request(connection, request)

        return serve(*places, process_request=answer, **options)

    sockets.serve = guarded
    try:
        yield
    finally:
        sockets.serve = serve
