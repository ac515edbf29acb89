"""One end of a connection, as hosts, rooms and sessions use it."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import LOST, FakeTransport, connect
from tests.operations import (
    BY_PEER,
    FakeSession,
    Operation,
    closing,
    full,
    has_unread,
    is_draining,
    next_of_the_loop,
    pinging,
    receiving,
    sending,
    start,
    ws_is_closed,
)
from wsframework.backlog import WaitingBroadcast
from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed
from wsframework.transport import EncodedMessage, encode
from wsframework.wire import Opcode

# What is to be done when the handler has received everything


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_call_when_idle_waits_until_everything_was_received(
    nursery: trio.Nursery, operation: Operation
) -> None:
    ws = connect().connection
    ws.endpoint.deliver("a")
    ws.endpoint.deliver("b")
    ws.endpoint.call_when_idle(lambda: ws.endpoint.end(BY_PEER))
    assert has_unread(ws)
    assert await operation(ws) == "a"
    assert await operation(ws) == "b"
    assert not has_unread(ws)
    assert not ws_is_closed(ws)  # the handler may still answer "b"
    outcome = await start(nursery, ws, operation)
    assert ws_is_closed(ws)
    assert outcome.value == "the loop has ended" or isinstance(outcome.error, ConnectionClosed)


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_call_when_idle_calls_once_and_the_receiver_waits_on(
    nursery: trio.Nursery, operation: Operation
) -> None:
    ws = connect().connection
    calls: list[str] = []
    ws.endpoint.call_when_idle(lambda: calls.append("idle"))
    waiting = await start(nursery, ws, operation)
    ws.endpoint.deliver("a")
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    await start(nursery, ws, operation)
    assert calls == ["idle"]


async def test_call_when_idle_calls_at_once_when_the_handler_is_waiting_already(
    nursery: trio.Nursery,
) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, receiving)
    ws.endpoint.call_when_idle(lambda: ws.endpoint.end(BY_PEER))
    await wait_all_tasks_blocked()
    assert isinstance(waiting.error, ConnectionClosed)


async def test_nothing_is_called_when_idle_after_the_end() -> None:
    ws = connect().connection
    calls: list[str] = []
    ws.endpoint.call_when_idle(lambda: calls.append("idle"))
    ws.endpoint.end(LOST)
    with pytest.raises(ConnectionClosed):
        await ws.receive()
    assert calls == []


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_message_that_was_handed_over_is_unread_until_its_task_has_run(
    nursery: trio.Nursery, operation: Operation
) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, operation)
    assert not has_unread(ws)
    ws.endpoint.deliver("a")
    assert has_unread(ws), "a Close that comes now must not be answered before the handler can answer"
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert not has_unread(ws)


async def test_messages_taken_are_those_the_handler_has() -> None:
    ws = connect().connection
    assert ws.endpoint.messages_taken == 0
    for _ in range(3):
        ws.endpoint.deliver("a")
    assert ws.endpoint.messages_taken == 0
    await ws.receive()
    assert ws.endpoint.messages_taken == 1


# Broadcasts


def offer(ws: Connection, message: EncodedMessage) -> bool:
    return ws.endpoint.offer(message, len(message.payload))


async def test_a_broadcast_message_is_taken_only_if_there_is_room_now(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    assert offer(ws, encode("x" * 60))
    assert not offer(ws, encode("y" * 60))
    await start(nursery, ws, sending("z" * 60))
    assert not offer(ws, encode("y"))  # it would fit, but others wait
    assert transport.texts == ["x" * 60]
    assert transport.log == ["send_encoded"]
    assert ws.statistics().messages_sent == 1
    ws.endpoint.start_close(CloseFrame(1000))
    transport.outbox_bytes = 0
    assert not offer(ws, encode("y"))


class Recipient:
    """Stands in for a room's member."""

    room = "the room"

    def drop(self) -> None:
        raise AssertionError("nothing is dropped here")

    overdue = drop


def wait_in_line(ws: Connection, *messages: str) -> None:
    for text in messages:
        message = encode(text)
        entry = WaitingBroadcast(Recipient(), message, len(message.payload), due=10)
        ws.endpoint.open_backlog().add_broadcast(entry, 10)


