"""How a connection ends, and who is woken."""

from __future__ import annotations

import pytest
import trio
import trio_websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fake_transport import LOST, connect
from tests.operations import BY_PEER, closing, next_of_the_loop, pinging, receiving, sending, start
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits
from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed


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
