"""Pings and their answers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.fake_transport import LOST, connect
from tests.operations import full, pinging, sending, start
from wsframework.closes import CloseFrame
from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed
from wsframework.wire import Opcode


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


async def test_a_ping_that_was_answered_right_before_the_end_has_its_round_trip_time(
    nursery: trio.Nursery,
) -> None:
    transport = full()
    ws = transport.connection
    ping = await start(nursery, ws, pinging)
    # All of it before the task's next step.
    transport.take()
    ws.endpoint.deliver_pong(b"p")
    ws.endpoint.end(LOST)
    await wait_all_tasks_blocked()
    assert ping.error is None
    assert isinstance(ping.value, float)
