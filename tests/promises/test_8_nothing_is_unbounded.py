"""Promise 8: every size, count and wait has a limit, and meeting it ends in a proper answer."""

from __future__ import annotations

import os
import time
import tracemalloc
import zlib
from collections.abc import Callable

import attrs
import pytest
import trio

from tests.promises.rawclient import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    Client,
    End,
    close_frame,
    frame,
    parse_answer,
    upgrade_request,
)
from tests.promises.stage import PATIENT, QUICK, SILENT, Journal, Stage, new_app
from tests.waiting import until
from wsframework import App, Connection, Deflate, JsonFormatter, Limits, Request, Timeouts
from wsframework.cli.logs import TextFormatter

MIB = 1024 * 1024


def echo_app(
    limits: Limits | None = None, compression: Deflate | None = None, timeouts: Timeouts = PATIENT
) -> App:
    app = App(limits=limits, timeouts=timeouts, keepalive=SILENT, compression=compression)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def deflated(chunks: int, chunk: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join(compressor.compress(chunk) for _ in range(chunks))
    data += compressor.flush(zlib.Z_SYNC_FLUSH)
    assert data.endswith(b"\0\0\xff\xff")
    return data[:-4]


@pytest.mark.parametrize("pieces", [1, 8])
async def test_a_deflate_bomb_of_64_mib_ends_in_1009_with_flat_memory(stage: Stage, pieces: int) -> None:
    bomb = deflated(64, bytes(MIB))
    assert len(bomb) < 100_000
    server = await stage.serve(echo_app(compression=Deflate()))
    client = await stage.dial(server)
    answer = await client.upgrade("/", extensions="permessage-deflate")
    assert "permessage-deflate" in answer.headers["sec-websocket-extensions"]
    size = -(-len(bomb) // pieces)
    frames = [
        frame(
            TEXT if start == 0 else CONTINUATION,
            bomb[start : start + size],
            rsv1=start == 0,
            fin=start + size >= len(bomb),
        )
        for start in range(0, len(bomb), size)
    ]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        await client.send(*frames)
        received = await client.read_to_end()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [found.close_code for found in received] == [1009]
    assert client.end is End.FIN
    # The limit is 1 MiB, and what has been inflated is held at most twice.
    assert peak - before < 3 * MIB


async def test_a_compressed_message_below_the_limit_is_no_bomb(stage: Stage) -> None:
    server = await stage.serve(echo_app(compression=Deflate()))
    client = await stage.dial(server)
    await client.upgrade("/", extensions="permessage-deflate")
    await client.send(frame(TEXT, deflated(1, b"x" * 1000), rsv1=True))
    echo = await client.next_frame()
    assert echo.rsv1
    assert zlib.decompressobj(-15).decompress(echo.payload + b"\0\0\xff\xff") == b"x" * 1000


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([frame(TEXT, "x" * 1000)], 1000),
        ([frame(TEXT, "x" * 1001)], 1009),
        # In bytes, not in code points.
        ([frame(TEXT, "é" * 501)], 1009),
        ([frame(TEXT, "x" * 600, fin=False), frame(CONTINUATION, "x" * 400)], 1000),
        ([frame(TEXT, "x" * 600, fin=False), frame(CONTINUATION, "x" * 401)], 1009),
        # Refused by its announcement: the other bytes never come.
        ([frame(TEXT, "x" * 100_000_000)[:14]], 1009),
    ],
    ids=["exact", "over", "code points", "fragments", "fragments over", "announced"],
)
async def test_a_message_over_the_limit_is_1009_and_one_of_exactly_that_size_is_not(
    stage: Stage, messages: list[bytes], code: int
) -> None:
    server = await stage.serve(echo_app(Limits(message_bytes=1000)))
    client = await stage.connect(server)
    await client.send(*messages)
    if code == 1000:
        assert len((await client.next_frame()).payload) == 1000
        await client.send(close_frame(1000))
    frames = await client.read_to_end()
    assert [found.close_code for found in frames] == [code]
    assert client.end is End.FIN


async def test_fragments_without_end_are_1008(stage: Stage) -> None:
    server = await stage.serve(echo_app(Limits(message_fragments=100)))
    client = await stage.connect(server)
    await client.send(frame(TEXT, fin=False), *(frame(CONTINUATION, fin=False) for _ in range(100)))
    assert [found.close_code for found in await client.read_to_end()] == [1008]


