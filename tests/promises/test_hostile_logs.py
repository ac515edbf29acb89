"""Promise 11 where the log cannot be written, or is what is sent."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import attrs
import pytest
import trio
import trio.testing

from tests.promises.rawclient import CLOSE, TEXT, Client, close_frame, frame
from tests.promises.stage import PATIENT, Stage, new_app
from tests.promises.test_hostile_code import serve_apart
from tests.waiting import until
from wsframework import App, Connection, Room
from wsframework.server.logged import LogObserver


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    """The logger of the package; what a test changes is taken back."""
    logger = logging.getLogger("wsframework")
    level, handlers = logger.level, logger.handlers[:]
    yield logger
    logger.setLevel(level)
    logger.handlers[:] = handlers


class Full(logging.Handler):
    def emit(self, entry: logging.LogRecord) -> None:
        raise OSError("no space left on the device")


class Broken(io.TextIOBase):
    """A stream that is closed, or a pipe without a reader."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


def crashing_app() -> App:
    app = new_app()

    @app.websocket("/crash")
    async def crash(ws: Connection) -> None:
        raise ValueError("a mistake")

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


@pytest.mark.parametrize("error", [BrokenPipeError("not read"), ValueError("I/O operation on closed file.")])
async def test_a_log_that_cannot_be_written_ends_nothing_where_stderr_cannot_either(
    stage: Stage, ours: logging.Logger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    server = await stage.serve(crashing_app())
    ours.addHandler(Full())
    ours.setLevel(logging.DEBUG)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "__stderr__", Broken(error))
        for _ in range(2):
            client = await stage.connect(server, "/crash")
            assert (await client.next_frame()).close_code == 1011
            await client.send(close_frame())
            assert await client.read_to_end() == []
        client = await stage.connect(server, "/echo")
        await client.send(frame(TEXT, "beside"))
        assert await client.next_text() == "beside"
        await client.close_well()


async def test_a_log_handler_that_sends_records_gets_none_for_what_it_sends(
    stage: Stage, ours: logging.Logger
) -> None:
    room = Room("the log")
    sent: list[str] = []

    class Sends(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            sent.append(entry.getMessage())
            room.broadcast(entry.getMessage())

    app = crashing_app()

    @app.websocket("/log")
    async def log(ws: Connection) -> None:
        async with room.join(ws):
            await ws.send("joined")
            async for _ in ws:
                pass

    ours.setLevel(logging.DEBUG)
    server = await stage.serve(app)
    viewers = [await stage.connect(server, "/log") for _ in range(3)]
    for viewer in viewers:
        assert await viewer.next_text() == "joined"
    ours.addHandler(Sends())
    client = await stage.connect(server, "/echo")
    await client.send(frame(TEXT, "one message"))
    assert await client.next_text() == "one message"
    await client.close_well()
    for viewer in viewers:
        texts = [await viewer.next_text()]
        while not texts[-1].startswith("connection.closed"):
            texts.append(await viewer.next_text())
        # One for the message that came, and one for the echo.
        assert sum("bytes=11" in text for text in texts) == 2
        assert len(texts) < 40
        assert set(texts) <= set(sent)


class Interrupting(logging.Filter):
    """Raises KeyboardInterrupt at every record."""

    def filter(self, entry: logging.LogRecord) -> bool:
        raise KeyboardInterrupt


async def close_code(client: Client) -> int:
    while (found := await client.next_frame()).opcode != CLOSE:
        pass
    await client.send(close_frame())
    assert await client.read_to_end() == []
    client.vanish()
    return found.close_code


@pytest.mark.parametrize("act", ["connect", "message", "crash", "stop", "vanish", "probe"])
async def test_a_log_filter_that_raises_keyboard_interrupt_at_every_record_means_1001_for_everybody(
    stage: Stage, ours: logging.Logger, act: str
) -> None:
    app = crashing_app()
    app.timeouts = attrs.evolve(PATIENT, drain=60)

    @app.websocket("/late")
    async def late(ws: Connection) -> None:
        await ws.receive()
        raise ValueError("a mistake")

    ours.setLevel(logging.DEBUG)  # connections that are there later have records of their frames
    server, raised = await serve_apart(stage, app)
    clients = [await stage.connect(server, "/echo") for _ in range(5)]
    other = await stage.connect(server, "/late")
    await trio.testing.wait_all_tasks_blocked(0.01)  # the handlers have begun, which is recorded
    interrupting = Interrupting()
    ours.addFilter(interrupting)
    try:
        match act:
            case "connect":
                other = await stage.connect(server, "/late")
            case "message":
                await clients[0].send(frame(TEXT, "logged"))
            case "crash":
                await other.send(frame(TEXT, "go"))
            case "stop":
                server.stop()
            case "vanish":
                other.reset()
            case "probe":
                other = await stage.dial(server)
                await other.send(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        with trio.fail_after(30):
            for client in clients:
                assert await close_code(client) == 1001
            if act == "connect":
                assert await close_code(other) == 1001
            elif act == "crash":
                assert await close_code(other) == 1011
    finally:
        ours.removeFilter(interrupting)
        stage.close_clients()
    await until(lambda: raised)
    assert isinstance(raised[0], KeyboardInterrupt | BaseExceptionGroup)


async def test_a_ctrl_c_in_the_servers_code_before_a_handler_starts_delays_no_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def perhaps_interrupted(*_: object) -> None:
        if interrupting:
            raise KeyboardInterrupt

    interrupting = False
    monkeypatch.setattr(LogObserver, "connection_opened", perhaps_interrupted)
    app = crashing_app()
    app.timeouts = attrs.evolve(PATIENT, drain=60)
    server, raised = await serve_apart(stage, app)
    clients = [await stage.connect(server, "/echo")]
    await trio.testing.wait_all_tasks_blocked(0.01)
    interrupting = True
    clients.append(await stage.connect(server, "/echo"))
    with trio.fail_after(30):
        for client in clients:
            assert await close_code(client) == 1001
        await until(lambda: raised)
