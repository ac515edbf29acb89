"""The server as a whole: what it says about itself, how it stops, and that no bytes can bring it down."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
import trio.testing
import trio_websocket

from tests.server.serving import QUICK, echo_app, serving
from tests.waiting import until
from tests.wire.encoding import encode_text
from wsframework import App, ListenError, Timeouts
from wsframework.config import Keepalive, Limits
from wsframework.request import Address, Request, Response
from wsframework.server import Server, TransportChoice, serve, serve_streams
from wsframework.server.blocking import BlockedLoop, LoopWatch
from wsframework.server.framing import FrameTransport
from wsframework.server.logged import LogObserver
from wsframework.server.pollers import Poller, SelectorPoller
from wsframework.server.stacks import Standing
from wsframework.session import Acceptance
from wsframework.streamed import Streamed
from wsframework.timers import Timers
from wsframework.wire import Opcode, build_request, encode_frame

UPGRADE = build_request("x", "/", "dGhlIHNhbXBsZSBub25jZQ==")
KEY = b"\1\2\3\4"

WAYS: list[tuple[TransportChoice, Callable[[], Poller] | None]] = [
    ("auto", None),
    ("stream", None),
    ("hub", SelectorPoller),  # what macOS and BSD get
]
every_way = pytest.mark.parametrize(("transport", "poller"), WAYS, ids=["auto", "stream", "selector"])


async def exchange(server: Server, data: bytes, *, end: bool = True) -> bytes:
    """Send, say FIN, and read to the end."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        received = bytearray()
        try:
            await stream.send_all(data)
            if end:
                await stream.send_eof()
            while piece := await stream.receive_some():
                received += piece
        except trio.BrokenResourceError:
            pass
        return bytes(received)


@attrs.define(eq=False)
class Counts(trio.abc.Instrument):
    """Whether, after any step of a task, fewer connections than WebSockets were counted."""

    server: Server
    wrong: bool = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        statistics = self.server.statistics()
        self.wrong |= statistics.connections < statistics.websockets


@every_way
async def test_it_counts_connections(transport: TransportChoice, poller: Callable[[], Poller] | None) -> None:
    async with serving(echo_app(Limits(connections=2)), transport=transport, poller=poller) as server:
        counts = Counts(server)
        trio.lowlevel.add_instrument(counts)
        assert not server.draining
        url = f"ws://127.0.0.1:{server.port}/"
        async with trio_websocket.open_websocket_url(url):
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await until(lambda: server.statistics().connections == 2)
            statistics = server.statistics()
            assert (statistics.websockets, statistics.accepted, statistics.refused) == (1, 2, 0)
            assert b" 503 " in await exchange(server, b"")
            assert server.statistics().refused == 1
            await stream.aclose()
        await until(lambda: not server.statistics().connections)
        trio.lowlevel.remove_instrument(counts)
        assert not counts.wrong


# Messages and pages in every way


@every_way
async def test_it_echoes_messages_of_all_sizes(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    app = echo_app(Limits(message_bytes=8 * 1024 * 1024))
    async with serving(app, transport=transport, poller=poller) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        async with trio_websocket.open_websocket_url(url, max_message_size=10**7) as client:
            for size in (0, 1, 125, 126, 65535, 65536, 3_000_000):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send_message, b"x" * size)
                    assert await client.get_message() == b"x" * size


