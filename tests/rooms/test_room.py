"""Rooms, through a served App: membership as a scope, broadcasts that wait for nobody."""

from __future__ import annotations

import gc
import signal
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.serving import Peer, connect, serving
from tests.fake_transport import LOST, FakeTransport
from tests.fake_transport import connect as fake_connect
from wsframework import (
    App,
    Close,
    CloseFrame,
    Connection,
    Engine,
    History,
    Limits,
    LocalEngine,
    Member,
    Room,
    RoomMessage,
    Rooms,
    Server,
    SlowPolicy,
    Subscriber,
    WrongThread,
)
from wsframework.timers import Timers
from wsframework.wire import Opcode, encode_message


class Stage:
    """A room, the server that has it, and its members in the order in which they came."""

    def __init__(self, server: Server, room: Room) -> None:
        self.server = server
        self.room = room

    async def member(self, path: str = "/") -> Peer:
        before = len(self.room.members)
        peer = await connect(self.server, path)
        await trio.testing.wait_all_tasks_blocked()
        assert len(self.room.members) == before + 1
        return peer

    async def stuck(self) -> Peer:
        """Return a member that does not read, whose outbox is full to the last byte."""
        peer = await self.member()
        ws = self.room.members[-1].ws
        limit = ws.endpoint._limits.outbox_bytes
        await ws.send(b"\0" * (limit - 4))
        await trio.testing.wait_all_tasks_blocked()
        return peer


@asynccontextmanager
async def staged(
    room: Room | None = None, *, limits: Limits | None = None, **slow: Any
) -> AsyncIterator[Stage]:
    room = room or Room("lobby", slow=SlowPolicy(**slow))
    app = App(limits=limits or Limits(outbox_bytes=1000))

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with room.join(ws):
            async for message in ws:
                room.broadcast(message, exclude=ws)

    @app.websocket("/crash")
    async def crash(ws: Connection) -> None:
        async with room.join(ws):
            await ws.receive()
            raise RuntimeError("a handler's mistake")

    @app.websocket("/close")
    async def close(ws: Connection) -> None:
        async with room.join(ws):
            await ws.receive()
            raise Close(4000, "enough")

    async with serving(app) as server:
        yield Stage(server, room)


# Broadcasts


async def test_every_member_gets_a_broadcast_and_their_number_is_returned() -> None:
    async with staged() as stage:
        peers = [await stage.member() for _ in range(3)]
        assert stage.room.broadcast("hello") == 3
        assert stage.room.broadcast(b"\x00\x01") == 3
        for peer in peers:
            assert [await peer.receive(), await peer.receive()] == ["hello", b"\x00\x01"]


async def test_a_broadcast_to_an_empty_room_reaches_nobody() -> None:
    room = Room("empty")
    assert room.broadcast("hello?") == 0
    assert room.statistics().broadcasts == 1


@pytest.mark.parametrize("form", ["connection", "member", "connections", "members"])
async def test_whoever_is_excluded_does_not_get_it(form: str) -> None:
    async with staged() as stage:
        first, second, third = [await stage.member() for _ in range(3)]
        one, two, _ = stage.room.members
        if form == "connection":
            assert stage.room.broadcast("not all", exclude=one.ws) == 2
        elif form == "member":
            assert stage.room.broadcast("not all", exclude=one) == 2
        elif form == "connections":
            assert stage.room.broadcast("not all", exclude=[one.ws, two.ws]) == 1
        else:
            assert stage.room.broadcast("not all", exclude={one, two}) == 1
        stage.room.broadcast("all")
        expected = ["not all", "all"]
        assert await third.receive() == "not all"
        assert await third.receive() == "all"
        assert await first.receive() == "all"
        assert await second.receive() == ("all" if form in ("connections", "members") else expected[0])


