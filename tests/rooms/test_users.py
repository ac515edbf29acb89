"""The rooms of users, and closing all members of a room."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_transport import FakeTransport
from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import full
from wsframework import (
    App,
    CloseFrame,
    Connection,
    ConnectionClosed,
    History,
    LocalEngine,
    Room,
    RoomMessage,
    Rooms,
    RoomUnavailable,
    SlowPolicy,
    WrongThread,
)
from wsframework.rooms import seats
from wsframework.testing import cancel_everywhere, serve

# Users


async def test_a_user_is_reached_on_all_connections_and_nowhere_else() -> None:
    rooms = Rooms()
    first, second, other, stranger = (fake_connect() for _ in range(4))
    async with (
        rooms.user(42).join(first.connection, "a tab"),
        rooms.user("42").join(second.connection, "another tab"),
        rooms.user(43).join(other.connection),
        rooms["42"].join(stranger.connection),
    ):
        assert rooms.user(42).broadcast("for you") == 2
        await rooms.user(42).publish("stored for you")
        rooms["42"].broadcast("for the room")
        assert rooms.user(42).present() == ["a tab", "another tab"]
        assert [room.name for room in rooms] == ["42"]
        assert len(rooms) == 1
        assert ("42" in rooms, "43" in rooms) == (True, False)
    assert first.texts == second.texts == ["for you", "stored for you"]
    assert (other.texts, stranger.texts) == ([], ["for the room"])


async def test_the_room_of_a_user_exists_as_long_as_somebody_refers_to_it() -> None:
    rooms = Rooms()
    async with rooms.user(42).join(fake_connect().connection):
        gc.collect()
        assert rooms.user(42).has_members
    gc.collect()
    assert list(rooms._users) == []


async def test_no_name_of_a_room_reaches_a_user() -> None:
    engine = LocalEngine()
    rooms = Rooms(engine=engine)
    transport = fake_connect()
    async with rooms.user(42).join(transport.connection):
        for name in ("42", "user/42", "\0user/42", "\0\0user/42", "@42"):
            assert rooms[name].broadcast("x") == 0
            assert rooms[name].close() == 0
            assert Room(name, engine=engine).broadcast("x") == 0
        assert Room("42", engine=engine, user=True).broadcast("y") == 1
    assert transport.texts == ["y"]
    assert transport.closes == []


@pytest.mark.parametrize("user", [None, b"42", 4.2])
async def test_what_identifies_no_user_is_refused(user: Any) -> None:
    rooms = Rooms()
    with pytest.raises(TypeError, match="the id of a user is str or int"):
        rooms.user(user)
    with pytest.raises(TypeError, match="the id of a user is str or int"):
        await rooms.disconnect(user)


class Waiting(LocalEngine):
    """Takes its time to subscribe."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed = trio.Event()
        self.fails = False

    async def wait_subscribed(self, room: str) -> None:
        await self.subscribed.wait()
        if self.fails:
            raise RoomUnavailable("a test")


@pytest.mark.parametrize("scope", [True, False])
async def test_joining_a_user_waits_until_the_engine_has_subscribed(
    scope: bool, nursery: trio.Nursery
) -> None:
    engine = Waiting()
    rooms = Rooms(engine=engine)
    ws = fake_connect().connection
    joined = trio.Event()

    async def join() -> None:
        if scope:
            async with rooms.user(42).join(ws):
                joined.set()
        else:
            (await rooms.user(42).enter(ws)).leave()
            joined.set()

    nursery.start_soon(join)
    await trio.testing.wait_all_tasks_blocked()
    assert not joined.is_set()
    async with rooms["other"].join(ws):
        pass
    engine.subscribed.set()
    await trio.testing.wait_all_tasks_blocked()
    assert joined.is_set()


@pytest.mark.parametrize("how", ["join", "enter"])
async def test_a_user_who_cannot_be_reached_is_no_member(how: str) -> None:
    engine = Waiting()
    engine.fails = True
    engine.subscribed.set()
    room = Rooms(engine=engine).user(42)
    ws = fake_connect().connection
    joining = room.enter(ws) if how == "enter" else room.join(ws).__aenter__()
    with pytest.raises(RoomUnavailable):
        await joining
    assert (room.members, room.present()) == ((), [])
    assert ws.endpoint.memberships is not None
    assert ws.endpoint.memberships.count == 0
    assert seats.subscription_of(engine, "\0user/42") is None


