"""Connections and other threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import connect
from tests.operations import FakeSession, Operation, closing, next_of_the_loop, pinging, receiving, sending
from wsframework.connection import Connection
from wsframework.errors import WrongThread
from wsframework.wire import Opcode

ASYNC_VERBS: dict[str, Operation] = {
    "send": sending("x"),
    "receive": receiving,
    "loop": next_of_the_loop,
    "ping": pinging,
    "aclose": closing,
    "wait_closed": Connection.wait_closed,
    "wait_draining": Connection.wait_draining,
}
SYNC_VERBS: dict[str, Callable[[Connection], object]] = {
    "send_nowait": lambda ws: ws.send_nowait("x"),
    "nursery": lambda ws: ws.nursery,
}


def state(ws: Connection) -> list[object]:
    return [getattr(ws, name) for name in Connection.__slots__ if name != "__weakref__"]


def by_trio(ws: Connection, operation: Operation) -> None:
    trio.run(operation, ws)


def by_asyncio(ws: Connection, operation: Operation) -> None:
    async def main() -> None:
        await operation(ws)

    asyncio.run(main())


@pytest.mark.parametrize("run", [by_trio, by_asyncio])
@pytest.mark.parametrize("verb", ASYNC_VERBS)
@pytest.mark.parametrize("unread", [False, True])
async def test_an_async_verb_in_another_threads_event_loop_changes_nothing(
    run: Callable[[Connection, Operation], None], verb: str, unread: bool
) -> None:
    transport = connect()
    ws = transport.connection
    if unread:
        ws.endpoint.deliver("a message")
    before = state(ws)
    with pytest.raises(WrongThread, match=r"trio_token=server\.trio_token"):
        await trio.to_thread.run_sync(run, ws, ASYNC_VERBS[verb])
    assert state(ws) == before
    assert (transport.sent, transport.closes, transport.log) == ([], [], [])
    await ws.send("it goes on")
    assert transport.texts == ["it goes on"]


@pytest.mark.parametrize("verb", SYNC_VERBS)
async def test_a_synchronous_verb_in_another_thread_changes_nothing(verb: str, nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    ws.endpoint.begin(FakeSession(nursery))
    before = state(ws)
    with pytest.raises(WrongThread, match=rf"ws\.{verb} in another thread"):
        await trio.to_thread.run_sync(SYNC_VERBS[verb], ws)
    assert state(ws) == before
    assert transport.sent == []
    SYNC_VERBS[verb](ws)  # in its own it works


async def test_what_only_reads_may_be_read_in_any_thread() -> None:
    ws = connect().connection

    def read() -> tuple[object, ...]:
        return ws.request, ws.subprotocol, ws.closed, ws.draining, ws.statistics(), repr(ws)

    assert await trio.to_thread.run_sync(read) == read()


async def test_host_code_of_the_same_thread_may_send_without_a_task() -> None:
    transport = connect()
    token = trio.lowlevel.current_trio_token()
    token.run_sync_soon(transport.connection.send_nowait, "between two tasks")
    await wait_all_tasks_blocked()
    assert transport.texts == ["between two tasks"]


async def test_a_thread_that_asks_the_event_loop_may_send() -> None:
    transport = connect()
    ws = transport.connection
    token = trio.lowlevel.current_trio_token()

    def elsewhere() -> None:
        trio.from_thread.run_sync(ws.send_nowait, "one", trio_token=token)
        trio.from_thread.run(ws.send, "two", trio_token=token)

    await trio.to_thread.run_sync(elsewhere)
    assert transport.texts == ["one", "two"]


def test_connections_of_one_thread_share_its_number() -> None:
    async def main() -> bool:
        return connect().connection.endpoint.thread is connect().connection.endpoint.thread

    assert trio.run(main)


class OddText(str):
    def encode(self, *_: object) -> Any:
        return "this is no bytes"


async def test_a_text_that_encodes_itself_oddly_goes_out_as_the_text_it_is() -> None:
    transport = connect()
    await transport.connection.send(OddText("a"))
    transport.connection.send_nowait(OddText("b"))
    assert transport.sent == [(Opcode.TEXT, b"a"), (Opcode.TEXT, b"b")]
