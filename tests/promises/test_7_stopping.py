"""Promise 7: a cancelled or signalled server says 1001 to everybody and is over by a hard deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from tests.promises.rawclient import (
    CLOSE,
    Client,
    End,
    close_frame,
    open_socket,
    parse_answer,
    upgrade_request,
)
from tests.promises.stage import PATIENT, Stage, new_app
from tests.waiting import until
from wsframework import Connection, ConnectionClosed, Request, Response, Timeouts


async def test_a_cancelled_server_sends_every_client_1001_and_ends_when_they_have_answered(
    stage: Stage,
) -> None:
    app = new_app(timeouts=attrs.evolve(PATIENT, drain=60))
    ended: list[int] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for _ in ws:
            pass
        assert ws.closed is not None
        assert ws.closed.sent is not None
        ended.append(ws.closed.sent.code)

    server = await stage.serve(app)
    clients = [await stage.connect(server) for _ in range(50)]

    async def answer(client: Client) -> None:
        close = await client.next_frame()
        assert close.close_code == 1001
        await client.send(close_frame(1001))
        assert await client.read_to_end() == []
        assert client.end is End.FIN
        client.vanish()

    start = trio.current_time()
    stage.cancel(server)
    async with trio.open_nursery() as nursery:
        for client in clients:
            nursery.start_soon(answer, client)
    await stage.wait_ended(server)
    assert trio.current_time() - start < 30, "nobody was left to wait for"
    assert ended == [1001] * 50


async def test_a_cancelled_server_is_over_by_the_deadline_though_handlers_sleep_and_peers_are_mute(
    stage: Stage,
) -> None:
    app = new_app(timeouts=Timeouts(drain=0.5, close=30, disconnect_grace=30, last_words=30))
    cancelled = 0

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled += 1
            raise

    server = await stage.serve(app)
    clients = [await stage.connect(server) for _ in range(20)]
    for client in clients[:10]:
        await client.send_text("an unread message")
    start = trio.current_time()
    stage.cancel(server)
    await stage.wait_ended(server)
    assert 0.4 < trio.current_time() - start < 25
    assert cancelled == 20
    for client in clients:
        assert [frame.close_code for frame in await client.read_to_end()] == [1001]


async def test_a_cancelled_server_is_over_by_the_deadline_though_peers_do_not_read(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(drain=0.5, close=30, disconnect_grace=30))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        while True:
            await ws.send("x" * 1_000_000)

    server = await stage.serve(app)
    for _ in range(5):
        await stage.connect(server)
    await trio.sleep(0.1)
    start = trio.current_time()
    stage.cancel(server)
    await stage.wait_ended(server)
    assert trio.current_time() - start < 25


async def test_handlers_see_that_the_server_is_draining_and_may_finish_their_work(stage: Stage) -> None:
    app = new_app()
    finished: list[str] = []

    @app.websocket("/flag")
    async def flag(ws: Connection) -> None:
        seen = [ws.draining]
        async for _ in ws:
            pass
        seen.append(ws.draining)
        assert seen == [False, True]
        await trio.sleep(PATIENT.disconnect_grace / 2)
        finished.append("flag")

    @app.websocket("/wait")
    async def wait(ws: Connection) -> None:
        await ws.wait_draining()
        assert ws.draining
        finished.append("wait")

    server = await stage.serve(app)
    clients = [await stage.connect(server, path) for path in ("/flag", "/wait")]
    stage.cancel(server)
    for client in clients:
        assert (await client.next_frame()).opcode == CLOSE
        client.vanish()
    await stage.wait_ended(server)
    assert sorted(finished) == ["flag", "wait"]


async def test_a_draining_server_accepts_nobody(stage: Stage) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    server = await stage.serve(app)
    await stage.connect(server)
    stage.cancel(server)
    await until(lambda: server.draining)
    with pytest.raises(ConnectionRefusedError):
        await stage.dial(server)
    assert not stage.has_ended(server)


async def test_a_request_that_is_half_here_when_the_drain_begins_gets_503(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(handshake=30, drain=2))
    server = await stage.serve(app)
    client = await stage.dial(server)
    silent = await stage.dial(server)
    await client.send(b"GET / HTTP/1.1\r\nHost: ")
    await until(lambda: server.statistics().connections == 2)
    await trio.sleep(0.05)
    stage.cancel(server)
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.end) == (503, End.FIN)
    assert int(answer.headers["retry-after"]) > 0
    client.vanish()
    assert await silent.read_all() == b""
    silent.vanish()
    await stage.wait_ended(server)


@pytest.mark.parametrize(("seconds", "upgraded"), [(0.1, True), (1.5, False)])
async def test_a_request_that_is_being_decided_when_accepting_ends_is_served_if_it_takes_less_than_a_second(
    stage: Stage, seconds: float, upgraded: bool
) -> None:
    app = new_app(timeouts=Timeouts(drain=4))
    deciding = trio.Event()

    @app.guard
    async def guard(request: Request) -> None:
        deciding.set()
        await trio.sleep(seconds)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.receive()

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(upgrade_request())
    await deciding.wait()
    stage.cancel(server)
    if upgraded:
        assert b" 101 " in await client.receive_bytes(20)
        client.vanish()
        return
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.end) == (503, End.FIN)


async def test_what_a_page_answers_during_the_drain_is_its_clients(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(drain=5))
    began = trio.Event()

    @app.http("/webhook", methods=["POST"])
    async def webhook(request: Request) -> str:
        began.set()
        await trio.sleep(1.5)  # longer than handshakes are waited for
        return "done"

    server = await stage.serve(app)
    client = await stage.dial(server)
    await client.send(b"POST /webhook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await began.wait()
    stage.cancel(server)
    answer = parse_answer(await client.read_all(), client.end)
    assert (answer.status, answer.body) == (200, b"done")
    client.vanish()
    await stage.wait_ended(server)


async def test_requests_that_their_handlers_never_answer_get_503_when_the_drain_is_over(stage: Stage) -> None:
    app = new_app(timeouts=Timeouts(drain=0.3, close=30))

    @app.http("/sleeps")
    async def sleeps(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    @app.http("/quick")
    async def quick(request: Request) -> str:
        return "quick"

    server = await stage.serve(app)
    sleeping = await stage.dial(server)
    await sleeping.send(b"GET /sleeps HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    lingering = await stage.dial(server)  # it has its answer, and will not close its side
    await lingering.send(b"GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await lingering.read_all()).endswith(b"quick")
    assert server.statistics().connections == 2
    start = trio.current_time()
    stage.cancel(server)
    await stage.wait_ended(server)
    assert trio.current_time() - start < 25
    assert parse_answer(await sleeping.read_all(), sleeping.end).status == 503
    # Both sockets are closed, not just forgotten: what a client sends now is answered with a RST.
    for client in (sleeping, lingering):
        with pytest.raises(trio.BrokenResourceError):
            await send_for_ever(client)


async def send_for_ever(client: Client) -> None:
    with trio.move_on_after(30):
        while True:
            await client.send(b"?")
            await trio.sleep(0.005)


async def test_the_lifespan_ends_after_the_last_connection(stage: Stage) -> None:
    app = new_app()
    order: list[str] = []

    @app.lifespan
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        order.append("begin")
        try:
            yield
        finally:
            order.append("end")

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        try:
            await ws.receive()
        except ConnectionClosed:
            await trio.sleep(0.05)
            order.append("handler")

    server = await stage.serve(app)
    client = await stage.connect(server)
    stage.cancel(server)
    await client.next_frame()
    client.vanish()
    await stage.wait_ended(server)
    assert order == ["begin", "handler", "end"]


PROGRAM = """
import trio
from wsframework import App, Connection, Timeouts

