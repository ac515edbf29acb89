"""What waits for one connection: one account for all its rooms, in one order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_transport import LOST
from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import full
from wsframework import (
    CloseFrame,
    Limits,
    Room,
    Rooms,
    SlowPolicy,
)


async def test_who_leaves_and_comes_back_has_one_account() -> None:
    transport = full()
    ws = transport.connection
    room = Room("lobby", slow=SlowPolicy(action="drop_newest", max_bytes=1000))
    for number in range(300):
        async with room.join(ws) as member:
            room.broadcast(f"{number:100}")
            assert member.backlog_bytes <= 1000
    statistics = room.statistics()
    assert (statistics.deliveries, statistics.dropped) == (10, 290)
    transport.take()
    assert transport.texts == [f"{number:100}" for number in range(1)]
    for _ in range(20):
        transport.take()
    assert transport.texts == [f"{number:100}" for number in range(10)]


async def test_who_leaves_and_comes_back_is_closed_when_that_is_too_much() -> None:
    transport = full()
    ws = transport.connection
    room = Room("lobby", slow=SlowPolicy(max_bytes=1000))
    for number in range(11):
        async with room.join(ws):
            assert room.broadcast("x" * 100) == (number < 10)
    assert transport.closes == [CloseFrame(1013, "too slow for this room")]
    assert room.statistics().closed == 1
    assert ws.endpoint.backlog is None


async def test_many_rooms_share_the_account_of_their_member() -> None:
    transport = full(Limits(outbox_bytes=1000, memberships=None))
    rooms = Rooms(slow=SlowPolicy(action="drop_newest", max_bytes=1000))
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(rooms[f"room {number}"].join(transport.connection))
            for number in range(300)
        ]
        reached = [member.room.broadcast("x" * 100) for member in members]
        assert sum(reached) == 10
        assert {member.backlog_bytes for member in members} == {1000}


async def test_messages_of_several_rooms_and_of_the_handler_go_out_in_the_order_of_the_calls(
    nursery: trio.Nursery,
) -> None:
    transport = full()
    ws = transport.connection
    one, two = Room("one"), Room("two")
    expected = []
    async with one.join(ws), two.join(ws):
        for number in range(10):
            for room in (one, two):
                text = f"{room.name} {number}"
                room.broadcast(text)
                expected.append(text)
            nursery.start_soon(ws.send, f"own {number}")
            expected.append(f"own {number}")
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                ws.send_nowait("no")
            # Room for one or two: whoever came last must not take it.
            transport.take(15)
            assert transport.texts == expected[: len(transport.sent)]
    async with one.join(ws):
        one.broadcast("back again")
    while transport.outbox_bytes:
        transport.take()
    assert transport.texts == [*expected, "back again"]


async def test_a_message_that_comes_after_a_return_does_not_overtake_what_waits() -> None:
    transport = full()
    ws = transport.connection
    room = Room("lobby")
    async with room.join(ws):
        room.broadcast("1")
        room.broadcast("2")
    transport.outbox_bytes -= 1  # room for one, of which nobody has been told
    async with room.join(ws):
        room.broadcast("3")
    transport.take()
    assert transport.texts == ["1", "2", "3"]


async def test_drop_oldest_forgets_only_the_rooms_own() -> None:
    transport = full()
    ws = transport.connection
    log = Room("log", slow=SlowPolicy(max_bytes=100))
    prices = Room("prices", slow=SlowPolicy(action="drop_oldest", max_bytes=100))
    async with log.join(ws), prices.join(ws):
        log.broadcast("l" * 60)
        for number in range(10):
            assert prices.broadcast(f"{number:20}") == 1
        assert prices.broadcast("p" * 50) == 0  # even alone it is too much beside the log's
        assert prices.statistics().dropped == 9
        assert log.statistics().dropped == 0
    transport.take()
    assert transport.texts == ["l" * 60, f"{8:20}", f"{9:20}"]


@pytest.mark.parametrize("action", ["close", "drop_newest", "drop_oldest"])
async def test_what_waits_is_bounded_in_messages_too(action: Any) -> None:
    transport = full()
    transport.outbox_bytes += 1  # there is no room even for an empty one
    room = Room("lobby", slow=SlowPolicy(action=action, max_messages=5))
    async with room.join(transport.connection) as member:
        for _ in range(8):
            room.broadcast("")
        assert member.backlog_bytes == 0
    transport.take()
    assert len(transport.texts) == (0 if action == "close" else 5)
    statistics = room.statistics()
    assert (statistics.dropped, statistics.closed) == ((0, 1) if action == "close" else (3, 0))


async def test_a_burst_of_one_turn_makes_nobody_slow_whose_socket_takes_it() -> None:
    transport = fake_connect()
    transport.taking = False
    transport.on_flush_now = transport.take
    room = Room("lobby", slow=SlowPolicy(max_bytes=1000, max_seconds=1))
    async with room.join(transport.connection) as member:
        for number in range(100):
            assert room.broadcast(f"{number:100}") == 1
        assert member.backlog_bytes <= 1000
    while transport.outbox_bytes:
        transport.take()
    assert transport.texts == [f"{number:100}" for number in range(100)]


async def test_a_member_whose_connection_turns_out_to_be_lost_is_not_reached() -> None:
    transport = full()
    transport.on_flush_now = lambda: transport.connection.endpoint.end(LOST)
    room = Room("lobby", slow=SlowPolicy(max_bytes=10))
    async with room.join(transport.connection) as member:
        assert room.broadcast("x" * 10) == 1
        assert room.broadcast("y") == 0
        assert member.backlog_bytes == 0
    assert room.statistics().closed == 0