async def test_members_see_the_broadcasts_of_several_publishers_in_the_same_order() -> None:
    async with staged() as stage:
        peers = [await stage.member() for _ in range(3)]
        listener = await stage.member()

        async def publish(peer: Peer, name: str) -> None:
            for number in range(50):
                await peer.send(f"{name}{number}")

        async with trio.open_nursery() as nursery:
            for peer, name in zip(peers, "abc", strict=True):
                nursery.start_soon(publish, peer, name)
        heard = [str(await listener.receive()) for _ in range(150)]
        for name in "abc":
            assert [text for text in heard if text[0] == name] == [f"{name}{number}" for number in range(50)]
        for peer, name in zip(peers, "abc", strict=True):
            assert [await peer.receive() for _ in range(100)] == [text for text in heard if text[0] != name]


async def test_a_broadcast_is_encoded_once_for_all_members(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[object] = []

    def count(opcode: int, payload: bytes) -> bytes:
        encoded.append(payload)
        return encode_message(opcode, payload)

    monkeypatch.setattr("wsframework.rooms.seats.encode_message", count)
    async with staged() as stage:
        for _ in range(5):
            await stage.member()
        stage.room.broadcast("hello")
        assert encoded == [b"hello"]


@pytest.mark.parametrize(
    ("message", "error"), [(7, TypeError), (None, TypeError), ("\ud800", UnicodeEncodeError)]
)
async def test_what_no_frame_can_carry_is_refused_and_not_counted(
    message: Any, error: type[Exception]
) -> None:
    room = Room("lobby")
    with pytest.raises(error):
        room.broadcast(message)
    assert room.statistics().broadcasts == 0


async def test_members_that_are_closing_are_not_reached_and_not_counted() -> None:
    async with staged() as stage:
        await stage.member()
        await stage.member()
        first, _ = stage.room.members
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.ws.aclose)
            await trio.testing.wait_all_tasks_blocked()
            assert stage.room.broadcast("hello") == 1
            nursery.cancel_scope.cancel()


# Membership


