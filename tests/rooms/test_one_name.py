"""Several rooms of one name."""

from __future__ import annotations

import gc

import pytest

from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import Relay
from wsframework import (
    LocalEngine,
    Room,
    Rooms,
)


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
