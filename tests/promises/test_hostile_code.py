"""Promise 11 against code that does what few programs do: in exceptions, in log handlers, in observers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeAlias

import attrs
import pytest
import trio
import trio.testing

from tests.promises.rawclient import CLOSE, TEXT, Client, close_frame, frame, upgrade_request
from tests.promises.stage import PATIENT, Stage, new_app, serve_by
from tests.waiting import until
from wsframework import Address, App, Close, Connection, ObservedFrame, Observer, Request
from wsframework.crashes import interrupt_in
from wsframework.server import Server


class Own(BaseException):
    """Of the application's own making."""


def echoing(**settings: object) -> App:
    app = new_app(**settings)  # type: ignore[arg-type]

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


async def serve_apart(stage: Stage, app: App) -> tuple[Server, list[BaseException]]:
    """Serve in a task whose exception is kept."""
    raised: list[BaseException] = []
    ready: list[Server] = []

    async def program() -> None:
        try:
            async with trio.open_nursery() as nursery:
                serve = functools.partial(serve_by, stage.transport, app, host="127.0.0.1", port=0)
                ready.append(await nursery.start(serve))
        except BaseException as error:
            raised.append(error)

    stage.nursery.start_soon(program)
    await until(lambda: ready)
    return ready[0], raised


async def is_served(client: Client, text: str) -> None:
    await client.send(frame(TEXT, text))
    assert await client.next_text() == text


async def close_code(client: Client) -> int:
    """Wait for the server's Close, answer it, and wait for the end."""
    while (found := await client.next_frame()).opcode != CLOSE:
        pass
    await client.send(close_frame(None))
    assert await client.read_to_end() == []
    client.vanish()
    return found.close_code


# Exceptions


class Raises(BaseExceptionGroup):
    """Has attributes of its own where Python's groups have theirs."""

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        raise SystemExit(3)

    @property
    def message(self) -> str:
        raise SystemExit(3)


class HoldsNothing(ExceptionGroup):
    @property
    def exceptions(self) -> tuple[Exception, ...]:
        return ()


class Unsplittable(BaseExceptionGroup):
    def split(self, *_: object) -> object:  # type: ignore[override]
        return "neither half"

    def derive(self, *_: object) -> object:  # type: ignore[override]
        raise SystemExit(3)


class NoClose(Close):
    def __init__(self) -> None:
        """Does not call ours, so it has neither code nor reason."""


def changed(code: object, reason: object) -> Close:
    close = Close(4000, "as it should be")
    close.code, close.reason = code, reason  # type: ignore[assignment]
    return close


FIGHTING: dict[str, Callable[[], BaseException]] = {
    "group, raises": lambda: Raises("g", [ValueError(1), Own(2)]),
    "group, raises, in a group": lambda: BaseExceptionGroup("g", [Raises("g", [ValueError(1)]), Own(2)]),
    "group, holds nothing": lambda: HoldsNothing("g", [ValueError(1)]),
    "group, unsplittable": lambda: Unsplittable("g", [Close(4000), ValueError(1)]),
    "no close": NoClose,
    "close, no such code": lambda: changed(5, ""),
    "close, no number": lambda: changed("4000", ""),
    "close, half a code": lambda: changed(4000.5, ""),
    "close, long reason": lambda: changed(4000, "x" * 500),
    "close, no text": lambda: changed(4000, None),
}


