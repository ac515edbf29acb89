"""Rooms, through a served App: membership as a scope, broadcasts that wait for nobody."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import trio
import trio.testing

from tests.chat.serving import Peer, connect, serving
from tests.rooms.stage import Relay, staged
from wsframework import (
    App,
    Connection,
    Engine,
    Member,
    Room,
    Rooms,
    SlowPolicy,
)
from wsframework.wire import encode_message

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


# An engine of one's own


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
