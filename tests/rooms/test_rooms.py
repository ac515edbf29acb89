"""Rooms by name; coming back with a position, stored messages, losses."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_transport import connect
from wsframework import (
    App,
    Close,
    Connection,
    Engine,
    GapPolicy,
    History,
    Limits,
    LocalEngine,
    Member,
    Position,
    Replay,
    Room,
    RoomMessage,
    Rooms,
    RoomUnavailable,
    SlowPolicy,
    Subscriber,
)
from wsframework.rooms import seats
from wsframework.testing import cancel_everywhere, serve

KEPT = History(messages=100)


class Slow(LocalEngine):
    """Takes its time to read the history."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = trio.Event()
        self.calls: list[str] = []

    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        self.calls.append(f"history {room}")
        await self.go_on.wait()
        return await super().history(room, after, history)

    def subscribe(self, room: str, subscriber: Subscriber) -> None:
        self.calls.append(f"subscribe {room}")
        super().subscribe(room, subscriber)

    def unsubscribe(self, room: str) -> None:
        self.calls.append(f"unsubscribe {room}")
        super().unsubscribe(room)


async def test_who_comes_back_gets_what_it_missed_and_then_what_is_live() -> None:
    room = Rooms(history=KEPT)["tea"]
    first, again = connect(), connect()
    async with room.join(first.connection) as member:
        assert member.missed is None
        room.broadcast("heard")
        position = member.position
    assert member.position is None
    room.broadcast("missed 1")
    room.broadcast(b"missed 2")
    async with room.join(again.connection, after=position) as member:
        room.broadcast("live")
        assert member.missed is False
    assert [payload for _, payload in again.sent] == [b"missed 1", b"missed 2", b"live"]
    assert first.texts == ["heard"]


async def test_who_missed_more_than_comes_at_once_gets_all_of_it_and_then_what_is_live() -> None:
    room = Rooms(history=History(messages=5000))["tea"]
    transport = connect()
    position = await room.publish("heard")
    for number in range(2500):
        room.broadcast(f"{number}")
    async with room.join(transport.connection, after=position) as member:
        assert member.missed is False
        room.broadcast("live")
        while transport.outbox_bytes:
            transport.take()
    assert transport.texts == [*map(str, range(2500)), "live"]


@pytest.mark.parametrize("after", ["", "7", "x.1", 7, {"position": 1}, [], False])
async def test_what_is_no_position_is_told_to_the_member_and_no_error(after: Any) -> None:
    room = Rooms(history=KEPT)["tea"]
    transport = connect()
    room.broadcast("missed")
    async with room.join(transport.connection, after=after) as member:
        assert member.missed is True
        room.broadcast("live")
    assert transport.texts == ["live"]


async def test_a_room_that_keeps_nothing_says_that_something_may_be_missing() -> None:
    room = Rooms()["tea"]
    position = await room.publish("x")
    async with room.join(connect().connection, after=position) as member:
        assert member.missed is True


async def test_what_is_said_while_the_history_is_read_comes_once() -> None:
    engine = Slow()
    room = Rooms(engine=engine, history=KEPT)["tea"]
    position = await room.publish("before")
    transport = connect()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_back() -> None:
            async with room.join(transport.connection, "x", after=position) as member:
                assert member.missed is False
                room.broadcast("after")

        await trio.testing.wait_all_tasks_blocked()
        room.broadcast("while it is read")
        assert (transport.texts, room.present()) == ([], [])
        with pytest.raises(RuntimeError, match="already a member"):
            async with room.join(transport.connection):
                pytest.fail("joined twice")
        engine.go_on.set()
    assert transport.texts == ["while it is read", "after"]
    assert engine.calls == ["subscribe tea", "history tea", "unsubscribe tea"]


async def test_a_cancelled_return_leaves_nothing_behind() -> None:
    rooms = Rooms(history=KEPT)
    position = await rooms["tea"].publish("x")
    await rooms["tea"].publish("y")

    async def come_back() -> None:
        async with rooms["tea"].join(connect().connection, after=position):
            await trio.lowlevel.checkpoint()

    def check() -> None:
        assert len(rooms) == 0
        assert seats._subscriptions == {}

    assert (await cancel_everywhere(come_back, check)).cancelled >= 2


class Failing(LocalEngine):
    async def history(self, room: str, after: Position, history: History | None) -> Replay:
        raise RoomUnavailable("the broker is away")

    async def publish(
        self, room: str, message: RoomMessage, exclude: Collection[str], history: Any, key: str | None
    ) -> Position:
        raise RoomUnavailable("the broker is away", unknown=True)


async def test_an_engine_that_cannot_read_its_history_leaves_no_member() -> None:
    room = Rooms(engine=Failing())["tea"]
    with pytest.raises(RoomUnavailable) as caught:
        async with room.join(connect().connection, after="x"):
            pytest.fail("joined")
    assert not caught.value.unknown
    assert (room.members, seats._subscriptions) == ((), {})