@pytest.mark.parametrize("place", ["handler", "child", "page", "guard"])
async def test_an_exception_that_is_not_what_it_seems_is_a_crash(stage: Stage, place: str) -> None:
    app = echoing()
    crashes: list[str] = []

    class Crashes(Observer):
        def handler_crashed(self, request: Request, handler: str, error: BaseException) -> None:
            crashes.append(handler)

        def guard_crashed(self, request: Request, guard: str, error: BaseException) -> None:
            crashes.append(guard)

    app.observe(Crashes())

    @app.websocket("/handler/{kind}")
    async def handler(ws: Connection, kind: str) -> None:
        raise FIGHTING[kind.replace("_", " ")]()

    @app.websocket("/child/{kind}")
    async def parent(ws: Connection, kind: str) -> None:
        ws.nursery.start_soon(child, kind)
        await trio.sleep_forever()

    async def child(kind: str) -> None:
        raise FIGHTING[kind.replace("_", " ")]()

    async def guard(request: Request) -> None:
        raise FIGHTING[request.path.rpartition("/")[2].replace("_", " ")]()

    @app.websocket("/guard/{kind}", guards=[guard])
    async def guarded(ws: Connection, kind: str) -> None:
        """Not reached."""

    @app.http("/page/{kind}")
    async def page(request: Request, kind: str) -> str:
        raise FIGHTING[kind.replace("_", " ")]()

    server = await stage.serve(app)
    innocent = await stage.connect(server)
    for kind in FIGHTING:
        path = f"/{place}/{kind.replace(' ', '_')}"
        if place == "page":
            assert (
                await stage.ask(server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            ).status == 500, kind
        elif place == "guard":
            assert (await (await stage.dial(server)).upgrade(path)).status == 500, kind
        else:
            culprit = await stage.connect(server, path)
            assert await close_code(culprit) == 1011, kind
        await is_served(innocent, kind)
    assert len(crashes) == len(FIGHTING)


# KeyboardInterrupt


async def test_code_that_raises_keyboard_interrupt_many_times_does_not_cut_the_drain_short(
    stage: Stage,
) -> None:
    app = echoing(timeouts=attrs.evolve(PATIENT, drain=15, disconnect_grace=10))
    finished = trio.Event()

    class Interrupts(Observer):
        def connection_closed(self, connection: Connection, handler: str) -> None:
            raise KeyboardInterrupt

    app.observe(Interrupts())

    @app.websocket("/busy")
    async def busy(ws: Connection) -> None:
        await ws.wait_draining()
        await trio.sleep(0.5)
        finished.set()

    server, raised = await serve_apart(stage, app)
    ends = [await stage.connect(server) for _ in range(3)]
    working = await stage.connect(server, "/busy")
    for client in ends:
        await client.close_well()
    assert await close_code(working) == 1001
    await until(lambda: raised)
    assert finished.is_set(), "the drain was cut short"
    assert interrupt_in(raised[0]) is not None


# Logging


class Breaks(logging.Handler):
    """A handler that raises, for one event or for all."""

    def __init__(self, error: type[BaseException], event: str | None = None) -> None:
        super().__init__()
        self.error = error
        self.event = event
        self.broken = 0

    def emit(self, entry: logging.LogRecord) -> None:
        if self.event in (None, entry.__dict__.get("event")):
            self.broken += 1
            raise self.error


@pytest.fixture
def breaking() -> Iterator[Callable[..., Breaks]]:
    ours = logging.getLogger("wsframework")
    handlers: list[Breaks] = []
    level = ours.level

    def begin(error: type[BaseException], event: str | None = None) -> Breaks:
        handlers.append(Breaks(error, event))
        ours.addHandler(handlers[-1])
        ours.setLevel(logging.DEBUG)
        return handlers[-1]

    yield begin
    ours.setLevel(level)
    for handler in handlers:
        ours.removeHandler(handler)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError, Own, ValueError])
async def test_a_log_handler_that_raises_ends_nothing(
    stage: Stage,
    breaking: Callable[..., Breaks],
    error: type[BaseException],
    capfd: pytest.CaptureFixture[str],
) -> None:
    app = echoing()

    @app.websocket("/crash")
    async def crash(ws: Connection) -> None:
        raise ValueError("a mistake")

    server = await stage.serve(app)
    innocent = await stage.connect(server)
    broken = breaking(error)
    for _ in range(2):
        await is_served(innocent, "one")
        newcomer = await stage.connect(server)
        await is_served(newcomer, "two")
        await newcomer.close_well()
        culprit = await stage.connect(server, "/crash")
        assert await close_code(culprit) == 1011
    await until(lambda: server.statistics().connections == 1)
    assert broken.broken > 20
    stage.cancel(server)
    assert await close_code(innocent) == 1001
    await stage.wait_ended(server)


async def test_a_log_handler_that_raises_keyboard_interrupt_stops_the_server_with_1001_for_everybody(
    stage: Stage, breaking: Callable[..., Breaks]
) -> None:
    """Also where the hub reads."""
    app = echoing(timeouts=attrs.evolve(PATIENT, drain=60))
    server, raised = await serve_apart(stage, app)
    breaking(KeyboardInterrupt, "message.received")
    clients = [await stage.connect(server) for _ in range(3)]
    await clients[0].send(frame(TEXT, "logged"))
    with trio.fail_after(30):
        for client in clients:
            assert await close_code(client) == 1001
        await until(lambda: raised)
    assert interrupt_in(raised[0]) is not None


# Streams


Both: TypeAlias = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


