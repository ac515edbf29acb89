"""Let trio-websocket listen and accept, and hand every connection over before its first byte."""

from __future__ import annotations

import functools
import ssl as ssl_module

import trio
import trio_websocket

from wsframework.crashes import interrupt_in, unwrap_group
from wsframework.hosts.guests import Application, make_server
from wsframework.hosts.trio_websocket.handover import socket_of
from wsframework.hosts.trio_websocket.internals import AcceptingServer, Listener
from wsframework.hosts.trio_websocket.requests import serve_request
from wsframework.server.listeners import address_of, open_tcp_listeners
from wsframework.server.requests import Requests

__all__ = ["serve_websocket"]


async def serve_websocket(
    app: Application,
    host: str | None,
    port: int,
    ssl_context: ssl_module.SSLContext | None,
    *,
    task_status: trio.TaskStatus[trio_websocket.WebSocketServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an App where `trio_websocket.serve_websocket` was called, and keep every promise.

    trio-websocket's server listens and accepts; its parser never sees a byte. The App's lifespans, limits and
    timeouts count, and plain HTTP is answered.

    Args:
        app: the App.
        host: an address or name to listen on; None for every interface.
        port: a TCP port; 0 lets the system choose.
        ssl_context: a server-side TLS context, or None for plain TCP.
        task_status: `await nursery.start(serve_websocket, app, …)` returns a `WebSocketServer` of
            trio-websocket's, whose `port` and `listeners` say where it listens.

    Raises:
        ListenError: the address cannot be listened on.
        KeyboardInterrupt: one was raised in a handler or a guard; after the drain.

    Cancellation:
        Starts the drain, which takes up to `Timeouts.drain` and then cancels what is left.
    """
    async with app.running():
        sockets = await open_tcp_listeners(host, port)
        listeners: list[Listener] = []
        for socket in sockets:
            plain = trio.SocketListener(trio.socket.from_stdlib_socket(socket))
            listeners.append(
                plain if ssl_context is None else trio.SSLListener(plain, ssl_context, https_compatible=True)
            )
        native = make_server(app, app.decide, secure=ssl_context is not None)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(native.run, (), None)
                # Its handler is what the server reports; it is not called.
                handler = functools.partial(serve_request, app=app)
                server = AcceptingServer(functools.partial(_serve, native.requests), handler, listeners)
                task_status.started(await nursery.start(server.run))
        except BaseExceptionGroup as group:
            # Made by our nursery.
            raise interrupt_in(group) or unwrap_group(group) from None
        finally:
            for socket in sockets:
                socket.close()


async def _serve(requests: Requests, stream: trio.abc.Stream) -> None:
    # Cancelled, the native server drains its connections; trio's own would cut them off.
    with trio.CancelScope(shield=True):
        socket = socket_of(stream)
        try:
            remote, local = address_of(socket.getpeername()), address_of(socket.getsockname())
        except OSError:
            return  # it has left already
        await requests.over_stream(stream, remote, local).serve()