async def test_room_goes_to_what_waits_in_the_order_of_the_calls(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    wait_in_line(ws, "a" * 50)
    sender = await start(nursery, ws, sending("s" * 40))
    wait_in_line(ws, "b" * 50, "c" * 10)
    transport.take(60)
    assert transport.texts == ["a" * 50]
    transport.take(30)
    assert transport.texts[1:] == ["s" * 40]
    await wait_all_tasks_blocked()
    assert sender.finished()
    transport.take()
    assert transport.texts[2:] == ["b" * 50, "c" * 10]
    assert ws.statistics().messages_sent == 4
    assert [name for name in transport.log if name == "send_encoded"] == ["send_encoded"] * 3


async def test_a_line_of_sends_takes_no_memory_once_it_is_empty(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    await start(nursery, ws, sending("s"))
    transport.take()
    assert transport.texts == ["s"]
    assert ws.endpoint.backlog is None


async def test_nothing_overtakes_a_broadcast_that_waits(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    wait_in_line(ws, "a" * 50)
    transport.outbox_bytes = 60  # what is small would fit
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("s")
    assert not offer(ws, encode("b"))
    ping = await start(nursery, ws, pinging)
    sender = await start(nursery, ws, sending("s"))
    assert ws.statistics().waiting_senders == 2
    assert transport.sent == []
    transport.take()
    assert transport.sent == [(Opcode.TEXT, b"a" * 50), (Opcode.PING, b"p"), (Opcode.TEXT, b"s")]
    await wait_all_tasks_blocked()
    assert sender.finished()
    assert not ping.finished()
    ping.scope.cancel()


async def test_who_waits_behind_a_cancelled_send_between_broadcasts_gets_its_turn(
    nursery: trio.Nursery,
) -> None:
    transport = full()
    ws = transport.connection
    transport.outbox_bytes = 60
    large = await start(nursery, ws, sending("l" * 90))
    wait_in_line(ws, "a" * 10)
    large.scope.cancel()
    await wait_all_tasks_blocked()
    assert transport.texts == ["a" * 10]
    assert ws.statistics().waiting_senders == 0


async def test_the_end_forgets_what_waits(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    wait_in_line(ws, "a")
    sender = await start(nursery, ws, sending("s"))
    ws.endpoint.end(LOST)
    await wait_all_tasks_blocked()
    assert isinstance(sender.error, ConnectionClosed)
    transport.take()
    assert transport.sent == []
    ((_, timer),) = transport.pending
    timer.fire()
    assert ws.endpoint.backlog is None


async def test_a_transport_is_asked_to_tell_of_room_only_while_somebody_waits_for_it(
    nursery: trio.Nursery,
) -> None:
    def wanted() -> bool:
        return transport.room_wanted

    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 100)
    assert not wanted()
    await start(nursery, ws, sending("y" * 90))
    await start(nursery, ws, sending("z" * 90))
    assert wanted()
    transport.take()
    assert wanted()  # for the second
    transport.take()
    assert not wanted()
    wait_in_line(ws, "a" * 60, "b" * 60)
    assert wanted()
    transport.take()
    assert wanted()  # for the rest
    transport.take()
    assert not wanted()
    assert len(transport.sent) == 5


# Draining


async def test_draining_is_told_to_who_looks_and_to_who_waits(nursery: trio.Nursery) -> None:
    ws = connect().connection
    assert not is_draining(ws)
    waiting = [await start(nursery, ws, Connection.wait_draining) for _ in range(2)]
    assert not is_draining(ws)
    assert not any(outcome.finished() for outcome in waiting)
    ws.endpoint.drain()
    assert is_draining(ws)
    await wait_all_tasks_blocked()
    assert all(outcome.finished() for outcome in waiting)
    ws.endpoint.drain()
    await ws.wait_draining()
    assert ws.closed is None


async def test_wait_draining_is_a_checkpoint_in_any_case() -> None:
    ws = connect().connection
    ws.endpoint.drain()
    with trio.CancelScope() as scope:
        scope.cancel()
        await ws.wait_draining()
    assert scope.cancelled_caught


async def test_the_session_gives_the_nursery_and_hears_of_the_end_once(nursery: trio.Nursery) -> None:
    ws = connect().connection
    session = FakeSession(nursery)
    ws.endpoint.cancel_handler()  # there is none yet
    ws.endpoint.begin(session)
    assert ws.nursery is nursery
    assert session.calls == []
    ws.endpoint.start_close(CloseFrame(1000))
    assert session.calls == []
    ws.endpoint.end(BY_PEER)
    assert session.calls == ["connection_ended"]
    ws.endpoint.finish(BY_PEER)
    assert session.calls == ["connection_ended", "connection_closed"]
    ws.endpoint.cancel_handler()
    assert session.calls == ["connection_ended", "connection_closed", "cancel"]


async def test_a_session_that_begins_after_the_end_hears_of_it(nursery: trio.Nursery) -> None:
    ws = connect().connection
    ws.endpoint.end(LOST)
    session = FakeSession(nursery)
    ws.endpoint.begin(session)
    assert session.calls == ["connection_ended"]


async def test_what_waits_for_the_end_goes_on_once_the_socket_is_released(nursery: trio.Nursery) -> None:
    ws = connect().connection
    waiting = [await start(nursery, ws, Connection.wait_closed) for _ in range(2)]
    ws.endpoint.end(BY_PEER)
    await wait_all_tasks_blocked()
    assert not any(outcome.finished() for outcome in waiting), "the socket is not released yet"
    ws.endpoint.finish(BY_PEER)
    for operation in (Connection.wait_closed, closing):
        waiting.append(await start(nursery, ws, operation))
    assert all(outcome.finished() for outcome in waiting)


async def test_a_connection_is_free_once_its_socket_is_released(nursery: trio.Nursery) -> None:
    transport = connect()
    ws, session = transport.connection, FakeSession(nursery)
    ws.endpoint.begin(session)
    held: list[weakref.ref[FakeTransport] | weakref.ref[FakeSession]]
    held = [weakref.ref(transport), weakref.ref(session)]
    gc.disable()  # when thousands of connections end at once, its work would stop the server
    try:
        ws.endpoint.finish(LOST)
        assert ws.statistics().outbox_bytes == 0
        del transport, ws, session
        assert not any(alive() for alive in held)
    finally:
        gc.enable()