class Breaking(trio.abc.HalfCloseableStream):
    """A stream of the program's, with one method that raises."""

    def __init__(self, inner: Both, method: str, error: BaseException) -> None:
        self.inner = inner
        self.method = method
        self.error = error

    def _perhaps(self, method: str) -> None:
        if method == self.method:
            raise self.error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._perhaps("send_all")
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self._perhaps("receive_some")
        return await self.inner.receive_some(max_bytes)

    async def send_eof(self) -> None:
        self._perhaps("send_eof")
        await self.inner.send_eof()

    async def aclose(self) -> None:
        await self.inner.aclose()
        self._perhaps("aclose")


@pytest.mark.parametrize("method", ["receive_some", "send_all", "send_eof", "aclose"])
@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(), Own(), OSError(5, "no"), asyncio.CancelledError()]
)
async def test_a_stream_that_raises_ends_its_own_connection(
    stage: Stage, method: str, error: BaseException
) -> None:
    server = await stage.serve(echoing())
    innocent = await stage.connect(server)
    for _ in range(2):
        ours, theirs = trio.testing.memory_stream_pair()
        server.serve_soon(Breaking(theirs, method, error), Address("here", 1), Address("there", 2))
        await ours.send_all(upgrade_request("/") + frame(TEXT, "one") + close_frame())
        with contextlib.suppress(trio.BrokenResourceError):
            while await ours.receive_some():
                pass
        await ours.aclose()
    await is_served(innocent, "one")
    await until(lambda: server.statistics().connections == 1)


class Held(trio.abc.Stream):
    """Takes no byte until it is let."""

    def __init__(self, inner: Both) -> None:
        self.inner = inner
        self.let = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.let.wait()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.mark.parametrize("end", ["taken", "left", "stopped"])
async def test_a_handler_starts_when_the_answer_to_the_upgrade_has_left(stage: Stage, end: str) -> None:
    """One that blocks the event loop would hold it back."""
    app = new_app()
    started = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        started.set()

    server = await stage.serve(app)
    ours, theirs = trio.testing.memory_stream_pair()
    held = Held(theirs)
    server.serve_soon(held, Address("here", 1), Address("there", 2))
    await ours.send_all(upgrade_request("/"))
    await until(lambda: server.statistics().websockets == 1)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not started.is_set()
    if end == "taken":
        held.let.set()
        assert (await ours.receive_some()).startswith(b"HTTP/1.1 101")
    elif end == "left":
        await ours.aclose()
        held.let.set()
    else:
        stage.cancel(server)
        await stage.wait_ended(server)
    await started.wait()
    await ours.aclose()


# Observers


async def test_an_observer_of_frames_that_sends_is_not_called_for_what_it_sends(stage: Stage) -> None:
    app = new_app()
    connections: list[Connection] = []
    told: dict[str, list[int]] = {"sends": [], "listens": []}

    class Sends(Observer):
        def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
            told["sends"].append(frame.payload_bytes)
            for ws in connections:
                ws.send_nowait("and more")

    class Listens(Observer):
        def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
            told["listens"].append(frame.payload_bytes)

    app.observe(Sends())
    app.observe(Listens())

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        connections.append(ws)
        async for message in ws:
            await ws.send(message)

    server = await stage.serve(app)
    client = await stage.connect(server)
    for text in ("one", "four"):
        await client.send(frame(TEXT, text))
        assert await client.next_text() == text
        assert await client.next_text() == "and more"
    assert told["sends"] == [3, 4]
    assert sorted(told["listens"]) == [3, 4, 8, 8]


async def test_a_context_that_an_observer_sets_is_not_that_of_another_clients_handler(stage: Stage) -> None:
    current: ContextVar[str] = ContextVar("current", default="")

    class Sets(Observer):
        def connection_accepted(self, remote: Address, local: Address, tls: str | None) -> None:
            current.set(f"{current.get()} accepted")

        def frame_received(self, request: Request, frame: ObservedFrame) -> None:
            current.set(f"{current.get()} {request.path}")

    app = new_app()
    app.observe(Sets())
    found: list[str] = []

    @app.websocket("/{name}")
    async def handler(ws: Connection, name: str) -> None:
        found.append(current.get())
        await ws.send(await ws.receive())

    server = await stage.serve(app)
    for name in ("one", "two", "three"):
        client = await stage.connect(server, f"/{name}")
        await is_served(client, name)
        await client.close_well()
    assert not any("/" in text or text.count("accepted") > 1 for text in found)
