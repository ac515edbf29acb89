"""Promise 11 for code that calls us from the last frames of Python's stack and catches RecursionError."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Awaitable, Callable
from types import FrameType

import outcome
import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.fake_transport import connect as fake_connect
from tests.promises.rawclient import CLOSE, TEXT, Client, close_frame, frame
from tests.promises.stage import QUICK, Stage, new_app
from wsframework import App, Connection, Deflate, Limits, Room
from wsframework.server import Server

MOST_CALLS = 50
"""More than any of our methods nests, so that each of their calls is once the one that fails."""


def depth() -> int:
    """How deep the caller is in the stack."""
    calls = 0
    found: FrameType | None = sys._getframe(1)
    while found is not None:
        calls, found = calls + 1, found.f_back
    return calls


def with_room_for(calls: int, action: Callable[[], object]) -> None:
    """Do `action` where the stack has room for so many nested calls."""

    def descend(left: int) -> None:
        if left:
            descend(left - 1)
        else:
            action()

    with contextlib.suppress(RecursionError):
        descend(sys.getrecursionlimit() - depth() - calls)


async def awaited_with_room_for(calls: int, action: Callable[[], Awaitable[object]]) -> None:
    async def descend(left: int) -> None:
        if left:
            await descend(left - 1)
        else:
            await action()

    with contextlib.suppress(RecursionError):
        await descend(sys.getrecursionlimit() - depth() - calls)


def deep_app(compression: Deflate | None = None) -> App:
    app = new_app()
    app.compression, app.timeouts = compression, QUICK
    room = Room("all")

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/member")
    async def member(ws: Connection) -> None:
        async with room.join(ws):
            await ws.send("joined")
            async for _ in ws:
                pass

    @app.websocket("/sends")
    async def sends(ws: Connection) -> None:
        await ws.receive()
        for calls in range(MOST_CALLS):
            with_room_for(calls, lambda: ws.send_nowait("from far below"))
            # A turn for each: only the first send of a turn wakes what writes.
            await trio.sleep(0.001)
        await ws.send("done")

    @app.websocket("/broadcasts")
    async def broadcasts(ws: Connection) -> None:
        await ws.receive()
        for calls in range(MOST_CALLS):
            with_room_for(calls, lambda: room.broadcast("a broadcast from far below"))
            await trio.sleep(0.001)
        room.broadcast("done")

    @app.websocket("/closes")
    async def closes(ws: Connection) -> None:
        calls = int(await ws.receive())
        await awaited_with_room_for(calls, lambda: ws.aclose(4000))

    return app


async def is_served(stage: Stage, server: Server) -> None:
    client = await stage.connect(server, "/echo")
    await client.send(frame(TEXT, "beside"))
    assert await client.next_text() == "beside"
    client.vanish()


async def texts_up_to_the_last(client: Client) -> list[str]:
    texts = []
    while (text := await client.next_text()) != "done":
        texts.append(text)
    return texts


async def test_a_send_without_stack_leaves_every_connection_in_order(stage: Stage) -> None:
    server = await stage.serve(deep_app())
    client = await stage.connect(server, "/sends")
    await client.send(frame(TEXT, "go"))
    sent = await texts_up_to_the_last(client)
    # Some had enough room.
    assert set(sent) == {"from far below"}
    await is_served(stage, server)


async def test_a_broadcast_without_stack_leaves_every_member_in_order(stage: Stage) -> None:
    server = await stage.serve(deep_app())
    members = [await stage.connect(server, "/member") for _ in range(3)]
    for member in members:
        assert await member.next_text() == "joined"
    culprit = await stage.connect(server, "/broadcasts")
    await culprit.send(frame(TEXT, "go"))
    for member in members:
        assert set(await texts_up_to_the_last(member)) == {"a broadcast from far below"}
    await is_served(stage, server)


async def test_a_compressed_message_that_was_not_sent_is_missing_from_no_window(stage: Stage) -> None:
    server = await stage.serve(deep_app(Deflate(threshold_bytes=0)))
    client = await stage.connect(server, "/sends", extensions="permessage-deflate")
    await client.send(frame(TEXT, "go"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    texts: list[bytes] = []
    while not texts or texts[-1] != b"done":
        found = await client.next_frame()
        assert found.rsv1
        texts.append(inflater.decompress(found.payload + b"\0\0\xff\xff"))
    assert set(texts) == {b"from far below", b"done"}


async def test_a_close_without_stack_is_made_good_at_the_end_of_the_handler(stage: Stage) -> None:
    server = await stage.serve(deep_app())

    async def is_closed(calls: int) -> None:
        client = await stage.connect(server, "/closes")
        await client.send(frame(TEXT, str(calls)))
        closing = await client.next_frame()
        assert closing.opcode == CLOSE
        codes.add(closing.close_code)
        await client.send(close_frame())
        assert await client.read_to_end() == []

    codes: set[int] = set()
    async with trio.open_nursery() as nursery:
        for calls in range(MOST_CALLS):
            nursery.start_soon(is_closed, calls)
    assert codes == {1000, 4000}
    await is_served(stage, server)


@pytest.mark.parametrize("calls", range(20, MOST_CALLS))  # with less, Trio itself loses the task
async def test_a_send_that_is_cancelled_without_stack_holds_up_neither_itself_nor_those_behind_it(
    calls: int,
) -> None:
    transport = fake_connect(Limits(outbox_bytes=1000))
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 900)

    async def send(text: str, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await ws.send(text)

    async with trio.open_nursery() as nursery:
        first = await nursery.start(send, "large" * 100)
        for text in ("one", "two"):
            await trio.testing.wait_all_tasks_blocked()
            await nursery.start(send, text)
        await trio.testing.wait_all_tasks_blocked()
        with_room_for(calls, first.cancel)
        for _ in range(10):
            transport.take()
            await trio.testing.wait_all_tasks_blocked()
        for task in nursery.child_tasks:
            # Its cancellation would not reach it.
            trio.lowlevel.reschedule(task, outcome.Error(AssertionError("it would wait for ever")))
    assert [text for text in transport.texts if len(text) == 3] == ["one", "two"]
