"""Several rooms of one name."""

from __future__ import annotations

import gc
from contextlib import AsyncExitStack, suppress

import pytest

from tests.fake_transport import connect as fake_connect
from tests.rooms.stage import Relay
from wsframework import (
    History,
    LocalEngine,
    Position,
    Room,
    Rooms,
    Subscriber,
)


class Hearing(LocalEngine):
    """Lets a test report a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribers: dict[str, Subscriber] = {}

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        super().subscribe(room, subscriber)
        self.subscribers[room] = subscriber


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


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
@pytest.mark.parametrize("first", [True, False])
async def test_a_stamp_that_fails_keeps_no_message_from_the_other_rooms_of_its_name(
    kind: type[BaseException], first: bool
) -> None:
    def stamp(message: str | bytes, position: Position) -> str:
        raise kind("of the stamp")

    engine = LocalEngine()
    failing = Room("lobby", engine=engine, history=History(), stamp=stamp)
    other = Room("lobby", engine=engine, history=History())
    sound = fake_connect()
    rooms = [(failing, fake_connect().connection), (other, sound.connection)]
    (one, its), (two, another) = rooms if first else rooms[::-1]
    async with one.join(its), two.join(another):
        with pytest.raises(kind, match="of the stamp"):
            other.broadcast("broadcast")
        with pytest.raises(kind, match="of the stamp"):
            await failing.publish("published")
    assert sound.texts == ["broadcast", "published"]


async def test_a_gap_function_that_fails_keeps_the_loss_from_none_of_the_other_rooms() -> None:
    def gap(room: Room, reason: str) -> None:
        raise SystemExit(reason)

    engine = Hearing()
    failing = Room("lobby", engine=engine, gap=gap)
    other = Room("lobby", engine=engine)
    sound = fake_connect().connection
    async with failing.join(fake_connect().connection), other.join(sound):
        with pytest.raises(SystemExit):
            engine.subscribers["lobby"].lost("trimmed")
        assert sound.closed is not None
        assert sound.closed.sent is not None
        assert sound.closed.sent.code == 1013


async def test_a_gap_function_may_make_the_members_of_another_room_leave() -> None:
    told: list[str] = []
    engine = Hearing()
    async with AsyncExitStack() as members:

        def leave(room: Room, reason: str) -> None:
            told.append(reason)
            for room in (one, two):
                for member in room.members:
                    with suppress(StopIteration):
                        member.__aexit__(None, None, None).__await__().send(None)

        one, two = (Room("lobby", engine=engine, gap=leave) for _ in range(2))
        await members.enter_async_context(one.join(fake_connect().connection))
        await members.enter_async_context(two.join(fake_connect().connection))
        engine.subscribers["lobby"].lost("trimmed")
        assert told == ["trimmed"]


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
