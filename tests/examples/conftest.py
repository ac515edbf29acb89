"""Serve an example's App on a free port, and talk to it with trio-websocket's client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from wsframework import App

Serve = Callable[[App], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def _serve(app: App) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(app.serve, "127.0.0.1", 0)
        yield server.urls[0]
        nursery.cancel_scope.cancel()


@pytest.fixture
def serve() -> Serve:
    return _serve


@asynccontextmanager
async def connect(
    url: str, subprotocols: Sequence[str] | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[WebSocketConnection]:
    """Open a connection whose stream is closed with the block.

    `trio_websocket.open_websocket_url` leaves it open when the server refuses or closes first.
    """
    parts = urlsplit(url)
    extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
    async with stream, trio.open_nursery() as nursery:
        ws = await wrap_client_stream(
            nursery,
            stream,
            parts.netloc,
            parts._replace(scheme="", netloc="").geturl(),
            subprotocols=subprotocols,
            extra_headers=extra,
        )
        yield ws
        await ws.aclose()
        nursery.cancel_scope.cancel()
