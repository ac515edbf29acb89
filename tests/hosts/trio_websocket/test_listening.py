from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs
import outcome
import pytest
import trio
import trio_websocket

from tests.hosts.trio_websocket.stage import TIMEOUTS, ask, echo_app, frame, opened, plainly, reset, told
from tests.mounting.stage import Plain
from tests.waiting import until
from wsframework import App, Connection, ListenError, Request
from wsframework.hosts.trio_websocket import serve_websocket


@asynccontextmanager
async def served(app: App) -> AsyncIterator[trio_websocket.WebSocketServer]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, app, "127.0.0.1", 0, None)
        yield server
        nursery.cancel_scope.cancel()


async def test_it_starts_what_trio_websocket_starts() -> None:
    async with served(echo_app()) as server:
        assert type(server).__mro__[1] is trio_websocket.WebSocketServer
        [endpoint] = server.listeners
        assert isinstance(endpoint, trio_websocket.Endpoint)
        assert endpoint.url == f"ws://127.0.0.1:{server.port}"
        async with opened(server.port) as stream:
            await stream.send_all(frame("hello"))
            assert await stream.receive_some() == told("hello")


async def test_it_enters_the_lifespans_and_answers_pages() -> None:
    app = echo_app()
    events: list[str] = []

    @app.lifespan
    async def life() -> AsyncIterator[None]:
        events.append("begins")
        try:
            yield
        finally:
            events.append("ends")

    @app.http("/")
    async def page(request: Request) -> str:
        return ", ".join(events)

    async with served(app) as server, await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await stream.receive_some()).endswith(b"\r\n\r\nbegins")
    assert events == ["begins", "ends"]


async def test_an_address_that_is_taken_is_a_listen_error() -> None:
    async with served(echo_app()) as server:
        with pytest.raises(ListenError, match="in use"):
            await serve_websocket(echo_app(), "127.0.0.1", server.port, None)


async def test_cancelled_before_it_listens_it_leaves_no_socket() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await serve_websocket(echo_app(), "127.0.0.1", 0, None)
    assert scope.cancelled_caught


async def test_probes_leave_no_task() -> None:
    async with served(echo_app()) as server:
        before = trio.lowlevel.current_statistics().tasks_living
        for data in (b"", b"\n", b"GET", b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(data)
            await stream.aclose()
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(data)
            reset(stream)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= before)


@pytest.mark.parametrize("host", ["ours", "trio-websocket's"])
@pytest.mark.parametrize("how", ["shields itself", "leaves its task"])
async def test_a_guard_that_does_not_end_does_not_keep_its_client_when_the_server_stops(
    host: str, how: str
) -> None:
    app = App(timeouts=attrs.evolve(TIMEOUTS, drain=0.5))
    begun, end = trio.Event(), trio.Event()

    async def guard(request: Request) -> None:
        begun.set()
        if how == "shields itself":
            with trio.CancelScope(shield=True):
                await end.wait()
        else:
            await trio.lowlevel.permanently_detach_coroutine_object(outcome.Value(None))

    @app.websocket("/", guards=[guard])
    async def handler(ws: Connection) -> None:
        raise AssertionError("the guard has not decided")

    async def read_to_end(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass
        end.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, AsyncExitStack() as hosts:
            if host == "ours":
                port = (await hosts.enter_async_context(served(app))).port
            else:
                port, _ = await hosts.enter_async_context(plainly(app))
            stream = await ask(port)
            await begun.wait()
            nursery.start_soon(read_to_end, stream)
    await stream.aclose()


async def test_it_starts_what_is_mounted_and_passes_requests_on() -> None:
    app = echo_app()
    plain = Plain()
    app.mount("/mounted", plain)
    async with served(app) as server, await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET /mounted HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := await stream.receive_some():
            answer += data
    assert answer.endswith(b"\r\n\r\nmounted")
    assert plain.scopes[0]["root_path"] == "/mounted"