async def test_the_outbox_is_bounded_and_senders_wait_in_line(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=10_000))
    largest = 0

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def send() -> None:
            nonlocal largest
            for _ in range(100):
                await ws.send("x" * 5000)
                largest = max(largest, ws.statistics().outbox_bytes)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=8192)
    await trio.sleep(0.1)
    count = 0
    while (await client.next_frame()).opcode == TEXT:
        count += 1
    assert count == 2000
    assert largest <= 10_000 + 4, "the limit, and the header of the frame that met it"


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["a byte", "a line"])
async def test_a_slow_handshake_is_cut_at_the_deadline_with_408(stage: Stage, sent: bytes) -> None:
    server = await stage.serve(echo_app(timeouts=QUICK))
    client = await stage.dial(server)
    start = trio.current_time()
    await client.send(sent)

    async def drip() -> None:
        for number in range(10_000):
            await client.send(b"x" if number else b"X-Slow: ")
            await trio.sleep(QUICK.handshake / 10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drip)
        data = await client.read_all()
        took = trio.current_time() - start
        nursery.cancel_scope.cancel()
    answer = parse_answer(data, client.end)
    assert (answer.status, answer.end) == (408, End.FIN)
    assert QUICK.handshake * 0.9 < took < QUICK.handshake + 25
    client.vanish()
    await until(lambda: not server.statistics().connections)


async def test_a_silent_connection_is_closed_at_the_deadline_without_a_word(stage: Stage) -> None:
    server = await stage.serve(echo_app(timeouts=QUICK))
    client = await stage.dial(server)
    start = trio.current_time()
    assert await client.read_all() == b""
    assert client.end is End.FIN
    assert QUICK.handshake * 0.9 < trio.current_time() - start < QUICK.handshake + 25
    await until(lambda: not server.statistics().connections)


