"""Many clients do what no client should, all at once; afterwards the server is as it was, and serves."""

from __future__ import annotations

import gc
import logging
import os
import random
import ssl as ssl_module
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trustme

from tests.promises.rawclient import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Client,
    close_frame,
    frame,
    upgrade_request,
)
from tests.promises.stage import Stage, tasks_alive, tasks_at_rest
from tests.waiting import until
from wsframework import (
    App,
    Close,
    Connection,
    Deflate,
    Keepalive,
    Limits,
    Reject,
    Request,
    Room,
    SlowPolicy,
    Timeouts,
)
from wsframework.server import Server

SEED = 20_260
CLIENTS = 300
AT_ONCE = 40

IMPATIENT = Timeouts(
    handshake=0.5, guard=0.5, http=0.5, close=0.5, disconnect_grace=0.2, last_words=0.2, drain=1
)

LATE = {"loop.blocked", "guard.timeout", "http.timeout"}
"""What is recorded on a busy machine; the clients of the test itself are in the same loop, too."""


class Crash(Exception):
    """What handlers of this test raise: the only thing that may be logged as an error."""


class Errors(logging.Filter):
    """Keep what should not have been logged, count the crashes that were meant, let nobody else see any."""

    def __init__(self) -> None:
        super().__init__()
        self.crashes = 0
        self.unexpected: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # A group: its child has crashed, and the handler ends by itself in the same moment.
        rest = error.split((Crash, Close))[1] if isinstance(error, ExceptionGroup) else error
        meant = rest is None or isinstance(rest, Crash)
        event = getattr(record, "event", None)
        if error and meant and event == "handler.crashed":
            self.crashes += 1
        elif event not in LATE:
            self.unexpected.append(logging.Formatter().format(record))
        return False


@pytest.fixture
def errors() -> Iterator[Errors]:
    logger = logging.getLogger("wsframework")
    errors, level = Errors(), logger.level
    logger.addFilter(errors)
    logger.setLevel(logging.WARNING)
    yield errors
    logger.setLevel(level)
    logger.removeFilter(errors)


def app_of_all_sorts(crashed: Counter[str]) -> App:
    """An App whose handlers do anything, each connection's by the number in its path."""
    app = App(
        limits=Limits(message_bytes=150_000, unread_bytes=20_000, outbox_bytes=20_000),
        timeouts=IMPATIENT,
        keepalive=Keepalive(interval=0.2, timeout=0.4),
        compression=Deflate(),
    )
    rooms = [
        Room("closing", slow=SlowPolicy(max_bytes=50_000)),
        Room("dropping", slow=SlowPolicy(action="drop_oldest", max_bytes=50_000)),
    ]

    def crash(where: str) -> None:
        crashed[where] += 1
        raise Crash(where)

    @app.guard
    async def guard(request: Request) -> None:
        if "slow-guard" in request.path:
            await trio.sleep(0.05)
        if "refused" in request.path:
            raise Reject(403)

    @app.http("/page")
    async def page(request: Request) -> str:
        return "page" * 1000

    @app.websocket("/{kind}/{number:int}")
    async def anything(ws: Connection, kind: str, number: int) -> None:
        chance = random.Random(f"{SEED} handler {number}")
        async with rooms[number % 2].join(ws, number) as member:
            if chance.random() < 0.2:
                ws.nursery.start_soon(child, ws, chance)
            try:
                async for message in ws:
                    match chance.randrange(14):
                        case 0:
                            await trio.sleep(chance.random() * 0.3)
                        case 1:
                            crash("handler")
                        case 2:
                            raise Close(4000 + chance.randrange(100), "by chance")
                        case 3:
                            return
                        case 4 | 5 | 6:
                            rooms[number % 2].broadcast(message[:2000], exclude=member)
                        case 7:
                            with trio.move_on_after(chance.random() * 0.05):
                                await ws.ping()
                        case 8:
                            with trio.move_on_after(chance.random() * 0.02):
                                while True:
                                    await ws.send("flood" * chance.randrange(3000))
                        case 9:
                            with trio.move_on_after(chance.random() * 0.05):
                                await ws.aclose(1000)
                        case _:
                            await ws.send(message)
            finally:
                if chance.random() < 0.1:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(chance.random() * 0.1)

    async def child(ws: Connection, chance: random.Random) -> None:
        await trio.sleep(chance.random() * 0.2)
        match chance.randrange(4):
            case 0 if ws.closed is None:
                crash("child")
            case 1:
                await ws.send(b"from a child" * 100)
            case 2:
                await ws.aclose(4999, "closed by a child")
            case _:
                await trio.sleep_forever()

    return app


