"""Memberships without a scope, how many a connection may have, and messages to some members."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests import fake_transport
from tests.fake_transport import LOST, FakeTransport
from tests.rooms import stage
from tests.rooms.stage import full
from wsframework import (
    App,
    Connection,
    ConnectionClosed,
    History,
    Limits,
    LocalEngine,
    Member,
    Room,
    Rooms,
    RoomUnavailable,
    SlowPolicy,
    TooManyRooms,
    WrongThread,
)
from wsframework.closes import CloseFrame
from wsframework.rooms import seats
from wsframework.testing import cancel_everywhere, serve


@pytest.fixture(autouse=True)
def _all_connections_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End all connections of a test: a membership without a scope lasts as long."""
    made: list[FakeTransport] = []
    original = fake_transport.connect

    def connect(limits: Limits | None = None) -> FakeTransport:
        made.append(original(limits))
        return made[-1]

    monkeypatch.setattr(fake_transport, "connect", connect)
    monkeypatch.setattr(stage, "fake_connect", connect)
    yield
    for transport in made:
        transport.connection.endpoint.end(LOST)


def fake_connect(limits: Limits | None = None) -> FakeTransport:
    return fake_transport.connect(limits)


# Memberships that are no scope


async def test_a_member_that_entered_gets_what_is_sent_until_it_leaves() -> None:
    room = Room("tea")
    transport = fake_connect()
    member = await room.enter(transport.connection, "Ada")
    assert (room.members, room.present()) == ((member,), ["Ada"])
    assert room.broadcast("one") == 1
    member.data = "Ada, away"
    assert room.present() == ["Ada, away"]
    member.leave()
    member.leave()
    assert room.broadcast("two") == 0
    assert (room.members, room.present(), transport.texts) == ((), [], ["one"])
    again = await room.enter(transport.connection)
    member.leave()  # the earlier one
    assert room.members == (again,)
    assert room.broadcast("three") == 1


async def test_who_enters_with_a_position_gets_what_it_missed() -> None:
    room = Room("tea", history=History())
    position = await room.publish("heard")
    room.broadcast("missed")
    transport = fake_connect()
    member = await room.enter(transport.connection, after=position)
    room.broadcast("live")
    assert member.missed is False
    assert transport.texts == ["missed", "live"]


@pytest.mark.parametrize("end", ["peer closes", "lost", "we close"])
async def test_a_membership_ends_with_its_connection(end: str) -> None:
    engine = LocalEngine()
    room, other = Room("tea", engine=engine), Room("milk", engine=engine)
    transport, stays = fake_connect(), fake_connect()
    ws = transport.connection
    await room.enter(stays.connection, "Bob")
    async with other.join(ws, "a scope"):
        await room.enter(ws, "Ada")
        assert room.present() == ["Bob", "Ada"]
        if end == "we close":
            ws.endpoint.start_close(CloseFrame(1000))
        elif end == "lost":
            ws.endpoint.finish(LOST)
        else:
            ws.endpoint.end(LOST)
        assert room.present() == ["Bob"]
        assert [member.ws for member in room.members] == [stays.connection]
        assert other.present() == ["a scope"]
    assert room.broadcast("x") == 1


async def test_a_connection_that_is_closing_does_not_enter() -> None:
    room = Room("tea", history=History())
    position = await room.publish("x")
    ws = fake_connect().connection
    ws.endpoint.start_close(CloseFrame(1000))
    with pytest.raises(ConnectionClosed):
        await room.enter(ws)
    for after in (position, "too old"):
        with pytest.raises(ConnectionClosed):
            await room.enter(ws, after=after)
    assert room.members == ()
    assert ws.endpoint.memberships is not None
    assert ws.endpoint.memberships.count == 0
    assert seats.subscription_of(room.engine, "tea") is None


async def test_a_slow_member_that_is_closed_has_left() -> None:
    room = Room("tea", slow=SlowPolicy(max_bytes=10))
    slow, quick = full(), fake_connect()
    await room.enter(slow.connection)
    await room.enter(quick.connection)
    assert room.broadcast("x" * 8) == 2
    assert room.broadcast("y" * 8) == 1
    assert [member.ws for member in room.members] == [quick.connection]
    assert quick.texts == ["x" * 8, "y" * 8]
    assert room.broadcast("z") == 1


async def test_members_of_a_lost_room_leave_while_it_closes_them() -> None:
    room = Room("tea")
    for _ in range(3):
        await room.enter(fake_connect().connection)
    subscription = seats.subscription_of(room.engine, "tea")
    assert subscription is not None
    subscription.lost("a test")
    assert room.members == ()
    assert seats.subscription_of(room.engine, "tea") is None