@pytest.mark.parametrize(
    ("count", "slow"),
    [
        (60, SlowPolicy(max_bytes=2000)),
        (17, SlowPolicy(max_bytes=2000)),
        (19, SlowPolicy(max_messages=10)),
    ],
)
async def test_more_than_a_backlog_may_hold_is_sent_as_the_peer_reads_it(
    count: int, slow: SlowPolicy
) -> None:
    app = App(limits=Limits(outbox_bytes=1000))
    room = Room("tea", history=KEPT, slow=slow)
    first = await room.publish("first")
    expected = [f"{number}".zfill(200) for number in range(count)]
    for text in expected:
        await room.publish(text)

    @app.websocket("/")
    async def come_back(ws: Connection) -> None:
        async with room.join(ws, after=first) as member:
            await ws.send(f"{member.missed}")
            await ws.wait_closed()

    async with serve(app) as server, server.connect("/") as client:
        assert [await client.receive() for _ in expected] == expected
        assert await client.receive() == "False"
        room.broadcast("live")
        assert await client.receive() == "live"


async def test_a_stamp_puts_positions_into_messages_live_and_missed() -> None:
    calls: list[str | bytes] = []

    def stamp(message: str | bytes, position: Position) -> str | bytes:
        calls.append(message)
        return f"{position} {message!s}"

    rooms = Rooms(history=KEPT, stamp=stamp)
    room = rooms["tea"]
    one, two, again = connect(), connect(), connect()
    async with room.join(one.connection), room.join(two.connection):
        positions = [await room.publish(text) for text in ("a", "b")]
    assert one.texts == two.texts == [f"{positions[0]} a", f"{positions[1]} b"]
    assert calls == ["a", "b"]
    async with room.join(again.connection, after=positions[0]):
        pass
    assert again.texts == [f"{positions[1]} b"]


async def test_publishing_is_counted_excludes_and_checks_like_a_broadcast() -> None:
    room = Rooms(history=KEPT)["tea"]
    one, two = connect(), connect()
    async with room.join(one.connection) as member, room.join(two.connection):
        await room.publish("x", exclude=member)
        with pytest.raises(TypeError):
            await room.publish(7)  # type: ignore[arg-type]
        for key in ("", "k" * 65):
            with pytest.raises(ValueError, match="a key has 1 to 64 characters"):
                await room.publish("y", key=key)
        assert await room.publish("y", key="k") == await room.publish("y", key="k")
    assert (one.texts, two.texts) == (["y"], ["x", "y"])


async def test_ids_of_members_begin_with_the_name_of_their_node() -> None:
    engine = LocalEngine()
    async with Room("a", engine=engine).join(connect().connection) as member:
        assert member.id.startswith(f"{engine.node}/")
        assert list(engine.present("a")) == [member.id]


# Losses


@pytest.mark.parametrize("gap", ["close", "ignore", "call"])
async def test_a_loss_that_an_engine_reports_does_what_the_room_says(gap: str) -> None:
    calls: list[tuple[Room, str]] = []

    class Losing(LocalEngine):
        def lose(self, room: str) -> None:
            self._subscribers[room].lost("trimmed")

    policy: Any = (lambda room, reason: calls.append((room, reason))) if gap == "call" else gap
    engine = Losing()
    room = Rooms(engine=engine, gap=policy)["tea"]
    transports = [connect(), connect()]
    async with AsyncExitStack() as stack:
        for transport in transports:
            await stack.enter_async_context(room.join(transport.connection))
        engine.lose("tea")
        assert calls == ([(room, "trimmed")] if gap == "call" else [])
        for transport in transports:
            codes = [(frame.code, frame.reason) for frame in transport.closes]
            assert codes == ([(1013, "messages of this room were lost")] if gap == "close" else [])


@pytest.mark.parametrize("gap", ["shut", None, 7])
def test_a_gap_policy_that_means_nothing_is_refused(gap: GapPolicy) -> None:
    with pytest.raises(ValueError, match="gap is 'close', 'ignore' or a function"):
        Room("tea", gap=gap)


async def test_a_room_that_is_unavailable_closes_with_1013_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        await Rooms(engine=Failing())["tea"].publish("x")

    @app.websocket("/close")
    async def close(ws: Connection) -> None:
        raise BaseExceptionGroup("", [RoomUnavailable("away"), Close(4000, "enough")])

    async with serve(app) as server:
        async with server.connect("/") as client:
            closed = await client.wait_closed()
            assert (closed.code, closed.reason) == (1013, "try again later")
        async with server.connect("/close") as client:
            assert (await client.wait_closed()).code == 4000
    warnings = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert [record.getMessage().split()[0] for record in warnings] == ["room.unavailable"]
    assert "the broker is away" in warnings[0].getMessage()
    assert warnings[0].exc_info is None


def test_an_engine_without_its_methods_cannot_be_made() -> None:
    class Half(Engine):
        node = "half"

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_members_are_public() -> None:
    assert issubclass(Member, seats.Seat)