async def test_who_is_disconnected_while_it_waits_does_not_enter() -> None:
    engine = Waiting()
    rooms = Rooms(engine=engine)
    transport = fake_connect()
    async with trio.open_nursery() as nursery:

        async def enter() -> None:
            with pytest.raises(ConnectionClosed):
                await rooms.user(42).enter(transport.connection)

        nursery.start_soon(enter)
        await trio.testing.wait_all_tasks_blocked()
        await rooms.disconnect(42, 4403)
        assert transport.closes == [CloseFrame(4403)]
        engine.subscribed.set()
    assert rooms.user(42).members == ()


async def test_a_join_of_a_user_that_is_cancelled_anywhere_leaves_nothing_behind() -> None:
    rooms = Rooms()
    transport = fake_connect()

    async def join() -> None:
        async with rooms.user(42).join(transport.connection):
            await trio.lowlevel.checkpoint()

    def check() -> None:
        assert rooms.user(42).members == ()
        assert transport.connection.endpoint.memberships is not None
        assert transport.connection.endpoint.memberships.count == 0

    assert (await cancel_everywhere(join, check)).cancelled >= 2


async def test_a_loss_closes_the_connections_of_users_whatever_other_rooms_do() -> None:
    reasons: list[str] = []
    for gap in ("ignore", lambda _, reason: reasons.append(reason)):
        engine = LocalEngine()
        rooms = Rooms(engine=engine, gap=gap)
        user, other = fake_connect(), fake_connect()
        async with rooms.user(42).join(user.connection), rooms["tea"].join(other.connection):
            for address in ("\0user/42", "tea"):
                subscription = seats.subscription_of(engine, address)
                assert subscription is not None
                subscription.lost("a test")
        assert [frame.code for frame in user.closes] == [1013]
        assert other.closes == []
    assert reasons == ["a test"]


# Closing


async def test_disconnect_closes_all_connections_of_a_user_and_no_other() -> None:
    rooms = Rooms()
    first, second, other = (fake_connect() for _ in range(3))
    async with rooms.user(42).join(first.connection), rooms.user(43).join(other.connection):
        await rooms.user(42).enter(second.connection)
        rooms.user(42).broadcast("goodbye")
        await rooms.disconnect(42, 4403, "you are banned")
        for transport in (first, second):
            assert transport.texts == ["goodbye"]
            assert transport.closes == [CloseFrame(4403, "you are banned")]
        assert other.closes == []
        # The scope of the first is still open; the second has left.
        assert [member.ws for member in rooms.user(42).members] == [first.connection]
        assert rooms.user(42).broadcast("x") == 0
    await rooms.disconnect(42)  # nobody is there


async def test_close_returns_how_many_it_closed_and_counts_them() -> None:
    engine = LocalEngine()
    room, twin = Room("tea", engine=engine), Room("tea", engine=engine)
    transports = [fake_connect() for _ in range(3)]
    for transport in transports[:2]:
        await room.enter(transport.connection)
    await twin.enter(transports[2].connection)
    transports[0].connection.endpoint.start_close(CloseFrame(1000))
    assert twin.close(4000, "enough") == 2
    assert (room.statistics().closed, twin.statistics().closed) == (1, 1)
    assert [transport.closes[0].code for transport in transports] == [1000, 4000, 4000]
    assert (room.members, twin.members) == ((), ())
    closed = transports[1].connection.closed
    assert closed is not None
    assert "all members of a room were closed" in str(closed)
    assert room.close() == 0


async def test_closing_does_not_wait_for_a_slow_member() -> None:
    room = Room("tea")
    slow, quick = full(), fake_connect()
    await room.enter(slow.connection)
    await room.enter(quick.connection)
    room.broadcast("waits for the slow one")
    assert room.close(4000) == 2
    assert slow.closes == quick.closes == [CloseFrame(4000)]