app = App(timeouts=Timeouts(drain=30, close=30, disconnect_grace={grace}), allowed_hosts="*")

@app.websocket("/")
async def handler(ws: Connection) -> None:
    await ws.send("ready")
    try:
        await trio.sleep_forever()
    finally:
        print("handler gone", flush=True)

app.run(port=0, allow_hosts="test.invalid", on_listening=lambda server: print(server.port, flush=True))
print("returned", flush=True)
"""


@attrs.frozen
class Program:
    process: trio.Process
    port: int


@asynccontextmanager
async def running(grace: float) -> AsyncIterator[Program]:
    """Run a server as a program of its own."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-W", "error", "-c", PROGRAM.format(grace=grace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        with trio.fail_after(60):
            yield Program(process, int((await read_output(process, b"\n")).split()[0]))
    finally:
        if process.returncode is None:
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        assert process.stdout is not None
        assert process.stderr is not None
        await process.stdout.aclose()
        await process.stderr.aclose()


async def read_output(process: trio.Process, up_to: bytes | None = None) -> bytes:
    assert process.stdout is not None
    output = bytearray()
    while up_to is None or up_to not in output:
        data = await process.stdout.receive_some()
        if not data:
            break
        output += data
    return bytes(output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_the_program_gracefully_with_exit_code_0(number: signal.Signals) -> None:
    async with running(grace=0.1) as program:
        client = Client(await open_socket("127.0.0.1", program.port))
        assert (await client.upgrade("/")).status == 101
        assert await client.next_text() == "ready"
        program.process.send_signal(number)
        assert (await client.next_frame()).close_code == 1001
        await client.send(close_frame(1001))
        assert await client.read_to_end() == []
        client.vanish()
        assert await read_output(program.process) == b"handler gone\nreturned\n"
        assert await program.process.wait() == 0
        assert program.process.stderr is not None
        assert await program.process.stderr.receive_some() == b"", "nothing to complain about"


async def test_a_second_signal_cuts_the_drain_short() -> None:
    async with running(grace=30) as program:
        client = Client(await open_socket("127.0.0.1", program.port))
        assert (await client.upgrade("/")).status == 101
        assert await client.next_text() == "ready"
        program.process.send_signal(signal.SIGTERM)
        assert (await client.next_frame()).close_code == 1001
        # The client answers nothing and the handler sleeps: without another word this takes 30 s.
        with trio.move_on_after(0.3):
            await program.process.wait()
        assert program.process.returncode is None
        program.process.send_signal(signal.SIGTERM)
        assert await read_output(program.process) == b"handler gone\nreturned\n"
        assert await program.process.wait() == 0
        client.vanish()