async def test_join_and_enter_know_of_each_other() -> None:
    room = Room("tea")
    ws = fake_connect().connection
    async with room.join(ws) as member:
        with pytest.raises(RuntimeError, match="already a member of the room 'tea'"):
            await room.enter(ws)
        member.leave()  # before the block ends
        entered = await room.enter(ws)
    assert room.members == (entered,)
    with pytest.raises(RuntimeError, match="already a member"):
        async with room.join(ws):
            pytest.fail("joined twice")


async def test_a_room_of_rooms_lives_as_long_as_somebody_is_in_it() -> None:
    rooms = Rooms()
    transport = fake_connect()
    await rooms["tea"].enter(transport.connection)
    gc.collect()
    assert "tea" in rooms
    rooms["tea"].broadcast("x")
    assert transport.texts == ["x"]
    transport.connection.endpoint.end(LOST)
    gc.collect()
    assert "tea" not in rooms
    assert list(rooms._rooms) == []


async def test_leaving_in_another_thread_is_refused() -> None:
    room = Room("tea")
    member, other = await room.enter(fake_connect().connection), fake_connect().connection
    with pytest.raises(WrongThread):
        await trio.to_thread.run_sync(member.leave)
    with pytest.raises(WrongThread):
        await trio.to_thread.run_sync(lambda: trio.run(room.enter, other))
    assert room.members == (member,)


class Entering:
    """A connection that enters a room with a history."""

    def __init__(self, after: str | None) -> None:
        self.room = Room("tea", history=History(), slow=SlowPolicy(max_messages=10))
        self.transport = fake_connect()
        self.after = after
        self.entered: list[Member] = []

    @classmethod
    @asynccontextmanager
    async def ready(cls, after: str | None) -> AsyncIterator[Entering]:
        entering = cls(after)
        first = await entering.room.publish("first")
        for number in range(20):
            entering.room.broadcast(f"{number}")
        if after == "position":
            entering.after = first
        yield entering

    async def enter(self) -> None:
        self.entered.append(await self.room.enter(self.transport.connection, "Ada", after=self.after))

    def check(self) -> None:
        count = len(self.entered)
        assert self.room.members == tuple(self.entered)
        assert self.room.present() == ["Ada"] * count
        assert self.room.broadcast("live") == count
        memberships = self.transport.connection.endpoint.memberships
        assert (0 if memberships is None else memberships.count) == count
        self.transport.connection.endpoint.end(LOST)
        assert self.room.members == ()
        assert seats.subscription_of(self.room.engine, "tea") is None


@pytest.mark.parametrize("after", [None, "position", "long ago"])
async def test_an_enter_that_is_cancelled_anywhere_leaves_nothing_behind(after: str | None) -> None:
    report = await cancel_everywhere(Entering.enter, Entering.check, setup=lambda: Entering.ready(after))
    assert report.cancelled


async def test_clients_subscribe_and_unsubscribe_by_message() -> None:
    app = App(limits=Limits(memberships=2))
    rooms = Rooms()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        entered: dict[str, Member] = {}
        async for message in ws:
            verb, _, name = str(message).partition(" ")
            if verb == "subscribe":
                entered[name] = await rooms[name].enter(ws)
            elif verb == "unsubscribe":
                entered.pop(name).leave()
            else:
                await ws.send(",".join(room.name for room in rooms))

    async with serve(app) as server, server.connect("/") as client:
        for line in ("subscribe tea", "subscribe milk", "unsubscribe tea", "subscribe sugar", "rooms"):
            await client.send(line)
        assert await client.receive() == "milk,sugar"
        rooms["sugar"].broadcast("sweet")
        assert await client.receive() == "sweet"
        await client.send("subscribe tea")
        assert await client.wait_closed() == CloseFrame(1008, "a connection may be in 2 rooms at once")
        assert len(rooms) == 0


# How many


async def test_a_connection_is_in_so_many_rooms_at_once_and_no_more() -> None:
    rooms = Rooms(history=History())
    transport = fake_connect(Limits(memberships=2))
    ws = transport.connection
    async with rooms["a"].join(ws):
        second = await rooms["b"].enter(ws)
        for after in (None, "position"):
            with pytest.raises(TooManyRooms):
                await rooms["c"].enter(ws, after=after)
            with pytest.raises(TooManyRooms):
                async with rooms["c"].join(ws, after=after):
                    pytest.fail("joined")
        assert "c" not in rooms
        second.leave()
        await rooms["c"].enter(ws)
    await rooms["d"].enter(ws)
    assert sorted(room.name for room in rooms) == ["c", "d"]