@pytest.mark.parametrize(("code", "reason"), [(1005, ""), (12, ""), (4000, "x" * 124)])
async def test_what_may_not_be_sent_closes_nobody(code: int, reason: str) -> None:
    rooms = Rooms()
    transport = fake_connect()
    async with rooms.user(42).join(transport.connection):
        with pytest.raises(ValueError, match="close"):
            rooms.user(42).close(code, reason)
        with pytest.raises(ValueError, match="close"):
            await rooms.disconnect(42, code, reason)
    assert transport.closes == []


async def test_closing_from_another_thread_is_refused() -> None:
    rooms = Rooms()
    transport = fake_connect()
    async with rooms.user(42).join(transport.connection):
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(rooms.user(42).close)
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(lambda: trio.run(rooms.disconnect, 42))
    assert transport.closes == []


async def test_a_message_that_no_room_made_is_refused_and_closes_nobody() -> None:
    engine = LocalEngine()
    room = Room("tea", engine=engine)
    transport = fake_connect()
    async with room.join(transport.connection):
        for message in (RoomMessage(8, b"\x03"), RoomMessage(8, b"\x03\xe8\xff"), RoomMessage(10, b"")):
            with pytest.raises(ValueError, match=r"clos|no message|utf-8"):
                engine.broadcast("tea", message, (), None)
        assert room.broadcast("goes on") == 1
    assert transport.closes == []


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_comes_back_is_not_closed_by_what_it_missed(at_once: bool) -> None:
    slow = SlowPolicy(max_messages=1000 if at_once else 3)
    room = Room("tea", history=History(), slow=slow)
    position = await room.publish("heard")
    room.broadcast("missed")
    room.close(4000)
    room.broadcast("missed too")
    transport = fake_connect()
    async with room.join(transport.connection, after=position) as member:
        assert member.missed is False
    assert transport.texts == ["missed", "missed too"]
    assert transport.closes == []


async def test_who_is_reading_the_history_is_closed_too() -> None:
    class Slow(LocalEngine):
        async def history(self, *args: Any) -> Any:
            await go_on.wait()
            return await super().history(*args)

    go_on = trio.Event()
    rooms = Rooms(engine=Slow(), history=History())
    transport = fake_connect()
    async with trio.open_nursery() as nursery:

        async def come_back() -> None:
            async with rooms.user(42).join(transport.connection, after="x"):
                assert transport.connection.closed is not None

        nursery.start_soon(come_back)
        await trio.testing.wait_all_tasks_blocked()
        assert rooms.user(42).close(4403) == 1
        go_on.set()
    assert transport.closes == [CloseFrame(4403)]


class Two:
    """A user with two connections."""

    def __init__(self) -> None:
        self.rooms = Rooms()
        self.transports: list[FakeTransport] = [fake_connect(), fake_connect()]

    @classmethod
    @asynccontextmanager
    async def ready(cls) -> AsyncIterator[Two]:
        two = cls()
        one, other = [transport.connection for transport in two.transports]
        async with two.rooms.user(42).join(one), two.rooms.user(42).join(other):
            yield two

    async def disconnect(self) -> None:
        await self.rooms.disconnect(42, 4403)

    def check(self) -> None:
        one, other = [transport.closes for transport in self.transports]
        assert one == other


async def test_a_disconnect_that_is_cancelled_anywhere_closes_all_or_nobody() -> None:
    report = await cancel_everywhere(Two.disconnect, Two.check, setup=Two.ready)
    assert report.cancelled


async def test_clients_get_the_close_frame() -> None:
    app = App()
    rooms = Rooms()

    @app.websocket("/{user}")
    async def talk(ws: Connection, user: str) -> None:
        async with rooms.user(user).join(ws):
            async for message in ws:
                rooms.user(user).broadcast(message)

    async with (
        serve(app) as server,
        server.connect("/ada") as one,
        server.connect("/ada") as two,
        server.connect("/bob") as bob,
    ):
        await one.send("hello")
        assert [await one.receive(), await two.receive()] == ["hello", "hello"]
        await rooms.disconnect("ada", 4403, "you are banned")
        for client in (one, two):
            assert await client.wait_closed() == CloseFrame(4403, "you are banned")
        await bob.send("still here")
        assert await bob.receive() == "still here"
