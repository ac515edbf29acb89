"""Rooms, through a served App: membership as a scope, broadcasts that wait for nobody."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.serving import Peer, connect, serving
from wsframework import App, Close, Connection, Engine, Limits, Member, Room, Rooms, Server, SlowPolicy
from wsframework.rooms import LocalEngine
from wsframework.transport import EncodedMessage, encode


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
        limit = ws._limits.outbox_bytes
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

    def count(message: Any) -> EncodedMessage:
        encoded.append(message)
        return encode(message)

    monkeypatch.setattr("wsframework.rooms.encode", count)
    async with staged() as stage:
        for _ in range(5):
            await stage.member()
        stage.room.broadcast("hello")
        assert encoded == ["hello"]


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


class Relay:
    """An engine that carries rooms between two processes: here, two sets of rooms in one."""

    def __init__(self) -> None:
        self.peers: list[Relay] = []
        self.local = LocalEngine()
        self.calls: list[tuple[str, str]] = []

    def subscribe(self, room: str, deliver: Callable[[EncodedMessage, Collection[object]], int]) -> None:
        self.calls.append(("subscribe", room))
        self.local.subscribe(room, deliver)

    def unsubscribe(self, room: str) -> None:
        self.calls.append(("unsubscribe", room))
        self.local.unsubscribe(room)

    def publish(self, room: str, message: EncodedMessage, exclude: Collection[object]) -> int:
        for peer in self.peers:
            peer.local.publish(room, message, exclude)
        return self.local.publish(room, message, exclude)

    def enter(self, room: str, member: int, data: Any) -> None:
        self.local.enter(room, member, data)

    def leave(self, room: str, member: int) -> None:
        self.local.leave(room, member)

    def present(self, room: str) -> list[Any]:
        return self.local.present(room) + [data for peer in self.peers for data in peer.local.present(room)]


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


def test_the_names_that_programs_need_are_public() -> None:
    assert Member.__module__ == Engine.__module__ == "wsframework.rooms"