async def test_joining_counts_while_the_history_is_read() -> None:
    class Slow(LocalEngine):
        async def history(self, *args: object) -> object:  # type: ignore[override]
            await trio.sleep_forever()

    rooms = Rooms(engine=Slow())
    ws = fake_connect(Limits(memberships=1)).connection
    async with trio.open_nursery() as nursery:

        async def enter() -> None:
            await rooms["a"].enter(ws, after="x")

        nursery.start_soon(enter)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(TooManyRooms):
            await rooms["b"].enter(ws)
        nursery.cancel_scope.cancel()
    await rooms["b"].enter(ws)


async def test_a_join_that_fails_is_not_counted() -> None:
    class Broken(LocalEngine):
        def subscribe(self, *args: object) -> None:
            raise RoomUnavailable("a test")

    class Unreadable(LocalEngine):
        async def history(self, *args: object) -> object:  # type: ignore[override]
            raise RoomUnavailable("a test")

    class Unenterable(LocalEngine):
        def enter(self, *args: object) -> None:
            raise RoomUnavailable("a test")

    ws = fake_connect(Limits(memberships=1)).connection
    for engine in (Broken(), Unreadable(), Unenterable()):
        for _ in range(2):
            with pytest.raises(RoomUnavailable):
                await Rooms(engine=engine)["a"].enter(ws, after="x")
    assert ws.endpoint.memberships is not None
    assert ws.endpoint.memberships.count == 0


# Messages to some members


@pytest.mark.parametrize("form", ["connection", "member", "connections", "members", "iterator"])
async def test_a_broadcast_to_some_reaches_them_only(form: str) -> None:
    room = Room("tea", history=History(), stamp=lambda message, position: f"{position}: {message!r}")
    transports = [fake_connect() for _ in range(3)]
    members = [await room.enter(transport.connection) for transport in transports]
    position = members[0].position
    several = form not in ("connection", "member")
    chosen = members[:2] if several else members[:1]
    sockets: list[Connection] = [member.ws for member in chosen]
    forms = {
        "connection": sockets[0],
        "member": chosen[0],
        "connections": sockets,
        "members": tuple(chosen),
        "iterator": iter(chosen),
    }
    assert room.broadcast("psst", to=forms[form]) == len(chosen)  # type: ignore[arg-type]
    assert [transport.texts for transport in transports] == [
        ["psst"] if number < len(chosen) else [] for number in range(3)
    ]
    # It is no part of the room's sequence.
    assert members[0].position == position
    assert (room.statistics().broadcasts, room.statistics().deliveries) == (1, len(chosen))


async def test_a_broadcast_to_nobody_or_to_strangers_reaches_nobody() -> None:
    engine = LocalEngine()
    room, twin = Room("tea", engine=engine), Room("tea", engine=engine)
    inside, outside = fake_connect(), fake_connect()
    assert room.broadcast("x", to=outside.connection) == 0  # a room without members
    member = await room.enter(inside.connection)
    assert room.broadcast("x", to=[]) == 0
    assert room.broadcast("x", to=outside.connection) == 0
    assert room.broadcast("x", to=[inside.connection], exclude=member) == 0
    assert twin.broadcast("from the twin", to=[member, inside.connection]) == 1
    assert inside.texts == ["from the twin"]
    member.leave()
    assert room.broadcast("x", to=member) == 0


async def test_a_broadcast_to_a_slow_member_follows_the_policy_and_keeps_the_order() -> None:
    room = Room("tea", slow=SlowPolicy(action="drop_newest", max_bytes=10))
    slow = full()
    member = await room.enter(slow.connection)
    assert [room.broadcast("one"), room.broadcast("two", to=member), room.broadcast("three")] == [1, 1, 0]
    assert member.dropped == 1
    slow.take()
    assert slow.texts == ["one", "two"]


@pytest.mark.parametrize("to", ["Ada", [None], 7])
async def test_what_is_no_member_is_refused(to: object) -> None:
    room = Room("tea")
    await room.enter(fake_connect().connection)
    with pytest.raises(TypeError):
        room.broadcast("x", to=to)  # type: ignore[arg-type]
    assert room.statistics().broadcasts == 0


async def test_a_broadcast_to_some_from_another_thread_is_refused() -> None:
    room = Room("tea")
    member = await room.enter(fake_connect().connection)
    with pytest.raises(WrongThread):
        await trio.to_thread.run_sync(lambda: room.broadcast("x", to=member))
