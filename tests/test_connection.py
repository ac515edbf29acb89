from __future__ import annotations

import array
import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fake_transport import LOST, FakeTransport, connect
from wsframework.backlog import WaitingBroadcast
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits
from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed, WrongThread
from wsframework.transport import EncodedMessage, encode
from wsframework.wire import Opcode, encode_message

BY_PEER = Closed(CloseFrame(4000), CloseFrame(4000, "bye"), False)

Operation = Callable[[Connection], Awaitable[object]]


def full(limits: Limits | None = None) -> FakeTransport:
    """Return a transport whose outbox has no room for another byte."""
    transport = connect(limits)
    transport.taking = False
    transport.outbox_bytes = 100
    return transport


class Outcome:
    """How an operation that runs in a task of its own went."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.value: object = None
        self.error: Exception | None = None
        self._finished = False

    def finished(self) -> bool:
        return self._finished

    async def run(self, operation: Operation, ws: Connection) -> None:
        with self.scope:
            try:
                self.value = await operation(ws)
            except Exception as error:
                self.error = error
            self._finished = True


async def start(nursery: trio.Nursery, ws: Connection, operation: Operation) -> Outcome:
    """Start an operation and wait until it waits or is over."""
    outcome = Outcome()
    nursery.start_soon(outcome.run, operation, ws)
    await wait_all_tasks_blocked()
    return outcome


def sending(message: str | bytes) -> Operation:
    return lambda ws: ws.send(message)


async def receiving(ws: Connection) -> str | bytes:
    return await ws.receive()


async def next_of_the_loop(ws: Connection) -> str | bytes:
    async for message in ws:
        return message
    return "the loop has ended"


async def pinging(ws: Connection) -> float:
    return await ws.ping(b"p")


async def closing(ws: Connection) -> None:
    await ws.aclose()


# Read anew: the type checker takes an attribute it saw once for a constant.


def ws_is_closed(ws: Connection) -> bool:
    return ws.closed is not None


def has_unread(ws: Connection) -> bool:
    return ws.endpoint.has_unread


def is_draining(ws: Connection) -> bool:
    return ws.draining


# What a handler can see


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


# Sending


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ("héllo", (Opcode.TEXT, "héllo".encode())),
        ("", (Opcode.TEXT, b"")),
        (b"\0\xff", (Opcode.BINARY, b"\0\xff")),
        (bytearray(b"ab"), (Opcode.BINARY, b"ab")),
        (memoryview(b"abcd")[::2], (Opcode.BINARY, b"ac")),
        (array.array("H", [1, 2]), (Opcode.BINARY, array.array("H", [1, 2]).tobytes())),
    ],
)
async def test_str_goes_out_as_text_and_bytes_like_as_binary(
    message: Any, frame: tuple[Opcode, bytes]
) -> None:
    transport = connect()
    await transport.connection.send(message)
    transport.connection.send_nowait(message)
    assert transport.sent == [frame, frame]
    encoded = encode(message)
    assert (encoded.opcode, encoded.payload) == frame
    assert encoded.frame == encode_message(*frame)


@pytest.mark.parametrize("message", [7, None, ["a"], {"a": 1}])
async def test_what_is_no_message_is_refused_and_nothing_is_sent(message: Any) -> None:
    transport = connect()
    expected = f"a message is str or bytes-like, not {type(message).__name__}; encode it first"
    with pytest.raises(TypeError, match=expected):
        await transport.connection.send(message)
    with pytest.raises(TypeError, match=expected):
        transport.connection.send_nowait(message)
    with pytest.raises(TypeError, match=expected):
        encode(message)
    assert transport.sent == []


async def test_text_that_no_utf_8_can_carry_is_refused_and_nothing_is_sent() -> None:
    transport = connect()
    with pytest.raises(UnicodeEncodeError):
        await transport.connection.send("half a pair: \ud800")
    with pytest.raises(UnicodeEncodeError):
        transport.connection.send_nowait("\ud800")
    assert transport.sent == []
    await transport.connection.send("still fine")
    assert transport.texts == ["still fine"]


async def test_a_buffer_may_be_reused_while_its_message_waits(nursery: trio.Nursery) -> None:
    transport = full()
    buffer = bytearray(b"first")
    await start(nursery, transport.connection, lambda ws: ws.send(buffer))
    buffer[:] = b"other"
    transport.take()
    assert transport.sent == [(Opcode.BINARY, b"first")]


async def test_send_waits_while_the_outbox_is_full_and_is_committed_whole(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 70)
    await ws.send("y" * 30)  # exactly full
    waiting = await start(nursery, ws, sending("z" * 40))
    assert not waiting.finished()
    transport.take(39)
    await wait_all_tasks_blocked()
    assert not waiting.finished()
    assert len(transport.sent) == 2
    transport.take(1)
    assert transport.texts[2:] == ["z" * 40]  # at once, before its task has run
    await wait_all_tasks_blocked()
    assert waiting.finished()


async def test_a_message_larger_than_the_outbox_is_taken_when_it_is_empty(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    await transport.connection.send("x" * 1000)
    waiting = await start(nursery, transport.connection, sending("y" * 1000))
    transport.take(999)
    assert len(transport.sent) == 1
    transport.take(1)
    assert len(transport.sent) == 2
    await wait_all_tasks_blocked()
    assert waiting.finished()


async def test_waiting_senders_are_committed_in_the_order_of_their_calls(nursery: trio.Nursery) -> None:
    transport = full()
    messages = [str(i) * 30 for i in range(10)]
    for message in messages:
        await start(nursery, transport.connection, sending(message))
    while len(transport.sent) < len(messages):
        transport.take(10)
        assert transport.outbox_bytes <= 100
    assert transport.texts == messages


async def test_a_small_message_does_not_overtake_a_large_one_that_waits(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 50)
    await start(nursery, ws, sending("large" * 20))
    small = await start(nursery, ws, sending("small"))
    assert not small.finished()
    transport.take()
    await wait_all_tasks_blocked()
    assert transport.texts[1:] == ["large" * 20]
    transport.take()
    assert transport.texts[2:] == ["small"]


async def test_a_send_cancelled_while_it_waits_has_sent_nothing(nursery: trio.Nursery) -> None:
    transport = full()
    ws = transport.connection
    waiting = await start(nursery, ws, sending("never"))
    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    assert waiting.scope.cancelled_caught
    transport.take()
    assert transport.sent == []
    assert ws.statistics().messages_sent == 0
    await ws.send("the connection stays usable")
    assert transport.texts == ["the connection stays usable"]


async def test_a_send_in_a_cancelled_scope_sends_nothing() -> None:
    transport = connect()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.connection.send("never")
    assert scope.cancelled_caught
    assert transport.sent == []


async def test_a_send_that_was_committed_returns_although_it_is_cancelled_then(nursery: trio.Nursery) -> None:
    transport = full()
    waiting = await start(nursery, transport.connection, sending("sent"))
    transport.take()
    waiting.scope.cancel()  # before the sender's task has run
    await wait_all_tasks_blocked()
    assert transport.texts == ["sent"]
    assert waiting.finished()
    assert not waiting.scope.cancelled_caught


async def test_who_waited_behind_a_cancelled_large_message_gets_its_turn(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    await ws.send("x" * 80)
    large = await start(nursery, ws, sending("l" * 1000))
    behind = [await start(nursery, ws, sending(message)) for message in ("a", "b", "c" * 50, "d")]
    large.scope.cancel()
    await wait_all_tasks_blocked()
    assert transport.texts[1:] == ["a", "b"]
    assert [outcome.finished() for outcome in behind] == [True, True, False, False]
    transport.take()
    assert transport.texts[3:] == ["c" * 50, "d"]


async def test_cancelling_one_waiter_keeps_the_order_of_the_others(nursery: trio.Nursery) -> None:
    transport = full()
    outcomes = [await start(nursery, transport.connection, sending(name)) for name in "abc"]
    outcomes[1].scope.cancel()
    await wait_all_tasks_blocked()
    assert transport.sent == []
    transport.take()
    assert transport.texts == ["a", "c"]


async def test_send_nowait_sends_or_would_block(nursery: trio.Nursery) -> None:
    transport = connect()
    transport.taking = False
    ws = transport.connection
    ws.send_nowait("x" * 100)
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("y")
    assert transport.texts == ["x" * 100]
    assert ws.statistics().messages_sent == 1
    transport.take(50)
    await start(nursery, ws, sending("z" * 60))
    with pytest.raises(trio.WouldBlock):
        ws.send_nowait("y")  # it would fit, but others wait


# Receiving


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_waiting_receiver_gets_the_message_that_comes(
    nursery: trio.Nursery, operation: Operation
) -> None:
    transport = connect()
    waiting = await start(nursery, transport.connection, operation)
    transport.connection.endpoint.deliver("a")
    transport.connection.endpoint.deliver("b")
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert await operation(transport.connection) == "b"


async def test_messages_are_received_in_order_by_call_and_by_loop() -> None:
    ws = connect().connection
    for message in ("a", b"b", "c", "d"):
        ws.endpoint.deliver(message)
    ws.endpoint.end(BY_PEER)
    assert await ws.receive() == "a"
    assert [message async for message in ws] == [b"b", "c", "d"]


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_cancelled_receive_leaves_the_message(nursery: trio.Nursery, operation: Operation) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, operation)
    waiting.scope.cancel()
    ws.endpoint.deliver("a")  # after the cancellation, before the receiver's task has run
    await wait_all_tasks_blocked()
    assert waiting.scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await operation(ws)
    assert scope.cancelled_caught
    assert await operation(ws) == "a"


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_receive_that_has_its_message_returns_it_although_it_is_cancelled_then(
    nursery: trio.Nursery, operation: Operation
) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, operation)
    ws.endpoint.deliver("a")
    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert not waiting.scope.cancelled_caught


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_only_one_task_at_a_time_may_receive(nursery: trio.Nursery, operation: Operation) -> None:
    ws = connect().connection
    first = await start(nursery, ws, receiving)
    with pytest.raises(trio.BusyResourceError, match="another task is already receiving"):
        await operation(ws)
    ws.endpoint.deliver("a")
    await wait_all_tasks_blocked()
    assert first.value == "a"
    ws.endpoint.deliver("b")
    assert await operation(ws) == "b"


async def test_over_the_budget_reading_pauses_and_resumes_at_half_of_it() -> None:
    transport = connect(Limits(unread_bytes=8000))
    ws = transport.connection
    message = "x" * 951  # 1,000 bytes with Python's own
    for _ in range(8):
        ws.endpoint.deliver(message)
    assert transport.reading()
    ws.endpoint.deliver(message)
    assert transport.log == ["pause"]
    ws.endpoint.deliver(message)  # from the same read
    assert ws.statistics().unread_bytes == 10_000
    for _ in range(5):
        await ws.receive()
    assert not transport.reading()
    await ws.receive()
    assert transport.log == ["pause", "resume"]
    for _ in range(4):
        await ws.receive()
    assert transport.log == ["pause", "resume"]
    assert ws.statistics().unread_bytes == 0


async def test_a_flood_of_empty_messages_is_over_the_budget_too() -> None:
    transport = connect(Limits(unread_bytes=8000))
    for _ in range(1000):
        transport.connection.endpoint.deliver("")
    assert transport.log == ["pause"]


async def test_a_message_for_a_waiting_receiver_counts_against_no_budget(nursery: trio.Nursery) -> None:
    transport = connect(Limits(unread_bytes=100))
    waiting = await start(nursery, transport.connection, receiving)
    transport.connection.endpoint.deliver("x" * 1000)
    await wait_all_tasks_blocked()
    assert waiting.value == "x" * 1000
    assert transport.reading()


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


async def test_messages_taken_are_those_the_handler_has() -> None:
    ws = connect().connection
    assert ws.endpoint.messages_taken == 0
    for _ in range(3):
        ws.endpoint.deliver("a")
    assert ws.endpoint.messages_taken == 0
    await ws.receive()
    assert ws.endpoint.messages_taken == 1


# The end


@pytest.mark.parametrize("closed", [BY_PEER, LOST])
async def test_the_end_wakes_every_waiter(nursery: trio.Nursery, closed: Closed) -> None:
    transport = connect()
    ws = transport.connection
    ping = await start(nursery, ws, pinging)
    transport.taking = False
    transport.outbox_bytes = 100
    receiver = await start(nursery, ws, receiving)
    senders = [await start(nursery, ws, sending(name)) for name in "ab"]
    ws.endpoint.end(closed)
    await wait_all_tasks_blocked()
    for outcome in (receiver, ping, *senders):
        assert isinstance(outcome.error, ConnectionClosed)
        assert outcome.error.closed is closed
    transport.take()
    assert transport.texts == []
    assert ws.statistics().waiting_senders == 0


async def test_the_end_ends_a_loop_that_waits_without_an_error(nursery: trio.Nursery) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, next_of_the_loop)
    ws.endpoint.end(LOST)
    await wait_all_tasks_blocked()
    assert (waiting.value, waiting.error) == ("the loop has ended", None)


async def test_after_the_end_unread_messages_can_still_be_received() -> None:
    ws = connect().connection
    ws.endpoint.deliver("a")
    ws.endpoint.deliver("b")
    ws.endpoint.end(BY_PEER)
    assert await ws.receive() == "a"
    assert [message async for message in ws] == ["b"]
    with pytest.raises(ConnectionClosed):
        await ws.receive()


async def test_after_the_end_every_operation_raises_what_is_known_of_it() -> None:
    transport = connect()
    ws = transport.connection
    ws.endpoint.end(BY_PEER)
    for operation in (receiving, sending("x"), pinging):
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await operation(ws)
        assert isinstance(caught.value, ConnectionClosed)
        assert caught.value.closed is ws.closed is BY_PEER
        assert (caught.value.code, caught.value.closed.reason) == (4000, "bye")
    with pytest.raises(ConnectionClosed):
        ws.send_nowait("x")
    assert transport.sent == []


async def test_closing_drops_what_was_not_received_and_reads_on_for_the_peers_close() -> None:
    transport = connect(Limits(unread_bytes=100))
    ws = transport.connection
    for _ in range(5):
        ws.endpoint.deliver("x" * 100)
    assert not transport.reading()
    ws.endpoint.start_close(CloseFrame(1000))
    assert transport.reading()
    ws.endpoint.deliver("y" * 1000)  # "an endpoint [that sent Close] MAY discard any further data received"
    assert (ws.statistics().unread_messages, ws.statistics().unread_bytes) == (0, 0)
    assert transport.log == ["pause", "resume"]
    with pytest.raises(ConnectionClosed):
        await ws.receive()
    assert [message async for message in ws] == []


async def test_closing_wakes_receivers_and_senders_and_lets_pings_wait_on(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    transport = connect()
    ws = transport.connection
    ping = await start(nursery, ws, pinging)
    transport.taking = False
    transport.outbox_bytes = 100
    sender = await start(nursery, ws, sending("a"))
    receiver = await start(nursery, ws, receiving)
    ws.endpoint.start_close(CloseFrame(4001, "enough"), "the test said so")
    await wait_all_tasks_blocked()
    for outcome in (sender, receiver):
        assert isinstance(outcome.error, ConnectionClosed)
        assert outcome.error.closed == Closed(CloseFrame(4001, "enough"), None, True, "the test said so")
    assert not ping.finished()
    await trio.sleep(1)
    ws.endpoint.deliver_pong(b"p")
    await wait_all_tasks_blocked()
    assert ping.value == 1
    assert transport.closes == [CloseFrame(4001, "enough")]


async def test_a_ping_that_waits_while_we_close_is_woken_by_the_end(nursery: trio.Nursery) -> None:
    ws = connect().connection
    ping = await start(nursery, ws, pinging)
    ws.endpoint.start_close(CloseFrame(1000))
    ws.endpoint.finish(Closed(CloseFrame(1000), CloseFrame(1000), True))
    await wait_all_tasks_blocked()
    assert isinstance(ping.error, ConnectionClosed)
    assert ping.error.closed.clean


async def test_a_connection_is_closed_once_whoever_asks() -> None:
    transport = connect()
    ws = transport.connection
    ws.endpoint.start_close(CloseFrame(1000))
    ws.endpoint.start_close(CloseFrame(1011))
    assert transport.closes == [CloseFrame(1000)]
    lost = connect()
    lost.connection.endpoint.end(LOST)
    lost.connection.endpoint.start_close(CloseFrame(1000))
    assert lost.closes == []
    assert lost.connection.closed is LOST


async def test_closed_says_more_as_more_becomes_known() -> None:
    ws = connect().connection
    ws.endpoint.start_close(CloseFrame(1000))
    assert ws.closed == Closed(CloseFrame(1000), None, True)
    both = Closed(CloseFrame(1000), CloseFrame(1000), True)
    ws.endpoint.end(both)
    assert ws.closed is both
    finished = Closed(CloseFrame(1000), CloseFrame(1000), True, "done")
    ws.endpoint.finish(finished)
    assert ws.closed is finished


async def test_wait_closed_waits_until_the_socket_is_released(nursery: trio.Nursery) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, Connection.wait_closed)
    ws.endpoint.end(BY_PEER)
    await wait_all_tasks_blocked()
    assert not waiting.finished()
    ws.endpoint.finish(BY_PEER)
    await wait_all_tasks_blocked()
    assert waiting.finished()
    await ws.wait_closed()


async def test_a_connection_may_finish_before_anybody_waits() -> None:
    ws = connect().connection
    ws.endpoint.finish(LOST)
    assert ws.closed is LOST
    await ws.wait_closed()


async def test_aclose_sends_one_close_frame_and_waits_for_the_end(nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    outcomes = [
        await start(nursery, ws, lambda ws: ws.aclose(4001, "enough")),
        await start(nursery, ws, lambda ws: ws.aclose(1001)),
        await start(nursery, ws, closing),
    ]
    assert transport.closes == [CloseFrame(4001, "enough")]
    assert not any(outcome.finished() for outcome in outcomes)
    ws.endpoint.finish(Closed(CloseFrame(4001, "enough"), CloseFrame(4001), True))
    await wait_all_tasks_blocked()
    assert all(outcome.finished() and outcome.error is None for outcome in outcomes)
    await ws.aclose()
    assert len(transport.closes) == 1


async def test_aclose_on_a_connection_the_peer_has_closed_waits_and_sends_nothing(
    nursery: trio.Nursery,
) -> None:
    transport = connect()
    transport.connection.endpoint.end(BY_PEER)
    outcome = await start(nursery, transport.connection, closing)
    assert not outcome.finished()
    transport.connection.endpoint.finish(BY_PEER)
    await wait_all_tasks_blocked()
    assert outcome.finished()
    assert transport.closes == []


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (1005, ""), (1006, ""), (1015, ""), (5000, ""), (1000, "x" * 124)]
)
async def test_aclose_refuses_what_may_not_be_sent_and_closes_nothing(code: int, reason: str) -> None:
    transport = connect()
    with pytest.raises(ValueError, match="close"):
        await transport.connection.aclose(code, reason)
    assert transport.closes == []
    assert transport.connection.closed is None


async def test_a_cancelled_aclose_has_started_the_closing_handshake(nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    with trio.CancelScope() as scope:
        scope.cancel()
        await ws.aclose(4001)
    assert scope.cancelled_caught
    assert transport.closes == [CloseFrame(4001)]
    again = await start(nursery, ws, closing)
    again.scope.cancel()
    await wait_all_tasks_blocked()
    assert again.scope.cancelled_caught
    ws.endpoint.finish(LOST)
    await ws.aclose()


# Pings


async def test_ping_returns_the_round_trip_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    outcome = await start(nursery, ws, Connection.ping)
    ((opcode, payload),) = transport.sent
    assert opcode is Opcode.PING
    await trio.sleep(0.25)
    ws.endpoint.deliver_pong(payload)
    await wait_all_tasks_blocked()
    assert outcome.value == 0.25
    assert ws.statistics().round_trip == 0.25
    assert ws.statistics().messages_sent == 0  # a ping is no message


async def test_pings_have_payloads_of_their_own(nursery: trio.Nursery) -> None:
    transport = connect()
    for _ in range(10):
        await start(nursery, transport.connection, Connection.ping)
    payloads = {payload for _, payload in transport.sent}
    assert len(payloads) == 10
    assert all(0 < len(payload) <= 125 for payload in payloads)


async def test_a_ping_carries_the_payload_it_was_given(nursery: trio.Nursery) -> None:
    transport = connect()
    await start(nursery, transport.connection, lambda ws: ws.ping(bytearray(b"hello")))
    await start(nursery, transport.connection, lambda ws: ws.ping(b"x" * 125))
    await start(nursery, transport.connection, lambda ws: ws.ping(b""))
    assert [payload for _, payload in transport.sent] == [b"hello", b"x" * 125, b""]


async def test_a_pong_answers_all_pings_up_to_its_own(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ws = connect().connection
    pings = []
    for payload in (b"1", b"2", b"3"):
        pings.append(await start(nursery, ws, lambda ws, payload=payload: ws.ping(payload)))  # type: ignore[misc]
        await trio.sleep(1)
    ws.endpoint.deliver_pong(b"2")
    await wait_all_tasks_blocked()
    assert [ping.value for ping in pings] == [3, 2, None]
    assert not pings[2].finished()
    ws.endpoint.deliver_pong(b"3")
    await wait_all_tasks_blocked()
    assert pings[2].value == 1


async def test_a_pong_that_answers_nothing_means_nothing(nursery: trio.Nursery) -> None:
    ws = connect().connection
    ws.endpoint.deliver_pong(b"p")
    ping = await start(nursery, ws, pinging)
    ws.endpoint.deliver_pong(b"other")
    ws.endpoint.deliver_pong(b"")
    await wait_all_tasks_blocked()
    assert not ping.finished()
    ws.endpoint.deliver_pong(b"p")
    ws.endpoint.deliver_pong(b"p")
    await wait_all_tasks_blocked()
    assert ping.finished()


async def test_a_pong_that_comes_before_the_ping_waits_is_not_missed(autojump_clock: MockClock) -> None:
    transport = connect()
    transport.on_send = lambda: transport.connection.endpoint.deliver_pong(b"p")
    with trio.fail_after(1):
        assert await transport.connection.ping(b"p") == 0


async def test_a_connection_that_ends_before_the_ping_waits_is_not_missed(autojump_clock: MockClock) -> None:
    transport = connect()
    transport.on_send = lambda: transport.connection.endpoint.end(LOST)
    with trio.fail_after(1), pytest.raises(ConnectionClosed, match="the test cut the wire"):
        await transport.connection.ping()


async def test_a_ping_payload_is_at_most_125_bytes_and_unique_in_flight(nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    with pytest.raises(ValueError, match="at most 125 bytes; this one has 126"):
        await ws.ping(b"x" * 126)
    assert transport.sent == []
    await start(nursery, ws, pinging)
    with pytest.raises(ValueError, match="a ping with the payload b'p' is already in flight"):
        await ws.ping(b"p")
    assert len(transport.sent) == 1
    ws.endpoint.deliver_pong(b"p")
    again = await start(nursery, ws, pinging)
    assert not again.finished()
    with pytest.raises(TypeError, match="not str"):
        await ws.ping("text")  # type: ignore[arg-type]


async def test_a_cancelled_ping_is_forgotten(nursery: trio.Nursery) -> None:
    transport = connect()
    ws = transport.connection
    first = await start(nursery, ws, pinging)
    first.scope.cancel()
    await wait_all_tasks_blocked()
    ws.endpoint.deliver_pong(b"p")
    assert ws.statistics().round_trip is None
    await start(nursery, ws, pinging)
    assert len(transport.sent) == 2


async def test_a_ping_waits_in_line_and_its_clock_starts_when_it_is_sent(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    transport = full()
    ws = transport.connection
    await start(nursery, ws, sending("first"))
    ping = await start(nursery, ws, pinging)
    assert transport.sent == []
    await trio.sleep(10)
    transport.take()
    assert transport.sent == [(Opcode.TEXT, b"first"), (Opcode.PING, b"p")]
    assert ws.statistics().messages_sent == 1
    await trio.sleep(0.5)
    ws.endpoint.deliver_pong(b"p")
    await wait_all_tasks_blocked()
    assert ping.value == 0.5


@pytest.mark.parametrize("how", ["cancelled", "closed"])
async def test_a_ping_that_ends_in_the_line_was_not_sent(nursery: trio.Nursery, how: str) -> None:
    transport = full()
    ws = transport.connection
    ping = await start(nursery, ws, pinging)
    if how == "cancelled":
        ping.scope.cancel()
    else:
        ws.endpoint.start_close(CloseFrame(1000))
    await wait_all_tasks_blocked()
    assert ping.scope.cancelled_caught or isinstance(ping.error, ConnectionClosed)
    assert transport.sent == []
    ws.endpoint.deliver_pong(b"p")
    assert ws.statistics().round_trip is None


async def test_a_ping_that_ends_in_the_line_leaves_a_later_one_of_the_same_payload_alone(
    nursery: trio.Nursery,
) -> None:
    transport = full()
    ws = transport.connection
    first = await start(nursery, ws, pinging)
    ws.endpoint.deliver_pong(b"p")  # nobody asked the peer for this yet
    second = await start(nursery, ws, pinging)
    first.scope.cancel()
    await wait_all_tasks_blocked()
    transport.take()
    await wait_all_tasks_blocked()
    ws.endpoint.deliver_pong(b"p")
    await wait_all_tasks_blocked()
    assert second.finished()


async def test_a_ping_after_the_connection_began_to_close_is_refused() -> None:
    transport = connect()
    transport.connection.endpoint.start_close(CloseFrame(1000))
    with pytest.raises(ConnectionClosed):
        await transport.connection.ping()
    assert transport.sent == []


async def test_a_ping_in_a_cancelled_scope_sends_nothing() -> None:
    transport = connect()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.connection.ping()
    assert scope.cancelled_caught
    assert transport.sent == []


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


# Other threads

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


# The session's side


class FakeSession:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.calls: list[str] = []

    def nursery(self) -> trio.Nursery:
        return self._nursery

    def connection_ended(self) -> None:
        self.calls.append("connection_ended")

    def connection_closed(self) -> None:
        self.calls.append("connection_closed")

    def cancel(self) -> None:
        self.calls.append("cancel")


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