@pytest.mark.parametrize("end", ["goodbye", "vanish", "crash", "close"])
async def test_membership_ends_with_the_handler_however_it_ends(
    end: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with staged() as stage:
        peer = await stage.member("/crash" if end == "crash" else "/close" if end == "close" else "/")
        if end == "goodbye":
            await peer.close()
        elif end == "vanish":
            await peer.vanish()
        else:
            await peer.send("now")
        await peer.read_to_end() if end != "vanish" else None
        await trio.testing.wait_all_tasks_blocked()
        assert stage.room.members == ()
        assert stage.room.present() == []


async def test_membership_ends_when_its_block_is_cancelled() -> None:
    room = Room("lobby")
    left = trio.Event()
    app = App()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        with trio.CancelScope() as scope:
            async with room.join(ws):
                scope.cancel()
                await trio.sleep_forever()
        left.set()
        await trio.sleep_forever()

    async with serving(app) as server:
        await connect(server, "/")
        await left.wait()
        assert room.members == ()


async def test_joining_twice_is_an_error_that_changes_nothing() -> None:
    async with staged() as stage:
        await stage.member()
        (member,) = stage.room.members
        with pytest.raises(RuntimeError, match="already a member of the room 'lobby'"):
            async with stage.room.join(member.ws):
                pytest.fail("joined twice")
        assert stage.room.members == (member,)


async def test_one_connection_may_be_a_member_of_many_rooms() -> None:
    one, two = Room("one"), Room("two")
    app = App()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with one.join(ws), two.join(ws):
            one.broadcast("from one")
            two.broadcast("from two")
            await ws.receive()

    async with serving(app) as server:
        peer = await connect(server, "/")
        assert [await peer.receive(), await peer.receive()] == ["from one", "from two"]


# Presence


async def test_presence_lists_the_data_of_all_members_in_the_order_in_which_they_came() -> None:
    room = Room("lobby")
    app = App()

    @app.websocket("/{name}")
    async def talk(ws: Connection, name: str) -> None:
        async with room.join(ws, data=name) as member:
            async for message in ws:
                member.data = message

    async with serving(app) as server:
        ada = await connect(server, "/ada")
        await connect(server, "/bob")
        await trio.testing.wait_all_tasks_blocked()
        assert room.present() == ["ada", "bob"]
        await ada.send("Ada L.")
        await trio.testing.wait_all_tasks_blocked()
        assert room.present() == ["Ada L.", "bob"]
        assert [member.data for member in room.members] == ["Ada L.", "bob"]
        await ada.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.present() == ["bob"]


async def test_data_set_after_leaving_bring_nobody_back() -> None:
    room = Room("lobby")
    app = App()
    members: list[Member] = []

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with room.join(ws, data="here") as member:
            members.append(member)
            await ws.receive()
        member.data = "gone"

    async with serving(app) as server:
        await connect(server, "/")
        leaving = await connect(server, "/")
        await leaving.send("leave")
        await trio.testing.wait_all_tasks_blocked()
        assert members[1].data == "gone"
        assert room.present() == ["here"]


# The slow


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


# Rooms by name


async def test_rooms_are_made_on_first_use_and_gone_with_the_last_member() -> None:
    rooms = Rooms()
    app = App()

    @app.websocket("/{name}")
    async def talk(ws: Connection, name: str) -> None:
        async with rooms[name].join(ws):
            async for message in ws:
                rooms[name].broadcast(message)

    async with serving(app) as server:
        assert len(rooms) == 0
        assert "tea" not in rooms
        peer = await connect(server, "/tea")
        other = await connect(server, "/tea")
        await connect(server, "/coffee")
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert sorted(room.name for room in rooms) == ["coffee", "tea"]
        assert "tea" in rooms
        assert 7 not in rooms
        assert len(rooms) == 2
        await peer.send("two lumps, please")
        assert await other.receive() == "two lumps, please"
        for leaver in (peer, other):
            await leaver.close()
            await leaver.read_to_end()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert [room.name for room in rooms] == ["coffee"]
        assert "tea" not in rooms
        assert list(rooms._rooms) == ["coffee"]


def test_all_rooms_of_a_set_share_its_policy() -> None:
    policy = SlowPolicy(action="drop_oldest")
    rooms = Rooms(slow=policy)
    assert rooms["a"].slow is policy


def test_a_room_describes_itself() -> None:
    assert repr(Room("lobby")) == "<Room 'lobby': 0 members>"


async def test_a_member_describes_itself() -> None:
    async with staged() as stage:
        await stage.member()
        (member,) = stage.room.members
        assert repr(member) == f"<Member {member.id} of 'lobby': {member.ws!r}>"


# The seam


class Relay(LocalEngine):
    """An engine that carries rooms between two processes: here, two sets of rooms in one."""

    def __init__(self) -> None:
        super().__init__()
        self.peers: list[Relay] = []
        self.calls: list[tuple[str, str]] = []

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        self.calls.append(("subscribe", room))
        super().subscribe(room, subscriber)

    def unsubscribe(self, room: str) -> None:
        self.calls.append(("unsubscribe", room))
        super().unsubscribe(room)

    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        for peer in self.peers:
            LocalEngine.broadcast(peer, room, message, exclude, history)
        return super().broadcast(room, message, exclude, history)

    def present(self, room: str) -> dict[str, Any]:
        everywhere = [self, *self.peers]
        return {id_: data for node in everywhere for id_, data in LocalEngine.present(node, room).items()}


async def test_an_engine_of_ones_own_carries_rooms_to_other_processes_without_a_change_to_handlers() -> None:
    here, there = Relay(), Relay()
    here.peers, there.peers = [there], [here]
    sides: dict[str, tuple[Engine, Rooms]] = {
        "here": (here, Rooms(engine=here)),
        "there": (there, Rooms(engine=there)),
    }
    app = App()

    @app.websocket("/{side}/{name}")
    async def talk(ws: Connection, side: str, name: str) -> None:
        _, rooms = sides[side]
        async with rooms["lobby"].join(ws, data=name):
            async for message in ws:
                await ws.send(f"reached {rooms['lobby'].broadcast(message, exclude=ws)}")

    async with serving(app) as server:
        ada = await connect(server, "/here/ada")
        bob = await connect(server, "/there/bob")
        await trio.testing.wait_all_tasks_blocked()
        assert Room("lobby", engine=here).present() == ["ada", "bob"]
        assert here.calls == there.calls == [("subscribe", "lobby")]
        await ada.send("hello over there")
        assert await bob.receive() == "hello over there"
        assert await ada.receive() == "reached 0"
        await bob.close()
        await bob.read_to_end()
        await trio.testing.wait_all_tasks_blocked()
        assert there.calls == [("subscribe", "lobby"), ("unsubscribe", "lobby")]
        assert Room("lobby", engine=here).present() == ["ada"]


# One connection, one account, one order


def full(limits: Limits | None = None) -> FakeTransport:
    """Return a transport whose outbox has no room for another byte."""
    transport = fake_connect(limits)
    transport.taking = False
    transport.outbox_bytes = transport.connection.endpoint.outbox_limit
    return transport


@asynccontextmanager
async def ticking(*transports: FakeTransport) -> AsyncIterator[None]:
    timers = Timers()
    for transport in transports:
        transport.timers = timers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield
        nursery.cancel_scope.cancel()


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
    transport = full()
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


# Other threads


async def test_a_broadcast_from_another_thread_is_refused_before_anything_changes() -> None:
    async with staged() as stage:
        peer = await stage.member()
        with pytest.raises(WrongThread, match=r"trio_token=server\.trio_token") as caught:
            await trio.to_thread.run_sync(stage.room.broadcast, "from a thread")
        assert isinstance(caught.value, RuntimeError)
        assert stage.room.statistics().broadcasts == 0
        assert stage.room.broadcast("from here") == 1
        assert await peer.receive() == "from here"


async def test_a_thread_may_have_the_event_loop_broadcast() -> None:
    async with staged() as stage:
        peer = await stage.member()
        token = trio.lowlevel.current_trio_token()

        def elsewhere() -> int:
            return trio.from_thread.run_sync(stage.room.broadcast, "by way of", trio_token=token)

        assert await trio.to_thread.run_sync(elsewhere) == 1
        assert await peer.receive() == "by way of"


async def test_joining_leaving_and_presence_are_refused_in_another_thread() -> None:
    transport, other = fake_connect(), fake_connect()
    engine = LocalEngine()
    room = Room("lobby", engine=engine)
    membership = room.join(transport.connection, "ada")

    async def enter(ws: Connection) -> None:
        async with room.join(ws):
            pytest.fail("joined in another thread")

    async def leave() -> None:
        await membership.__aexit__(None, None, None)

    def set_data(member: Member) -> None:
        member.data = "eve"

    def check(*members: Member) -> None:
        assert room.members == members
        assert room.present() == [member.data for member in members]

    with pytest.raises(WrongThread, match=r"room\.join"):
        await trio.to_thread.run_sync(trio.run, enter, other.connection)
    check()
    async with membership as member:
        for call in ((trio.run, enter, other.connection), (trio.run, leave), (set_data, member)):
            with pytest.raises(WrongThread):
                await trio.to_thread.run_sync(*call)
            check(member)
        assert member.data == "ada"
        # An empty room of the same name publishes to the same members, and an engine may call from anywhere.
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(Room("lobby", engine=engine).broadcast, "x")
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(engine.broadcast, "lobby", RoomMessage.of("x"), (), None)
        assert transport.sent == []
    check()


async def test_a_room_belongs_to_the_thread_of_its_members_wherever_it_was_made() -> None:
    room = Room("made in the main thread")

    async def serve() -> int:
        async with room.join(fake_connect().connection):
            return room.broadcast("x")

    for _ in range(2):
        assert await trio.to_thread.run_sync(trio.run, serve) == 1
    assert room.broadcast("nobody is there any more") == 0
    assert await serve() == 1


async def test_members_of_two_threads_do_not_share_a_room() -> None:
    room = Room("lobby")

    async def join() -> None:
        async with room.join(fake_connect().connection):
            pytest.fail("joined")

    async with room.join(fake_connect().connection) as member:
        with pytest.raises(WrongThread, match=r"room\.join"):
            await trio.to_thread.run_sync(trio.run, join)
        assert room.members == (member,)


# Rooms of one name


async def test_two_rooms_of_one_name_on_one_engine_are_one_to_those_who_are_in_them() -> None:
    engine = LocalEngine()
    one, two = Room("lobby", engine=engine), Room("lobby", engine=engine)
    first, second = fake_connect(), fake_connect()
    async with one.join(first.connection, "first"):
        async with two.join(second.connection, "second"):
            assert one.broadcast("from one") == 2
            assert two.broadcast("from two", exclude=first.connection) == 1
            assert one.present() == two.present() == ["first", "second"]
            assert [len(room.members) for room in (one, two)] == [1, 1]
            assert [room.statistics().broadcasts for room in (one, two)] == [1, 1]
            assert [room.statistics().deliveries for room in (one, two)] == [1, 2]
        assert one.present() == two.present() == ["first"]
        assert two.broadcast("after the second left") == 1
        async with two.join(second.connection, "again"):
            assert one.present() == ["first", "again"]
    assert first.texts == ["from one", "after the second left"]
    assert second.texts == ["from one", "from two"]
    assert one.present() == two.present() == []
    assert one.broadcast("anybody?") == two.broadcast("anybody?") == 0


async def test_the_first_of_two_rooms_of_one_name_may_be_left_first() -> None:
    engine = LocalEngine()
    one, two = Room("lobby", engine=engine), Room("lobby", engine=engine)
    first, second = fake_connect(), fake_connect()
    async with two.join(second.connection, "second"):
        async with one.join(first.connection, "first"):
            pass
        assert one.broadcast("x") == two.broadcast("y") == 1
        assert one.present() == ["second"]
    assert second.texts == ["x", "y"]


async def test_a_connection_joins_rooms_of_one_name_once() -> None:
    engine = LocalEngine()
    one, two = Room("lobby", engine=engine), Room("lobby", engine=engine)
    ws = fake_connect().connection
    async with one.join(ws, "once"):
        with pytest.raises(RuntimeError, match="already a member of the room 'lobby'"):
            async with two.join(ws, "twice"):
                pytest.fail("joined twice")
        assert one.present() == ["once"]
        assert two.members == ()


async def test_an_engine_hears_of_a_name_once_however_many_rooms_have_it() -> None:
    engine = Relay()
    one, two = Room("lobby", engine=engine), Room("lobby", engine=engine)
    async with one.join(fake_connect().connection), two.join(fake_connect().connection):
        pass
    async with two.join(fake_connect().connection):
        pass
    assert engine.calls == [("subscribe", "lobby"), ("unsubscribe", "lobby")] * 2


async def test_rooms_of_one_name_on_two_engines_are_two() -> None:
    one, two = Room("lobby"), Room("lobby")
    async with one.join(fake_connect().connection), two.join(fake_connect().connection):
        assert one.broadcast("x") == two.broadcast("x") == 1


async def test_two_sets_of_rooms_on_one_engine_see_each_others_members() -> None:
    engine = LocalEngine()
    one, two = Rooms(engine=engine), Rooms(engine=engine)
    transport = fake_connect()
    async with one["tea"].join(transport.connection, "ada"):
        gc.collect()
        assert two["tea"].present() == ["ada"]
        assert two["tea"].broadcast("sugar?") == 1
        assert "tea" in one
        assert "tea" not in two
    assert one["tea"].broadcast("anybody?") == 0


async def test_a_room_whose_name_was_changed_can_be_left() -> None:
    room = Room("before")
    async with room.join(fake_connect().connection):
        room.name = "after"
    assert room.members == ()
    async with room.join(fake_connect().connection, "x"):
        assert room.broadcast("x") == 1
        assert room.present() == ["x"]


class Unhashable(LocalEngine):
    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return 0


async def test_an_engine_need_be_neither_hashable_nor_true() -> None:
    engine = Unhashable()
    room, rooms = Room("lobby", engine=engine), Rooms(engine=engine)
    async with room.join(fake_connect().connection, "x"):
        assert rooms["lobby"].present() == ["x"]


# Ctrl-C


@pytest.mark.parametrize("verb", ["broadcast", "send", "send_nowait"])
def test_ctrl_c_in_the_middle_of_a_commit_tears_nothing(verb: str) -> None:
    room = Room("lobby")
    transports: list[FakeTransport] = []
    calls: list[str] = []

    async def main() -> None:
        transports.extend(fake_connect() for _ in range(3))
        transports[0].on_send = lambda: signal.raise_signal(signal.SIGINT)
        async with AsyncExitStack() as stack:
            for transport in transports:
                await stack.enter_async_context(room.join(transport.connection))
            if verb == "broadcast":
                room.broadcast("x")
            elif verb == "send":
                await transports[0].connection.send("x")
            else:
                transports[0].connection.send_nowait("x")
            calls.append("it has returned")
            await trio.lowlevel.checkpoint()
            calls.append("the next checkpoint has returned")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert calls == ["it has returned"]
    reached = [transport.texts for transport in transports]
    assert reached == [["x"]] * 3 if verb == "broadcast" else [["x"], [], []]
    assert room.members == ()


def test_ctrl_c_while_a_member_comes_or_goes_leaves_no_half_a_member() -> None:
    class Interrupted(LocalEngine):
        def enter(self, room: str, member: str, data: Any) -> None:
            signal.raise_signal(signal.SIGINT)
            super().enter(room, member, data)

        def leave(self, room: str, member: str) -> None:
            signal.raise_signal(signal.SIGINT)
            super().leave(room, member)

    room = Room("lobby", engine=Interrupted())
    seen: list[object] = []

    async def main() -> None:
        async with room.join(fake_connect().connection, "x"):
            seen.append(room.present())
        seen.append(room.present())
        await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [["x"], []]
    assert room.members == ()


# Mistakes of others


class Failing(LocalEngine):
    """Raises where it is told to."""

    where = ""

    def _fail(self, where: str) -> None:
        if where == self.where:
            raise OSError(where)

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        self._fail("subscribe")
        super().subscribe(room, subscriber)

    def unsubscribe(self, room: str) -> None:
        super().unsubscribe(room)
        self._fail("unsubscribe")

    def broadcast(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: History | None
    ) -> int:
        self._fail("publish")
        return super().broadcast(room, message, exclude, history)

    def enter(self, room: str, member: str, data: Any) -> None:
        self._fail("enter")
        super().enter(room, member, data)

    def leave(self, room: str, member: str) -> None:
        super().leave(room, member)
        self._fail("leave")


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("where", ["subscribe", "enter", "leave", "unsubscribe"])
async def test_an_engine_that_fails_leaves_no_half_a_member_behind(where: str, others: int) -> None:
    engine = Failing()
    room = Room("lobby", engine=engine)
    transport = fake_connect()
    async with AsyncExitStack() as stack:
        for _ in range(others):
            await stack.enter_async_context(room.join(fake_connect().connection, "other"))
        engine.where = where
        fails = not (others and where in ("subscribe", "unsubscribe"))
        with pytest.raises(OSError, match=where) if fails else nullcontext():
            async with room.join(transport.connection, "x"):
                pass
        engine.where = ""
        assert len(room.members) == others
        assert room.present() == ["other"] * others
        assert room.broadcast("x") == others
        async with room.join(transport.connection, "again"):
            assert room.present() == ["other"] * others + ["again"]
            assert room.broadcast("once") == others + 1
    assert transport.texts == ["once"]


async def test_a_broadcast_that_the_engine_refuses_is_not_counted() -> None:
    engine = Failing()
    engine.where = "publish"
    room = Room("lobby", engine=engine)
    with pytest.raises(OSError, match="publish"):
        room.broadcast("x")
    assert room.statistics().broadcasts == 0


async def test_data_that_the_engine_refuses_change_nothing() -> None:
    engine = Failing()
    room = Room("lobby", engine=engine)
    async with room.join(fake_connect().connection, "before") as member:
        engine.where = "enter"
        with pytest.raises(OSError, match="enter"):
            member.data = "after"
        assert member.data == "before"
        assert room.present() == ["before"]


class Welcoming(LocalEngine):
    """Broadcasts from within `enter` and `leave`."""

    def enter(self, room: str, member: str, data: Any) -> None:
        super().enter(room, member, data)
        self.broadcast(room, RoomMessage.of(f"{data} comes"), (), None)

    def leave(self, room: str, member: str) -> None:
        super().leave(room, member)
        self.broadcast(room, RoomMessage.of("one goes"), (), None)


async def test_an_engine_may_broadcast_while_members_come_and_go() -> None:
    room = Room("lobby", engine=Welcoming())
    one, two = fake_connect(), fake_connect()
    async with room.join(one.connection, "one"), room.join(two.connection, "two"):
        pass
    assert one.texts == ["one comes", "two comes", "one goes", "one goes"]
    assert two.texts == ["two comes", "one goes"]


class Calling(str):
    """Broadcasts while it is being encoded."""

    room: Room

    def encode(self, *_: object) -> Any:
        self.room.broadcast("from within")
        return 7


async def test_a_message_cannot_call_back_while_it_is_encoded() -> None:
    room = Room("lobby")
    transport = fake_connect()
    message = Calling("a text")
    message.room = room
    async with room.join(transport.connection):
        room.broadcast(message)
    assert transport.texts == ["a text"]


async def test_whoever_is_excluded_may_come_from_a_generator_that_broadcasts() -> None:
    room = Room("lobby")
    one, two = fake_connect(), fake_connect()

    def exclude() -> Iterator[Connection]:
        room.broadcast("first")
        yield one.connection

    async with room.join(one.connection), room.join(two.connection):
        assert room.broadcast("second", exclude=exclude()) == 1
    assert one.texts == ["first"]
    assert two.texts == ["first", "second"]


@pytest.mark.parametrize("exclude", [7, None, [None], "a name", [{}], iter(["x"])])
async def test_what_is_no_member_cannot_be_excluded(exclude: Any) -> None:
    room = Room("lobby")
    transport = fake_connect()
    async with room.join(transport.connection):
        with pytest.raises(TypeError):
            room.broadcast("x", exclude=exclude)
    assert transport.sent == []
    assert room.statistics().broadcasts == 0


async def test_a_buffer_may_be_reused_while_its_broadcast_waits() -> None:
    transport = full()
    room = Room("lobby")
    buffer = bytearray(b"before")
    async with room.join(transport.connection):
        room.broadcast(memoryview(buffer))
        buffer[:] = b"after!"
    transport.take()
    assert transport.sent == [(Opcode.BINARY, b"before")]


async def test_slow_members_may_be_closed_in_the_middle_of_a_broadcast() -> None:
    transports = [full() if number % 2 else fake_connect() for number in range(20)]
    room = Room("lobby", slow=SlowPolicy(max_bytes=5))
    async with AsyncExitStack() as stack:
        for transport in transports:
            await stack.enter_async_context(room.join(transport.connection))
        assert [room.broadcast(text) for text in ("1234", "56", "78")] == [20, 10, 10]
        assert room.statistics().closed == 10
        assert all(len(transport.closes) == number % 2 for number, transport in enumerate(transports))


async def test_a_membership_may_be_entered_again_after_it_was_left() -> None:
    room = Room("lobby")
    transport = fake_connect()
    membership = room.join(transport.connection, "x")
    for _ in range(2):
        async with membership:
            assert room.present() == ["x"]
        await membership.__aexit__(None, None, None)  # leaving twice is leaving once
        assert room.present() == []
    assert room.broadcast("x") == 0


def test_the_names_that_programs_need_are_public() -> None:
    assert Member.__module__.startswith("wsframework.rooms.")
    assert issubclass(LocalEngine, Engine)
