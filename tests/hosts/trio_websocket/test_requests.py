from __future__ import annotations

from contextvars import ContextVar

import pytest
import trio
import trio_websocket

from tests.hosts.trio_websocket.stage import TIMEOUTS, ask, echo_app, frame, opened, plainly, reset, told
from tests.mounting.stage import application
from tests.waiting import until
from wsframework import App, Connection, Request
from wsframework.crashes import unwrap_group
from wsframework.mounting.worlds import Receive, Scope, Send
from wsframework.wire import Opcode, encode_close, encode_frame

GOODBYE = encode_close(1001, "the server is shutting down")


def tasks_living() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def check_echo(stream: trio.SocketStream) -> None:
    with trio.fail_after(30):
        await stream.send_all(frame("still here"))
        assert await stream.receive_some() == told("still here")


async def test_the_app_may_be_cancelled_for_one_connection() -> None:
    app = echo_app()
    scopes: list[trio.CancelScope] = []

    async def limited(request: trio_websocket.WebSocketRequest) -> None:
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await app(request)

    async with plainly(limited) as (port, _), opened(port) as first, opened(port) as second:
        scopes[0].cancel()
        with trio.fail_after(30):
            assert await first.receive_some() == GOODBYE
        await check_echo(second)


async def test_servers_of_one_app_stop_one_by_one() -> None:
    app = echo_app()
    async with (
        plainly(app) as (port, scope),
        plainly(app) as (other_port, _),
        opened(port) as first,
        opened(other_port) as second,
    ):
        scope.cancel()
        with trio.fail_after(30):
            assert await first.receive_some() == GOODBYE
        await check_echo(second)


async def test_context_variables_of_the_servers_task_reach_handlers() -> None:
    tenant: ContextVar[str] = ContextVar("tenant")
    app = echo_app()

    @app.websocket("/tenant")
    async def tell(ws: Connection) -> None:
        await ws.send(tenant.get())

    for name in ("first", "second"):
        tenant.set(name)
        async with plainly(app) as (port, _), opened(port, "/tenant") as stream:
            assert (await stream.receive_some()).startswith(told(name))


def test_an_app_is_served_in_one_run_after_another() -> None:
    app = echo_app()

    async def main() -> None:
        async with plainly(app) as (port, _), opened(port) as stream:
            await check_echo(stream)

    trio.run(main)
    trio.run(main)


async def test_connections_that_are_over_leave_no_task() -> None:
    async with plainly(echo_app()) as (port, _):
        async with opened(port) as stream:
            await check_echo(stream)
        await trio.sleep(0.3)
        before = tasks_living()
        for _ in range(5):
            async with opened(port) as stream:
                await check_echo(stream)
        await until(lambda: tasks_living() <= before)


async def test_a_client_that_has_left_before_the_app_is_asked_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = echo_app()

    async def late(request: trio_websocket.WebSocketRequest) -> None:
        if request.path == "/late":
            await trio.sleep(0.05)
        await app(request)

    async with plainly(late) as (port, _), opened(port) as neighbour:
        reset(await ask(port, path="/late"))
        async with await ask(port, path="/late"):
            pass
        await trio.sleep(0.2)
        await check_echo(neighbour)
    assert not [entry for entry in caplog.records if entry.levelname in ("WARNING", "ERROR")]


async def test_a_server_that_is_cancelled_as_it_asks_the_app_ends() -> None:
    app = echo_app()
    scopes: list[trio.CancelScope] = []

    async def cancel_first(request: trio_websocket.WebSocketRequest) -> None:
        scopes[0].cancel()
        await app(request)

    with trio.fail_after(30):
        async with plainly(cancel_first) as (port, scope):
            scopes.append(scope)
            async with await ask(port) as stream:
                while await stream.receive_some():
                    pass


async def test_a_guard_is_cancelled_when_its_client_leaves() -> None:
    app = echo_app()
    cancelled = trio.Event()

    @app.guard
    async def ponder(request: Request) -> None:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with plainly(app) as (port, _):
        async with await ask(port):
            await trio.sleep(0.05)
        with trio.fail_after(30):
            await cancelled.wait()


async def test_a_guard_that_ponders_does_not_hold_up_a_server_that_stops() -> None:
    app = echo_app()

    @app.guard
    async def ponder(request: Request) -> None:
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with plainly(app) as (port, scope):
            stream = await ask(port)
            await trio.sleep(0.05)
            scope.cancel()
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 503")
            await stream.aclose()


async def test_a_client_that_is_let_in_while_the_server_stops_is_told_so() -> None:
    app = echo_app()

    @app.guard
    async def ponder(request: Request) -> None:
        await trio.sleep(0.2)

    async with plainly(app) as (port, scope), await ask(port) as stream:
        await trio.sleep(0.05)
        scope.cancel()
        answer = b""
        with trio.fail_after(30):
            while data := await stream.receive_some():
                answer += data
                if answer.endswith(GOODBYE):
                    await stream.send_all(encode_frame(Opcode.CLOSE, b"\x03\xe9", masking_key=bytes(4)))
    assert answer.startswith(b"HTTP/1.1 101")
    assert answer.endswith(GOODBYE)


async def test_after_a_keyboard_interrupt_the_app_can_be_served_again() -> None:
    app = App(timeouts=TIMEOUTS)

    @app.websocket("/interrupt")
    async def interrupt(ws: Connection) -> None:
        raise KeyboardInterrupt

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with plainly(app) as (port, _), opened(port, "/interrupt"):
            await trio.sleep(5)
    assert isinstance(unwrap_group(caught.value), KeyboardInterrupt)
    async with plainly(app) as (port, _), opened(port) as stream:
        await check_echo(stream)


async def test_what_is_mounted_has_to_be_started_by_who_serves(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})
        await receive()

    app = echo_app()
    app.mount("/mounted", application(echo))
    async with plainly(app) as (port, _), await ask(port, path="/mounted") as refused:
        assert (await refused.receive_some()).startswith(b"HTTP/1.1 500 ")
        assert "async with app.running()" in caplog.text
    async with app.running(), plainly(app) as (port, _), opened(port, "/mounted") as stream:
        await check_echo(stream)