@every_way
async def test_it_answers_pages(transport: TransportChoice, poller: Callable[[], Poller] | None) -> None:
    async with serving(echo_app(), transport=transport, poller=poller) as server:
        answer = await exchange(server, b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n", end=False)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"a page")


@every_way
async def test_pings_to_quiet_clients_are_answered_and_keep_the_connection(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    app = echo_app(keepalive=Keepalive(interval=0.05, timeout=0.1))
    async with (
        serving(app, transport=transport, poller=poller) as server,
        trio_websocket.open_websocket_url(f"ws://127.0.0.1:{server.port}/") as client,
    ):
        await trio.sleep(0.4)
        await client.send_message("still here")
        assert await client.get_message() == "still here"


async def test_connections_that_are_dropped_together_let_other_tasks_run_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked, run = 0, [0]

    def check(transport: FrameTransport, now: float, keepalive: Keepalive) -> None:
        nonlocal checked
        checked += 1
        end = time.perf_counter() + 0.001
        while time.perf_counter() < end:
            pass

    monkeypatch.setattr(FrameTransport, "check_alive", check)
    app = echo_app(keepalive=Keepalive(interval=20))
    async with serving(app) as server, AsyncExitStack() as stack:
        for _ in range(60):
            url = f"ws://127.0.0.1:{server.port}/"
            await stack.enter_async_context(trio_websocket.open_websocket_url(url))
        checked = 0
        with trio.fail_after(30):
            while checked < 60:
                await trio.lowlevel.checkpoint()
                run.append(checked)
    assert max(after - before for before, after in itertools.pairwise(run)) < 40


# Mistakes of ours


@every_way
async def test_a_decision_that_raises_ends_one_connection_and_is_logged(
    transport: TransportChoice, poller: Callable[[], Poller] | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(timeouts=QUICK)

    class Broken(App):
        async def decide(self, request: Request) -> Acceptance | Response | Streamed:
            if request.path == "/broken":
                raise ZeroDivisionError("a mistake of ours")
            return await app.decide(request)

    async with serving(Broken(timeouts=QUICK), transport=transport, poller=poller) as server:
        assert (await exchange(server, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
            b"HTTP/1.1 500"
        )
        assert b" 404 " in await exchange(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: not server.statistics().connections)
    (entry,) = [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert entry.getMessage().startswith("connection.failed")
    assert entry.exc_info is not None
    assert entry.exc_info[0] is ZeroDivisionError


# Stopping


@every_way
async def test_stop_does_what_cancelling_does(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    async with (
        serving(echo_app(), transport=transport, poller=poller) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await stream.send_all(UPGRADE)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 101 ")
        server.stop()
        close = await stream.receive_some()
        assert close[:1] == b"\x88"
        assert close[2:4] == (1001).to_bytes(2)
        assert server.draining
        await stream.send_all(encode_frame(Opcode.CLOSE, (1001).to_bytes(2), masking_key=KEY))
        assert await stream.receive_some() == b""


@every_way
async def test_a_second_stop_cuts_the_drain_short(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    app = App(timeouts=Timeouts(drain=60, close=60, disconnect_grace=60))

    @app.websocket("/")
    async def sleeps(ws: object) -> None:
        await trio.sleep_forever()

    async with (
        serving(app, transport=transport, poller=poller) as server,
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
    ):
        await stream.send_all(UPGRADE)
        await stream.receive_some()
        server.stop()
        await trio.sleep(0.1)
        assert server.statistics().connections == 1
        server.stop()
        await until(lambda: not server.statistics().connections)


async def test_serve_says_where_it_cannot_listen() -> None:
    async with serving(echo_app()) as server:
        app = echo_app()
        with pytest.raises(ListenError, match="in use"):
            await serve(
                app.decide,
                host="127.0.0.1",
                port=server.port,
                limits=app.limits,
                timeouts=app.timeouts,
                keepalive=app.keepalive,
            )


# Streams from elsewhere


async def test_a_server_without_listeners_serves_the_streams_it_is_given(nursery: trio.Nursery) -> None:
    app = echo_app()
    server: Server = await nursery.start(
        lambda task_status: serve_streams(
            app.decide,
            limits=app.limits,
            timeouts=app.timeouts,
            keepalive=app.keepalive,
            task_status=task_status,
        )
    )
    ours, theirs = trio.testing.memory_stream_pair()
    server.serve_soon(theirs, Address("192.0.2.1", 1), Address("192.0.2.2", 2))
    await ours.send_all(UPGRADE + encode_frame(Opcode.TEXT, b"hello", masking_key=KEY))
    received = bytearray()
    while not received.endswith(encode_text("hello")):
        received += await ours.receive_some()
    assert received.startswith(b"HTTP/1.1 101 ")
    await ours.aclose()


# Fuzz


def nonsense(dice: random.Random) -> bytes:
    """Random bytes, or something real with a few bytes changed, cut or doubled."""
    real = [
        UPGRADE,
        UPGRADE + encode_frame(Opcode.TEXT, b"hello", masking_key=KEY),
        UPGRADE + b"".join(encode_frame(dice.choice(list(Opcode)), b"ab", masking_key=KEY) for _ in range(5)),
        UPGRADE + dice.randbytes(dice.randrange(300)),
        b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /page HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ]
    if dice.random() < 0.2:
        return dice.randbytes(dice.randrange(1, 2000))
    data = bytearray(dice.choice(real))
    for _ in range(dice.randrange(4)):
        # Mostly behind the handshake's head, which does not survive much.
        start = 0 if dice.random() < 0.4 else min(len(UPGRADE), len(data) - 1)
        at = dice.randrange(start, len(data))
        match dice.randrange(4):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(1, 9)]
            case 2:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            case _:
                data += data[at : at + 200]
        if len(data) < 2:
            break
    return bytes(data)


@every_way
async def test_no_bytes_bring_a_living_server_down(
    transport: TransportChoice, poller: Callable[[], Poller] | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dice = random.Random(20240229)
    async with serving(echo_app(), transport=transport, poller=poller) as server:
        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(exchange, server, nonsense(dice))
        await until(lambda: not server.statistics().connections)
        async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{server.port}/") as client:
            await client.send_message("alive?")
            assert await client.get_message() == "alive?"
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []
    assert server.statistics().accepted == 801


@every_way
async def test_a_frame_that_comes_before_the_handshake_is_answered_is_received(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    app, asked, decided = echo_app(), trio.Event(), trio.Event()

    @app.guard
    async def guard(request: Request) -> None:
        asked.set()
        await decided.wait()

    async with serving(app, transport=transport, poller=poller) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(UPGRADE)
        await asked.wait()
        await stream.send_all(encode_frame(Opcode.TEXT, b"early", masking_key=b"1234"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        decided.set()
        data = b""
        while not data.endswith(encode_frame(Opcode.TEXT, b"early")):
            more = await stream.receive_some()
            assert more, data
            data += more
        await stream.aclose()


@every_way
async def test_quiet_clients_are_pinged(
    transport: TransportChoice, poller: Callable[[], Poller] | None
) -> None:
    app = echo_app(keepalive=Keepalive(interval=0.05))
    async with serving(app, transport=transport, poller=poller) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(UPGRADE)
        data = b""
        while b"\r\n\r\n\x89" not in data:
            more = await stream.receive_some()
            assert more, data
            data += more
        await stream.aclose()


# Clocks


async def test_a_clock_of_a_test_that_jumps_is_no_blocked_loop(caplog: pytest.LogCaptureFixture) -> None:
    clock = trio.testing.MockClock()

    def program() -> None:
        trio.run(jump, clock=clock)

    async def jump() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(App().serve, "127.0.0.1", 0)
            # Real time passes, in which the loop runs and the test's clock stands still.
            await trio.to_thread.run_sync(time.sleep, 0.6)
            clock.jump(60)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            assert server._core.timers.forgiven == 0
            nursery.cancel_scope.cancel()

    await trio.to_thread.run_sync(program)
    assert "loop.blocked" not in caplog.text


@every_way
async def test_a_handshake_is_not_late_because_a_handler_blocked_the_loop(
    transport: TransportChoice, poller: Callable[[], Poller] | None, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(timeouts=Timeouts(handshake=3))
    blocked = trio.Event()

    @app.websocket("/block")
    async def block(ws: object) -> None:
        time.sleep(3.5)  # noqa: ASYNC251
        blocked.set()

    async with serving(app, transport=transport, poller=poller) as server:
        late = await trio.open_tcp_stream("127.0.0.1", server.port)
        await late.send_all(b"GET /nothing HTTP/1.1\r\n")
        await trio.sleep(0.3)
        blocking = await trio.open_tcp_stream("127.0.0.1", server.port)
        await blocking.send_all(build_request("localhost", "/block", "dGhlIHNhbXBsZSBub25jZQ=="))
        await blocked.wait()
        await trio.sleep(0.1)
        await late.send_all(b"Host: x\r\n\r\n")
        assert b" 404 " in await late.receive_some()
        await late.aclose()
        await blocking.aclose()
    (entry,) = [entry for entry in caplog.records if entry.__dict__.get("event") == "loop.blocked"]
    assert entry.__dict__["fields"]["handler"].endswith(".block"), "the log names what blocked it"


async def test_who_blocked_the_loop_for_a_moment_is_not_named_for_the_next_standstill(
    caplog: pytest.LogCaptureFixture,
) -> None:
    standings = [Standing("a_moment", ""), None]

    class Watch(LoopWatch):
        def __init__(self) -> None:
            pass

        def take(self) -> Standing | None:
            return standings.pop(0)

    timers = Timers()
    blocked_loop = BlockedLoop(timers, LogObserver(timers))
    blocked_loop.watch(Watch())
    for seconds in (0.2, 4.0):
        blocked_loop.report(seconds)
    (entry,) = [entry for entry in caplog.records if entry.__dict__.get("event") == "loop.blocked"]
    assert standings == []
    assert 4 <= entry.__dict__["fields"]["seconds"] <= 4.25
    assert entry.__dict__["fields"].get("handler") is None