def deflated(payload: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-12)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def some_bytes(chance: random.Random) -> bytes:
    size = chance.choice([0, 1, 10, 125, 126, 1000, 5000, 65535, 65536, 149_000])
    return b"%c" % chance.randrange(97, 123) * size


def some_frames(chance: random.Random, compressed: bool) -> bytes:
    """What a client may send, or may not."""
    payload = some_bytes(chance)
    match chance.randrange(30):
        case 0:
            return bytes(chance.randrange(256) for _ in range(chance.randrange(1, 40)))
        case 1:
            return frame(TEXT, b"\xff\xfe\xfd")
        case 2:
            return frame(TEXT, payload, rsv1=True)
        case 3:
            return frame(BINARY, b"x" * 150_001)
        case 4:
            return frame(CONTINUATION, payload)
        case 5:
            return close_frame(chance.choice([1000, 1001, 3000, 4999, None]), "bye")
        case 6:
            return close_frame(999)
        case 7:
            return frame(TEXT, payload)[: chance.randrange(1, 20)]
        case 8 | 9 | 10:
            return frame(PING, payload[:125]) * chance.randrange(1, 50)
        case 11:
            return frame(PONG, payload[:125])
        case 12 | 13 | 14:
            pieces = [frame(TEXT, payload[:1000], fin=False), frame(PING)]
            pieces += [frame(CONTINUATION, payload[:100], fin=False)] * chance.randrange(5)
            return b"".join(pieces) + frame(CONTINUATION, payload[:10])
        case 15 | 16 | 17:
            return frame(BINARY, b"many" * 5) * chance.randrange(1, 2000)
        case 18 | 19 if compressed:
            return frame(TEXT, deflated(payload), rsv1=True)
        case 20 if compressed:
            return frame(BINARY, deflated(bytes(10_000_000)), rsv1=True)
        case _:
            return frame(chance.choice([TEXT, BINARY]), payload)


