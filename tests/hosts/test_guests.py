"""A host of a few lines: it accepts over Trio streams, and `serve_guest` does the rest."""

from __future__ import annotations

import functools

import pytest
import trio
import trio_websocket

from wsframework import App, Connection
from wsframework.hosts.guests import HandedOver, serve_guest
from wsframework.server.listeners import address_of


async def host(
    app: App, *, task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED
) -> None:
    async def accepted(stream: trio.SocketStream) -> None:
        async def take_over() -> HandedOver:
            remote, local = stream.socket.getpeername(), stream.socket.getsockname()
            return HandedOver(stream, b"", address_of(remote), address_of(local))

        await serve_guest(app, take_over)

    serve = functools.partial(trio.serve_tcp, accepted, 0, host="127.0.0.1", task_status=task_status)
    await serve()


def make_app() -> App:
    app = App()

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


async def test_a_new_host_serves_an_app_and_drains_when_it_is_cancelled() -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as outer, trio.open_nursery() as hosting:
            listeners = await hosting.start(host, make_app())
            port = listeners[0].socket.getsockname()[1]
            client = await trio_websocket.connect_websocket(outer, "127.0.0.1", port, "/", use_ssl=False)
            await client.send_message("hello")
            assert await client.get_message() == "hello"

            async def read_on() -> None:
                with pytest.raises(trio_websocket.ConnectionClosed) as closed:
                    await client.get_message()
                assert closed.value.reason is not None
                assert closed.value.reason.code == 1001
                # trio-websocket leaves its stream open after a close that the server began.
                await client._stream.aclose()

            outer.start_soon(read_on)
            hosting.cancel_scope.cancel()


async def test_a_client_that_left_before_it_was_taken_over_ends_its_call_quietly() -> None:
    async def take_over() -> HandedOver:
        raise ConnectionResetError("the client has left")

    with trio.fail_after(30):
        await serve_guest(make_app(), take_over)
