"""Observers: what they are told, and that they are told of nothing that they did not ask for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked
from trio_websocket import ConnectionRejected

from tests.server.serving import serving
from wsframework import (
    App,
    Close,
    ConfigurationError,
    Connection,
    Limits,
    ObservedFrame,
    Observer,
    Reject,
    Request,
    Response,
    Timeouts,
)
from wsframework.observer import FRAME_EVENTS, event_names, observes
from wsframework.server.native import TransportChoice
from wsframework.testing import connect, request, serve
from wsframework.testing.client import Client


class Recorder(Observer):
    """Keeps the name and the arguments of everything that happens, frames left out."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        for name in event_names():
            if name not in FRAME_EVENTS:
                setattr(self, name, self._keeper(name))

    def _keeper(self, name: str) -> Callable[..., None]:
        return lambda *args: self.events.append((name, args))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def args(self, name: str) -> tuple[Any, ...]:
        """Return what the one event of this name came with."""
        (args,) = [args for event, args in self.events if event == name]
        return args


class Frames(Observer):
    """Keeps what happens on the wire."""

    def __init__(self) -> None:
        self.steps: list[object] = []

    def frame_received(self, request: Request, frame: ObservedFrame) -> None:
        self.steps.append((request.path, "in", frame))

    def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
        self.steps.append((request.path, "out", frame))


def observed(observer: Observer) -> App:
    app = App(timeouts=Timeouts(guard=1, http=1))
    assert app.observe(observer) is observer

    async def ask(request: Request) -> Response | None:
        if "crash" in request.query:
            raise LookupError("the database is down")
        return Response("no", 401) if "no" in request.query else None

    @app.websocket("/echo", guards=[ask])
    async def echo(ws: Connection) -> None:
        async for message in ws:
            if message == "crash":
                raise ZeroDivisionError("by the handler")
            if message == "close":
                raise Close(4001, "as asked")
            await ws.send(message)

    @app.http("/page")
    async def page(request: Request) -> str:
        if "crash" in request.query:
            raise ZeroDivisionError("by the page")
        return "page"

    return app


async def exchange(client: Client, *messages: str) -> None:
    for message in messages:
        await client.send(message)
        assert await client.receive() == message


def test_an_observer_observes_what_its_class_or_it_defines() -> None:
    class Some(Observer):
        def server_stopped(self, accepted: int) -> None:
            pass

    some, whole = Some(), Recorder()
    assert [name for name in event_names() if observes(some, name)] == ["server_stopped"]
    assert {name for name in event_names() if not observes(whole, name)} == FRAME_EVENTS
    assert not any(observes(Observer(), name) for name in event_names())
    assert set(event_names()) > FRAME_EVENTS


def test_every_event_does_nothing_by_itself() -> None:
    for name in event_names():
        method = getattr(Observer(), name)
        assert method(*[None] * (method.__code__.co_argcount - 1)) is None


@pytest.mark.parametrize("wrong", [Observer, object(), print])
def test_what_is_no_observer_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="derived from Observer"):
        App().observe(wrong)


