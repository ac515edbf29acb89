"""Members that are slow: what is closed, what is dropped, and when."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.serving import connect, serving
from tests.rooms.stage import full, staged, ticking
from wsframework import (
    App,
    CloseFrame,
    Connection,
    Limits,
    Room,
    SlowPolicy,
)

# What happens to a slow member


async def test_a_broadcast_waits_for_nobody() -> None:
    async with staged() as stage:
        stuck, quick = await stage.stuck(), await stage.member()
        for number in range(100):
            # No await between: a broadcast that waited could not be called like this.
            assert stage.room.broadcast(f"{number}") == 2
        assert [await quick.receive() for _ in range(100)] == [f"{number}" for number in range(100)]
        assert stage.room.members[0].backlog_bytes == sum(len(f"{number}") for number in range(100))
        assert stuck.messages == []


async def test_a_slow_member_that_catches_up_in_time_has_missed_nothing() -> None:
    async with staged() as stage:
        stuck = await stage.stuck()
        expected = [f"{number}" * 40 for number in range(200)]
        for text in expected:
            stage.room.broadcast(text)
        await stuck.receive()
        assert [await stuck.receive() for _ in expected] == expected
        assert stage.room.members[0].backlog_bytes == 0
        statistics = stage.room.statistics()
        assert (statistics.dropped, statistics.closed, statistics.deliveries) == (0, 0, 200)


async def test_what_waits_goes_out_before_what_comes_later() -> None:
    async with staged() as stage:
        stuck = await stage.stuck()
        await stuck.receive()
        heard: list[str | bytes] = []
        for number in range(100):
            stage.room.broadcast(f"{number}" * 20)
            # The member reads a little now and then, so its backlog shrinks and grows and is made anew.
            if number % 7 == 0 or 40 < number < 60:
                heard.append(await stuck.receive())
        heard += [await stuck.receive() for _ in range(100 - len(heard))]
        assert heard == [f"{number}" * 20 for number in range(100)]


async def test_a_slow_member_is_closed_with_1013_past_the_bytes_and_the_others_never_notice() -> None:
    async with staged(max_bytes=500) as stage:
        stuck, quick = await stage.stuck(), await stage.member()
        for _ in range(5):
            assert stage.room.broadcast("x" * 100) == 2
        assert stage.room.broadcast("y") == 1
        assert stage.room.broadcast("z") == 1
        assert [await quick.receive() for _ in range(7)] == ["x" * 100] * 5 + ["y", "z"]
        messages = await stuck.read_to_end()
        assert stuck.closed is not None
        assert (stuck.closed.code, stuck.closed.reason) == (1013, "too slow for this room")
        assert messages == [b"\0" * 996]  # what waited is lost with it; what was sent is whole
        statistics = stage.room.statistics()
        assert (statistics.dropped, statistics.closed, statistics.members) == (0, 1, 1)


async def test_a_slow_member_is_closed_past_the_seconds(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(max_seconds=3) as stage:
        stuck = await stage.stuck()
        assert stage.room.broadcast("first") == 1
        await trio.sleep(2.9)
        assert stage.room.broadcast("second") == 1
        await trio.sleep(0.2)
        assert stage.room.broadcast("third") == 0
        await stuck.read_to_end()
        assert stuck.closed is not None
        assert stuck.closed.code == 1013


async def test_drop_newest_skips_what_does_not_fit_and_counts_it() -> None:
    async with staged(action="drop_newest", max_bytes=30) as stage:
        stuck, quick = await stage.stuck(), await stage.member()
        reached = [stage.room.broadcast(f"message {number}") for number in range(10)]
        assert reached == [2] * 3 + [1] * 7
        assert [await quick.receive() for _ in range(10)] == [f"message {number}" for number in range(10)]
        await stuck.receive()
        await trio.testing.wait_all_tasks_blocked()
        stage.room.broadcast("again")
        assert [await stuck.receive() for _ in range(4)] == ["message 0", "message 1", "message 2", "again"]
        assert stage.room.members[0].dropped == 7
        statistics = stage.room.statistics()
        assert (statistics.dropped, statistics.closed, statistics.deliveries) == (7, 0, 10 + 3 + 2)


async def test_drop_oldest_keeps_the_latest_and_counts_what_it_forgot() -> None:
    async with staged(action="drop_oldest", max_bytes=30) as stage:
        stuck = await stage.stuck()
        assert [stage.room.broadcast(f"message {number}") for number in range(10)] == [1] * 10
        await stuck.receive()
        assert [await stuck.receive() for _ in range(3)] == ["message 7", "message 8", "message 9"]
        assert stage.room.members[0].dropped == 7
        assert stage.room.statistics().dropped == 7


async def test_drop_oldest_forgets_what_has_waited_too_long(autojump_clock: trio.testing.MockClock) -> None:
    async with staged(action="drop_oldest", max_seconds=5) as stage:
        stuck = await stage.stuck()
        stage.room.broadcast("old")
        await trio.sleep(6)
        stage.room.broadcast("new")
        await stuck.receive()
        assert await stuck.receive() == "new"


@pytest.mark.parametrize("action", ["close", "drop_newest", "drop_oldest"])
async def test_a_message_larger_than_the_backlog_waits_alone(action: str) -> None:
    async with staged(action=action, max_bytes=30) as stage:
        stuck = await stage.stuck()
        assert stage.room.broadcast("x" * 5000) == 1
        await stuck.receive()
        assert await stuck.receive() == "x" * 5000


async def test_a_member_that_leaves_still_gets_what_was_broadcast_while_it_was_one() -> None:
    room = Room("lobby")
    app = App(limits=Limits(outbox_bytes=1000))

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        await ws.send(b"\0" * 996)
        async with room.join(ws):
            room.broadcast("while in")
        room.broadcast("when out")
        await ws.receive()

    async with serving(app) as server:
        peer = await connect(server, "/")
        await trio.testing.wait_all_tasks_blocked()
        await peer.receive()
        assert await peer.receive() == "while in"
        await peer.send("go on")
        assert await peer.read_to_end() == []


async def test_a_sender_that_waits_is_not_overtaken_by_broadcasts() -> None:
    async with staged() as stage:
        stuck = await stage.stuck()
        (member,) = stage.room.members
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.ws.send, "an answer")
            await trio.testing.wait_all_tasks_blocked()
            stage.room.broadcast("a broadcast")
            await stuck.receive()
            assert [await stuck.receive(), await stuck.receive()] == ["an answer", "a broadcast"]


@pytest.mark.parametrize(
    "mistake", [{"action": "wait"}, {"max_bytes": 0}, {"max_seconds": 0}, {"max_seconds": -1}]
)
def test_a_slow_policy_that_means_nothing_is_refused(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SlowPolicy(**mistake)


# The clock


async def test_a_slow_member_is_closed_on_time_without_another_broadcast(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = full()
    room = Room("lobby", slow=SlowPolicy(max_seconds=3))
    async with ticking(transport), room.join(transport.connection):
        room.broadcast("the only one")
        await trio.sleep(2.9)
        assert transport.closes == []
        await trio.sleep(0.2)
        assert transport.closes == [CloseFrame(1013, "too slow for this room")]
        assert room.statistics().closed == 1


@pytest.mark.parametrize("action", ["drop_newest", "drop_oldest"])
async def test_what_has_waited_for_too_long_is_dropped_without_another_broadcast(
    action: Any, autojump_clock: trio.testing.MockClock
) -> None:
    transport = full()
    room = Room("lobby", slow=SlowPolicy(action=action, max_seconds=3))
    async with ticking(transport), room.join(transport.connection) as member:
        room.broadcast("old")
        await trio.sleep(2)
        room.broadcast("young")
        await trio.sleep(1.1)
        assert (member.dropped, member.backlog_bytes) == (1, len("young"))
        transport.take()
        assert transport.texts == ["young"]
        await trio.sleep(10)
    assert room.statistics().dropped == 1


async def test_what_was_left_behind_is_judged_as_if_the_member_had_stayed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    one, two = full(), full()
    closing = Room("closing", slow=SlowPolicy(max_seconds=3))
    dropping = Room("dropping", slow=SlowPolicy(action="drop_oldest", max_seconds=3))
    async with ticking(one, two):
        async with closing.join(one.connection), dropping.join(two.connection):
            closing.broadcast("x")
            dropping.broadcast("y")
        await trio.sleep(3.1)
        assert one.closes == [CloseFrame(1013, "too slow for this room")]
        assert two.connection.endpoint.waiting is None
        assert dropping.statistics().dropped == 1


async def test_each_room_has_its_own_seconds(autojump_clock: trio.testing.MockClock) -> None:
    transport = full()
    slow = Room("slow", slow=SlowPolicy(action="drop_oldest", max_seconds=9))
    quick = Room("quick", slow=SlowPolicy(action="drop_oldest", max_seconds=2))
    async with ticking(transport), slow.join(transport.connection), quick.join(transport.connection):
        slow.broadcast("s")
        quick.broadcast("q")
        await trio.sleep(2.1)
        assert (slow.statistics().dropped, quick.statistics().dropped) == (0, 1)
        await trio.sleep(7)
        assert slow.statistics().dropped == 1