@pytest.mark.parametrize("kind", ["one field", "many fields", "target"])
async def test_a_mebibyte_of_head_is_431(stage: Stage, kind: str) -> None:
    server = await stage.serve(echo_app())
    client = await stage.dial(server)
    head = {
        "one field": b"GET / HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * MIB,
        "many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Big: is bigger\r\n" * (MIB // 18),
        "target": b"GET /" + b"x" * MIB,
    }[kind]
    await client.send(head + b"\r\n\r\n")
    answer = parse_answer(await client.read_all(), client.end)
    # All of it was sent and the answer read: no RST, though nobody wanted to see the most of it.
    assert (answer.status, answer.end) == (431, End.FIN)
    client.vanish()
    await until(lambda: not server.statistics().connections)


@pytest.mark.parametrize("pieces", [1, 7, 500])
async def test_the_head_limit_is_exact_however_the_bytes_arrive(stage: Stage, pieces: int) -> None:
    server = await stage.serve(echo_app(Limits(head_bytes=1000)))
    for size, status in ((1000, 101), (1001, 431)):
        plain = len(upgrade_request(headers=[("X-Filler", "")]))
        head = upgrade_request(headers=[("X-Filler", "x" * (size - plain))])
        assert len(head) == size
        client = await stage.dial(server)
        step = -(-size // pieces)
        for start in range(0, size, step):
            await client.send(head[start : start + step])
            if pieces < 100:
                await trio.sleep(0.002)
        data = await client.receive_bytes(10_000)
        assert data.startswith(b"HTTP/1.1 %d " % status), (size, data)
        client.vanish()


async def test_bytes_behind_a_head_do_not_count_as_head(stage: Stage) -> None:
    server = await stage.serve(echo_app(Limits(head_bytes=1000)))
    client = await stage.connect(server, behind=frame(TEXT, "x" * 10_000))
    assert len(await client.next_text()) == 10_000


async def test_a_full_server_answers_503_and_takes_the_next_when_there_is_room(stage: Stage) -> None:
    server = await stage.serve(echo_app(Limits(connections=3)))
    clients = [await stage.connect(server), await stage.connect(server), await stage.dial(server)]
    await until(lambda: server.statistics().connections == 3)
    answer = await stage.ask(server, upgrade_request())
    assert (answer.status, answer.end) == (503, End.FIN)
    assert int(answer.headers["retry-after"]) > 0
    assert server.statistics().refused == 1
    for client in clients:
        client.vanish()
    await until(lambda: not server.statistics().connections)
    await (await stage.connect(server)).close_well()


async def test_connections_over_the_limit_are_no_way_around_it(stage: Stage) -> None:
    # Clients that never leave by themselves: some are told 503, and they are let go of by the close timeout.
    # It is longer than it takes them to come.
    server = await stage.serve(echo_app(Limits(connections=1), timeouts=attrs.evolve(QUICK, close=3)))
    await stage.connect(server)
    before = descriptors()
    clients = [await stage.dial(server) for _ in range(200)]
    await until(lambda: server.statistics().refused == 200)
    assert descriptors() - before - len(clients) <= 64
    answers: list[bytes] = []

    async def read(client: Client) -> None:
        answers.append(await client.read_all())

    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(read, client)
    told = sum(b"503" in answer for answer in answers)
    assert 1 <= told <= 64
    assert told + answers.count(b"") == 200
    await until(lambda: descriptors() - before == len(clients))
    # And there is room for telling others.
    answer = await stage.ask(server, upgrade_request())
    assert answer.status == 503


@pytest.mark.parametrize(
    "said",
    ["x" * MIB, "\x00" * MIB, "\u202e" * (MIB // 3), "x\n" * (MIB // 2)],
    ids=["plain", "C0", "bidi", "lines"],
)
async def test_what_a_stranger_says_makes_no_megabytes_of_log(
    stage: Stage, journal: Journal, said: str
) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        message = await ws.receive()
        error = ExceptionGroup(str(message), [ValueError(message), KeyError(message)])
        error.add_note(str(message))
        raise error

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(frame(TEXT, said))
    await until(lambda: "handler.crashed" in journal.events())
    for formatter in (TextFormatter(colour=False), JsonFormatter()):
        lines = [formatter.format(entry) for entry in journal.caplog.records]
        assert sum(map(len, lines)) < 100 * 1024
        assert any("more characters)" in line for line in lines)
    client.vanish()


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


async def test_one_address_may_have_only_so_many_connections(stage: Stage) -> None:
    server = await stage.serve(echo_app(Limits(connections_per_address=2)))
    first, second = await stage.connect(server), await stage.connect(server)
    answer = await stage.ask(server, upgrade_request())
    assert (answer.status, answer.end) == (503, End.FIN)
    await first.close_well()
    await until(lambda: server.statistics().connections == 1)
    third = await stage.connect(server)
    await third.close_well()
    await second.close_well()


async def test_a_guard_that_cannot_decide_is_503_within_its_time(stage: Stage) -> None:
    app = echo_app(timeouts=QUICK)

    @app.guard
    async def guard(request: Request) -> None:
        await trio.sleep_forever()

    server = await stage.serve(app)
    start = trio.current_time()
    answer = await stage.ask(server, upgrade_request())
    assert (answer.status, answer.end) == (503, End.FIN)
    assert QUICK.guard * 0.9 < trio.current_time() - start < QUICK.guard + 25


@pytest.mark.parametrize("leave", [Client.vanish, Client.reset], ids=["FIN", "RST"])
async def test_a_client_that_leaves_while_its_request_is_being_decided_costs_no_time(
    stage: Stage, leave: Callable[[Client], None]
) -> None:
    app = new_app()
    deciding = trio.Event()
    begun = False

    @app.guard
    async def guard(request: Request) -> None:
        deciding.set()
        await trio.sleep(0.35)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        nonlocal begun
        begun = True
        await ws.receive()

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(upgrade_request(), frame(PING), frame(TEXT, "early"))
    await deciding.wait()
    leave(client)
    start = time.process_time()
    await trio.sleep(0.25)
    assert time.process_time() - start < 0.1, "the processor is busy with a client that has left"
    await until(lambda: not server.statistics().connections)
    assert begun or leave is Client.reset, "what came before a FIN counts"


async def test_close_is_the_last_frame_whatever_limit_is_met(stage: Stage) -> None:
    server = await stage.serve(echo_app(Limits(message_bytes=1000)))
    client = await stage.connect(server)
    await client.send(
        frame(TEXT, "a"), frame(PING, "b"), frame(TEXT, "x" * 2000), frame(TEXT, "c"), frame(PING, "d")
    )
    frames = await client.read_to_end()
    assert {found.payload for found in frames[:-1]} == {b"a", b"b"}
    assert (frames[-1].opcode, frames[-1].close_code) == (CLOSE, 1009)
