from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.fake_transport import connect
from tests.operations import (
    BY_PEER,
    Operation,
    closing,
    next_of_the_loop,
    pinging,
    receiving,
    sending,
    start,
)
from wsframework.closes import CloseFrame
from wsframework.connection import Connection


async def test_a_connection_knows_its_request_and_subprotocol() -> None:
    ws = connect(subprotocol="chat").connection
    assert ws.request.path == "/chat"
    assert ws.subprotocol == "chat"
    assert ws.closed is None
    assert connect().connection.subprotocol is None


async def test_a_connection_reads_as_its_state() -> None:
    ws = connect().connection
    assert repr(ws) == "<Connection /chat from 10.0.0.1:5123, open>"
    ws.endpoint.start_close(CloseFrame(1000))
    assert repr(ws) == "<Connection /chat from 10.0.0.1:5123, closing>"
    ws.endpoint.end(BY_PEER)
    assert repr(ws) == "<Connection /chat from 10.0.0.1:5123, closed>"


async def test_the_nursery_is_there_only_while_the_handler_runs() -> None:
    with pytest.raises(RuntimeError, match="only while the connection's handler runs"):
        _ = connect().connection.nursery


async def test_statistics_count_what_was_sent_received_and_waits(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    transport = connect()
    ws = transport.connection
    opened_at = trio.current_time()
    transport.taking = False
    await ws.send("x" * 60)
    await start(nursery, ws, sending("y" * 60))
    ws.endpoint.deliver("ab")
    ws.endpoint.deliver(b"cd")
    assert await ws.receive() == "ab"
    statistics = ws.statistics()
    assert statistics.messages_sent == 1
    assert statistics.messages_received == 2
    assert statistics.unread_messages == 1
    assert statistics.unread_bytes > 2  # the memory it takes, not its payload
    assert statistics.outbox_bytes == 60
    assert statistics.waiting_senders == 1
    assert statistics.opened_at == opened_at
    assert statistics.round_trip is None
    transport.take()
    assert ws.statistics().messages_sent == 2
    assert ws.statistics().waiting_senders == 0
    assert await ws.receive() == b"cd"
    assert (ws.statistics().unread_messages, ws.statistics().unread_bytes) == (0, 0)


async def send_nowait(ws: Connection) -> None:
    ws.send_nowait("x")


@pytest.mark.parametrize(
    "operation", [sending("x"), send_nowait, receiving, next_of_the_loop, pinging, closing]
)
async def test_a_keyboard_interrupt_cannot_strike_inside_a_verb(
    nursery: trio.Nursery, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would tear a message from the counters, or a receiver from the task that waits.
    transport = connect()
    protected: list[bool] = []

    def look(*_: object) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    transport.on_send = look
    transport.connection.endpoint.on_idle = look  # when the handler asks for a message
    monkeypatch.setattr(transport, "close", look)
    assert not trio.lowlevel.currently_ki_protected()
    await start(nursery, transport.connection, operation)
    assert protected == [True]
    nursery.cancel_scope.cancel()