async def misbehave(client: Client, chance: random.Random, number: int) -> None:
    """Live one client's life, up to its end."""
    match chance.randrange(12):
        case 0:
            return  # a probe
        case 1:
            await client.send(upgrade_request()[: chance.randrange(1, 150)])
            await trio.sleep(chance.random() * 0.6)
            return
        case 2:
            await client.send(b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await client.read_all()
            return
        case 3:
            await client.send(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
            await client.read_all()
            return
    kind = chance.choice(["any", "any", "any", "slow-guard", "refused"])
    extensions = chance.choice([None, "permessage-deflate; client_no_context_takeover"])
    if kind == "slow-guard" and chance.random() < 0.5:
        await client.send(upgrade_request(f"/{kind}/{number}"), some_frames(chance, False))
        return
    answer = await client.upgrade(f"/{kind}/{number}", extensions=extensions, behind=behind(chance))
    if answer.status != 101:
        return
    async with trio.open_nursery() as nursery:
        if chance.random() < 0.8:
            nursery.start_soon(read, client, chance.random() * 0.02 * chance.randrange(2))
        for _ in range(chance.randrange(20)):
            await client.send(some_frames(chance, extensions is not None))
            if chance.random() < 0.4:
                await trio.sleep(chance.random() * 0.05)
        await trio.sleep(chance.random() * 0.2)
        if chance.random() < 0.5:
            await client.half_close()
            await trio.sleep(chance.random() * 0.5)
        nursery.cancel_scope.cancel()


def behind(chance: random.Random) -> bytes:
    return some_frames(chance, False) if chance.random() < 0.2 else b""


async def read(client: Client, pause: float) -> None:
    """Read to the end; whatever is no proper frame fails the test."""
    while data := await client.receive_bytes(chunk := 30_000):
        client.recorder.feed(data)
        if pause and len(data) == chunk:
            await trio.sleep(pause)


def is_about_the_connection(error: BaseException) -> bool:
    """Whether a client met no more than the end that it had provoked."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_about_the_connection(inner) for inner in error.exceptions)
    if isinstance(error, AssertionError):
        return "the connection ended" in str(error)
    return isinstance(error, trio.BrokenResourceError | trio.ClosedResourceError | OSError | trio.Cancelled)


async def soak(
    stage: Stage,
    dials: list[Callable[[], Awaitable[Client]]],
    numbers: range,
    *,
    until_seconds: float | None = None,
) -> None:
    """Have `AT_ONCE` clients at any time, until all numbers are used or the time is over."""
    numbered = iter(numbers)
    start = trio.current_time()

    async def work() -> None:
        for number in numbered:
            if until_seconds is not None and trio.current_time() - start > until_seconds:
                return
            chance = random.Random(f"{SEED} client {number}")
            client = None
            try:
                client = await chance.choice(dials)()
                with trio.move_on_after(5):
                    await misbehave(client, chance, number)
            except Exception as error:
                if not is_about_the_connection(error):
                    raise
            if client is not None:
                chance.choice([Client.vanish, Client.reset])(client)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(work)


async def rest(*servers: Server) -> None:
    await until(lambda: not any(server.statistics().connections for server in servers))
    # Timers that nobody waits for any more run out.
    await trio.sleep(max(IMPATIENT.close, IMPATIENT.handshake) + 0.1)
    for _ in range(3):
        gc.collect()


async def test_after_many_clients_that_do_anything_the_server_is_as_it_was_and_serves(
    stage: Stage, errors: Errors
) -> None:
    await run_soak(stage, errors, range(CLIENTS))


async def run_soak(
    stage: Stage, errors: Errors, numbers: range, *, until_seconds: float | None = None
) -> None:
    authority = trustme.CA()
    tls = ssl_module.create_default_context(ssl_module.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    trusting = ssl_module.create_default_context()
    authority.configure_trust(trusting)

    crashed: Counter[str] = Counter()
    app = app_of_all_sorts(crashed)

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    plain = await stage.serve(app)
    secure = await stage.serve(app, ssl=tls)
    dials: list[Callable[[], Awaitable[Client]]] = [
        lambda: stage.dial(plain),
        lambda: stage.dial(plain, receive_buffer=8192),
        lambda: stage.dial(secure, ssl=trusting),
        lambda: stage.dial(secure),  # no TLS at all
    ]
    await soak(stage, dials, range(-CLIENTS, 0))  # whatever is made once is made now
    stage.close_clients()
    await rest(plain, secure)
    tasks, files, objects = await tasks_at_rest(), descriptors(), len(gc.get_objects())

    await soak(stage, dials, numbers, until_seconds=until_seconds)
    stage.close_clients()
    await rest(plain, secure)

    assert errors.unexpected == []
    assert errors.crashes <= crashed.total()
    assert tasks_alive() == tasks
    assert descriptors() == files
    assert len(gc.get_objects()) - objects < len(numbers) // 2 + 500
    start = time.process_time()
    await trio.sleep(0.3)
    assert time.process_time() - start < 0.15, "nobody has anything to do"
    for server, context in (plain, None), (secure, trusting):
        client = await stage.connect(server, "/echo", ssl=context)
        await client.send_text("still there?")
        assert await client.next_text() == "still there?"


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))
