"""Engines, messages and calls that do what they should not."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AsyncExitStack, nullcontext
from typing import Any

import pytest

from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import full
from wsframework import (
    Connection,
    Engine,
    History,
    LocalEngine,
    Member,
    Room,
    RoomMessage,
    SlowPolicy,
    Subscriber,
)
from wsframework.wire import Opcode


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


async def test_leaving_twice_ends_no_later_membership() -> None:
    room, ws = Room("lobby"), fake_connect().connection
    first = room.join(ws, "first")
    await first.__aenter__()
    await first.__aexit__(None, None, None)
    async with room.join(ws, "second") as second:
        await first.__aexit__(None, None, None)
        assert room.members == (second,)
        assert room.present() == ["second"]
        assert room.broadcast("x") == 1


def test_the_names_that_programs_need_are_public() -> None:
    assert Member.__module__.startswith("wsframework.rooms.")
    assert issubclass(LocalEngine, Engine)
