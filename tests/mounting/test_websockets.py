"""WebSockets that a mounted application serves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio_websocket

from tests.mounting.stage import LASTING, Handler, application, connected, new_app
from tests.server.plain import Client, Contexts, Port, get, port
from tests.waiting import until
from wsframework import Accept, App, Connection, Limits, Observer, Reject, Request
from wsframework.mounting.worlds import Receive, Scope, Send
from wsframework.testing import MemoryServer, connect, serve
from wsframework.wire import build_request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{key: message[key] for key in message if key != "type"}})


def app_with(handler: Handler, **settings: object) -> App:
    app = new_app(**settings)  # type: ignore[arg-type]
    app.mount("/", application(handler))
    return app


@asynccontextmanager
async def served(handler: Handler, **settings: object) -> AsyncIterator[MemoryServer]:
    async with serve(app_with(handler, **settings)) as server:
        yield server


@asynccontextmanager
async def on_wire(handler: Handler, **settings: object) -> AsyncIterator[Port]:
    app = app_with(handler, **settings)
    async with app.running(), port("hub", None, app) as wire:
        yield wire


async def close_code(client: Client, path: str) -> int:
    """Connect, and return the code of the Close that follows."""
    await client.send(build_request("localhost", path, KEY))
    assert (await client.head())[0] == 101
    frame = await client.exactly(4)
    assert frame[0] == 0x88
    return int.from_bytes(frame[2:], "big")


async def test_messages_go_both_ways(kind: str, contexts: Contexts) -> None:
    async with connected(app_with(echo), kind, contexts) as client:
        await client.send(build_request("localhost", "/x", KEY))
        assert (await client.head())[0] == 101
        masked = bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi"
        await client.send(masked, masked.replace(b"\x81", b"\x82"))
        assert await client.exactly(8) == b"\x81\x02hi\x82\x02hi"


async def test_routes_of_ours_win_and_what_they_do_not_have_is_mounted() -> None:
    app = app_with(echo)

    @app.websocket("/loud")
    async def loud(ws: Connection) -> None:
        async for message in ws:
            assert isinstance(message, str)
            await ws.send(message.upper())

    async with serve(app) as server:
        async with server.connect("/loud") as client:
            await client.send("hi")
            assert await client.receive() == "HI"
        async with server.connect("/ours") as client:  # only plain HTTP is ours there
            await client.send("hi")
            assert await client.receive() == "hi"


async def test_the_application_chooses_subprotocol_and_fields() -> None:
    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["subprotocols"] == ["a", "b"]
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-own", b"1")]})
        await receive()

    async with on_wire(choose) as wire, wire.connect() as client:
        await client.send(build_request("localhost", "/", KEY, subprotocols=["a", "b"]))
        status, fields = await client.head()
        assert status == 101
        assert (fields["sec-websocket-protocol"], fields["x-own"]) == ("b", "1")


async def test_a_close_before_the_accept_is_a_403() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        assert (await receive()) == {"type": "websocket.disconnect", "code": 1006, "reason": ""}

    async with served(refuse) as server:
        with pytest.raises(trio_websocket.ConnectionRejected) as caught:
            async with server.connect("/"):
                pass
        assert caught.value.status_code == 403


async def test_an_application_may_refuse_with_an_http_answer() -> None:
    async def deny(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["extensions"] == {"websocket.http.response": {}}
        await receive()
        fields = [(b"x-why", b"because"), (b"content-length", b"6"), (b"connection", b"keep-alive")]
        await send({"type": "websocket.http.response.start", "status": 429, "headers": fields})
        await send({"type": "websocket.http.response.body", "body": b"not", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"now"})

    async with served(deny) as server:
        with pytest.raises(trio_websocket.ConnectionRejected) as caught:
            async with server.connect("/"):
                pass
        rejected = caught.value
        assert (rejected.status_code, rejected.body) == (429, b"notnow")
        assert (b"x-why", b"because") in [(name.lower(), value) for name, value in rejected.headers]


async def test_closes_of_either_side_are_told() -> None:
    seen: list[tuple[int, str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/close":
            await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
            with pytest.raises(RuntimeError, match="after the end"):
                await send({"type": "websocket.send", "text": "more"})
        message = await receive()
        seen.append((message["code"], message["reason"]))

    async with served(app) as server:
        async with server.connect("/") as client:
            await client.aclose(3000, "bye")
        async with server.connect("/close") as client:
            assert (await client.wait_closed()).code == 4001
        await until(lambda: len(seen) == 2)
    assert seen == [(3000, "bye"), (4001, "enough")]


async def test_the_end_of_the_application_is_the_end_of_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/crash":
            raise ZeroDivisionError

    async with on_wire(app) as wire:
        for path, code in ("/", 1000), ("/crash", 1011):
            async with wire.connect() as client:
                assert await close_code(client, path) == code
    (found,) = [found for found in caplog.records if found.levelno >= logging.ERROR]
    assert found.getMessage().startswith("handler.crashed")


async def crash(scope: Scope, receive: Receive, send: Send) -> None:
    raise ZeroDivisionError


async def silence(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()


async def uninvited(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "subprotocol": "x"})


async def injection(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "headers": [(b"x", b"1\r\nset-cookie: evil=1")]})


async def reserved(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"x")]})


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.send", "text": "x"})


@pytest.mark.parametrize("handler", [crash, silence, uninvited, injection, reserved, early])
async def test_a_mistake_before_the_accept_is_a_500(
    handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    async with on_wire(handler) as wire, wire.connect() as client:
        await client.send(build_request("localhost", "/x", KEY))
        status, fields = await client.head()
        assert status == 500
        assert "set-cookie" not in fields
    (found,) = [found for found in caplog.records if found.levelno >= logging.ERROR]
    assert found.getMessage().startswith("handler.crashed")


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.accept"},
        {"type": "websocket.send", "text": 3},
    ],
)
async def test_a_mistake_in_the_connection_closes_it_with_1011(message: dict[str, object]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send(message)

    async with on_wire(app) as wire, wire.connect() as client:
        assert await close_code(client, "/") == 1011


async def test_an_application_that_does_not_decide_gets_a_503(caplog: pytest.LogCaptureFixture) -> None:
    ended = trio.Event()

    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with served(stuck, timeouts=attrs.evolve(LASTING, guard=0.1)) as server:
        with pytest.raises(trio_websocket.ConnectionRejected) as caught:
            async with server.connect("/"):
                pass
        assert caught.value.status_code == 503
        await ended.wait()
    assert "mount.timeout" in caplog.text


async def test_an_application_that_resists_while_it_decides_counts_until_it_ends(
    kind: str, contexts: Contexts
) -> None:
    """Its client could start more of it."""
    over = trio.Event()

    async def stubborn(scope: Scope, receive: Receive, send: Send) -> None:
        with trio.CancelScope(shield=True):
            await over.wait()

    app = app_with(stubborn, timeouts=attrs.evolve(LASTING, guard=0.1))
    async with app.running(), port(kind, contexts, app) as wire:
        try:
            async with wire.connect() as client:
                await client.send(build_request("localhost", "/", KEY))
                assert (await client.answer())[0] == 503
                assert await client.at_end()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert wire.server.statistics().connections == 1
        finally:
            over.set()
        await until(lambda: wire.server.statistics().connections == 0)


async def test_an_application_ends_when_its_client_leaves(kind: str, contexts: Contexts) -> None:
    begun, ended = trio.Event(), list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            if scope["path"] == "/open":
                await send({"type": "websocket.accept"})
            begun.set()
            await trio.sleep_forever()
        finally:
            ended.append(scope["path"])

    app_ = app_with(app)
    async with app_.running(), port(kind, contexts, app_) as wire:
        for path in "/deciding", "/open":
            async with wire.connect() as client:
                await client.send(build_request("localhost", path, KEY))
                await begun.wait()
                begun = trio.Event()
            await until(lambda path=path: path in ended)  # type: ignore[misc]


async def test_a_message_to_a_client_that_has_left_raises_and_is_no_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError:
            raised.set()
            raise

    async with served(app) as server:
        async with server.connect("/") as client:
            await client.aclose()
        await raised.wait()
        await trio.testing.wait_all_tasks_blocked()
    assert not [found for found in caplog.records if found.levelno >= logging.ERROR]


async def test_limits_and_backpressure_are_those_of_every_connection() -> None:
    sent = 0

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await receive()
        await send({"type": "websocket.accept"})
        if scope["path"] == "/echo":
            await receive()
        while True:
            await send({"type": "websocket.send", "bytes": bytes(20_000)})
            sent += 1

    limits = Limits(message_bytes=1000, outbox_bytes=50_000)
    async with on_wire(flood, limits=limits) as wire, wire.connect() as client:
        await client.send(build_request("localhost", "/", KEY))
        before = -1
        while before != sent:
            before = sent
            await trio.sleep(0.2)
        assert sent < 1000
    async with served(flood, limits=limits) as server, server.connect("/echo") as sender:
        await sender.send("x" * 2000)
        assert (await sender.wait_closed()).code == 1009


async def test_guards_and_origins_come_first() -> None:
    app = app_with(echo)

    @app.guard
    async def guard(request: Request) -> None:
        if request.headers.get("x-key") != "1":
            raise Reject(401)

    async with serve(app) as server:
        for headers, origin, status in [
            ({}, None, 401),
            ({"x-key": "1"}, "https://evil.example", 403),
        ]:
            with pytest.raises(trio_websocket.ConnectionRejected) as caught:
                async with server.connect("/", headers=headers, origin=origin):
                    pass
            assert caught.value.status_code == status
        async with server.connect("/", headers={"x-key": "1"}) as client:
            await client.send("hi")
            assert await client.receive() == "hi"


async def test_the_drain_closes_with_1001_and_the_application_sees_it() -> None:
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        seen.append((await receive())["code"])

    async with served(app) as server, server.connect("/") as client:
        server.stop()
        assert (await client.wait_closed()).code == 1001
    assert seen == [1001]


async def test_an_interrupt_stops_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with connect(app_with(app), "/"):
            pass


async def test_a_plain_request_in_the_middle_is_not_ours(kind: str, contexts: Contexts) -> None:
    async with connected(app_with(echo), kind, contexts) as client:
        await client.send(get("/x"))
        assert (await client.answer())[0] == 500  # this application knows no plain HTTP


async def test_an_application_learns_that_its_connection_was_not_opened() -> None:
    deciding, go_on, ended = trio.Event(), trio.Event(), trio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            deciding.set()
            await go_on.wait()
            await send({"type": "websocket.accept"})
        finally:
            ended.set()

    class Draining(Observer):
        def server_draining(self, connections: int) -> None:
            go_on.set()

    app = app_with(slow, timeouts=attrs.evolve(LASTING, drain=30.0))
    app.observe(Draining())
    async with app.running(), port("hub", None, app) as wire, wire.connect() as client:
        await client.send(build_request("localhost", "/", KEY))
        await deciding.wait()
        wire.server.stop()
        assert (await client.answer())[0] == 503
        with trio.fail_after(30):
            await ended.wait()


async def test_an_application_ends_if_its_101_cannot_be_written() -> None:
    ended = trio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await echo(scope, receive, send)
        finally:
            ended.set()

    served_ = app_with(app)

    @served_.guard
    async def guard(request: Request) -> Accept[None]:
        accept = Accept[None](headers={"x": "1"})
        accept.headers = (("x", "\u20ac"),)
        return accept

    async with served_.running(), port("hub", None, served_) as wire, wire.connect() as client:
        await client.send(build_request("localhost", "/", KEY))
        assert (await client.answer())[0] == 500
        with trio.fail_after(30):
            await ended.wait()