async def test_a_connections_life_is_told_in_order_with_its_counters(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    app = observed(recorder)
    async with serve(app) as server:
        async with connect(app, "/echo") as client:
            await exchange(client, "one", "two")
            connection, handler = recorder.args("connection_opened")
            assert isinstance(connection, Connection)
            assert handler.endswith("echo")
            assert connection.statistics().messages_received == 2
            await client.send("three")
        await wait_all_tasks_blocked()
        assert recorder.names == [
            *("server_listening", "connection_accepted", "connection_opened", "connection_closed"),
        ]
        closed, handler = recorder.args("connection_closed")
        assert closed is connection
        assert handler.endswith("echo")
        assert connection.closed is not None
        statistics = connection.statistics()
        assert (statistics.messages_received, statistics.messages_sent) == (3, 3)
        remote, local, tls = recorder.args("connection_accepted")
        assert (remote, local) == (connection.request.remote, connection.request.local)
        assert tls is None
        server.stop()
    assert recorder.names[-2:] == ["server_draining", "server_stopped"]
    assert recorder.args("server_listening") == ((),)
    assert recorder.args("server_draining") == (0,)
    assert recorder.args("server_stopped") == (1,)


async def test_a_crash_is_told_with_its_exception_and_a_close_is_no_crash(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    app = observed(recorder)
    async with serve(app):
        async with connect(app, "/echo") as client:
            await client.send("close")
            assert (await client.wait_closed()).code == 4001
        assert "handler_crashed" not in recorder.names
        async with connect(app, "/echo") as client:
            await client.send("crash")
            assert (await client.wait_closed()).code == 1011
        await wait_all_tasks_blocked()
    request_, handler, error = recorder.args("handler_crashed")
    assert (request_.path, request_.is_websocket) == ("/echo", True)
    assert handler.endswith("echo")
    assert str(error) == "by the handler"
    assert recorder.names.count("connection_closed") == 2


async def test_refused_handshakes_and_pages_are_told(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    app = observed(recorder)
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEA==",
    }
    async with serve(app):
        assert (await request(app, "GET", "/page")).status == 200
        assert recorder.names[1:] == ["connection_accepted", "request_answered", "http_answered"]
        request_, *figures, seconds = recorder.args("request_answered")
        assert (request_.path, figures) == ("/page", [200, 4])
        assert 0 <= seconds < 60
        assert recorder.args("http_answered")[1] == 200
        recorder.events.clear()
        assert (await request(app, "GET", "/echo?no", upgrade)).status == 401
        _, status, reason, asked = recorder.args("handshake_refused")
        assert (status, reason, asked.target) == (401, "", "/echo?no")
        recorder.events.clear()
        assert (await request(app, "GET", "/echo", upgrade | {"Sec-WebSocket-Version": "7"})).status == 426
        _, status, reason, asked = recorder.args("handshake_refused")
        assert (status, asked) == (426, None)
        assert "ersion" in reason
        assert recorder.names == ["connection_accepted", "handshake_refused", "http_answered"]


@pytest.mark.parametrize("transport", ["hub", "stream"])
async def test_an_answer_to_what_is_no_request_is_told_too(transport: TransportChoice) -> None:
    recorder = Recorder()
    app = App(timeouts=Timeouts(handshake=0.2), limits=Limits(head_bytes=100))
    app.observe(recorder)
    async with serving(app, transport=transport) as server:
        for sent, status in [
            (b"hello\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 100, 431),
            (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
            (b"GET / HTTP/1.1\r\n", 408),
        ]:
            recorder.events.clear()
            async with await trio.open_tcp_stream("127.0.0.1", server.port or 0) as stream:
                await stream.send_all(sent)
                assert bytes(await stream.receive_some()).startswith(b"HTTP/1.1 %d " % status)
            assert recorder.args("http_answered")[1] == status


async def test_a_handshake_that_the_drain_refuses_is_told_once(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    app = App()
    app.observe(recorder)

    async def slow(request: Request) -> Response | None:
        await trio.sleep(3)  # longer than handshakes get
        if "no" in request.query:
            raise Reject(401, close=4401)
        return None

    @app.websocket("/", guards=[slow])
    async def never(ws: Connection) -> None: ...

    async def knock(path: str) -> None:
        with pytest.raises(ConnectionRejected) as caught:
            async with connect(app, path):
                pass
        assert caught.value.status_code == 503

    async with serve(app) as server, trio.open_nursery() as nursery:
        nursery.start_soon(knock, "/")
        nursery.start_soon(knock, "/?no")
        await trio.sleep(1)
        server.stop()
    told = [args for name, args in recorder.events if name == "handshake_refused"]
    refused = sorted((asked.target, status, reason) for _, status, reason, asked in told)
    assert refused == [("/", 503, ""), ("/?no", 401, "Close 4401")]
    assert "connection_opened" not in recorder.names


async def test_crashes_while_a_request_is_decided_are_told(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    app = observed(recorder)
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEA==",
    }
    async with serve(app):
        assert (await request(app, "GET", "/page?crash")).status == 500
        asked, name, error = recorder.args("handler_crashed")
        assert (asked.target, asked.is_websocket) == ("/page?crash", False)
        assert name.endswith("page")
        assert str(error) == "by the page"
        assert (await request(app, "GET", "/echo?crash", upgrade)).status == 500
        asked, name, error = recorder.args("guard_crashed")
        assert asked.target == "/echo?crash"
        assert name.endswith("ask")
        assert str(error) == "the database is down"
        assert recorder.args("handshake_refused")[1] == 500


async def test_an_observer_of_frames_gets_kinds_and_sizes_and_no_content(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wsframework")
    frames = Frames()
    app = observed(frames)
    async with serve(app):
        async with connect(app, "/echo") as client:
            await exchange(client, "größe")
            await client.aclose(4000, "bye")
        await wait_all_tasks_blocked()
        assert frames.steps == [
            ("/echo", "in", ObservedFrame("text", 7)),
            ("/echo", "out", ObservedFrame("text", 7)),
            ("/echo", "in", ObservedFrame("close", 5, 4000, "bye")),
            ("/echo", "out", ObservedFrame("close", 2, 4000)),
        ]
        assert (await request(app, "GET", "/page")).status == 200
        assert len(frames.steps) == 4
    assert not any(entry.__dict__["event"].startswith("message.") for entry in caplog.records)


async def test_an_observer_that_raises_hurts_neither_connection_nor_server_nor_other_observers(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Observer):
        def connection_opened(self, connection: Connection, handler: str) -> None:
            raise SystemExit("opened")

        def connection_closed(self, connection: Connection, handler: str) -> None:
            raise RuntimeError("closed")

        def server_listening(self, addresses: object) -> None:
            raise BaseExceptionGroup("all", [GeneratorExit(), trio.BrokenResourceError()])

    caplog.set_level(logging.INFO, "wsframework")
    recorder = Recorder()
    app = observed(Broken())
    app.observe(recorder)
    async with serve(app):
        for _ in range(3):
            async with connect(app, "/echo") as client:
                await exchange(client, "hello")
        await trio.sleep(11)
        failed = [entry for entry in caplog.records if entry.__dict__["event"] == "observer.failed"]
        assert len(failed) == 2  # at once, and ten seconds later the rest of them
        fields = [entry.__dict__["fields"] for entry in failed]
        assert fields[0]["observer"].endswith("Broken")
        assert fields[0]["method"] == "server_listening"
        assert (fields[1]["method"], fields[1]["count"]) == ("connection_closed", 6)
        assert failed[1].exc_info is not None
    assert recorder.names.count("connection_opened") == recorder.names.count("connection_closed") == 3
    assert recorder.names[-1] == "server_stopped"


@pytest.mark.parametrize("event", ["connection_accepted", "connection_opened", "connection_closed"])
async def test_a_keyboard_interrupt_in_an_observer_stops_the_server_and_comes_out(
    autojump_clock: MockClock, event: str
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt(event)

    observer = Recorder()
    setattr(observer, event, interrupt)
    app = observed(observer)
    codes: list[object] = []

    async def visit() -> None:
        async with serve(app) as server, connect(app, "/echo") as client:
            await exchange(client, "hello")
            if event == "connection_closed":
                await client.aclose()
            await server.server.wait_stopping()
            codes.append((await client.wait_closed()).code)

    with pytest.raises(KeyboardInterrupt, match=event):
        await visit()
    assert codes == [1000 if event == "connection_closed" else 1001]
    assert observer.names[-1] == "server_stopped"


async def test_a_lifespan_is_early_enough_to_register(autojump_clock: MockClock) -> None:
    recorder, app = Recorder(), App()

    @app.lifespan
    async def metrics(app: App) -> Any:
        app.observe(recorder)
        yield

    async with serve(app):
        pass
    assert recorder.names == ["server_listening", "server_draining", "server_stopped"]
