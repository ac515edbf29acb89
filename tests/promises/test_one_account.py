"""One connection has one account and one order of what waits for it, whatever its memberships do."""

from __future__ import annotations

import random
import tracemalloc
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import attrs
import pytest
import trio
import trio.testing

from tests.fake_transport import LOST, FakeTransport, connect
from tests.promises.stage import Stage, new_app
from tests.waiting import until
from wsframework import (
    CloseFrame,
    Connection,
    ConnectionClosed,
    Limits,
    LocalEngine,
    Member,
    Room,
    Rooms,
    SlowPolicy,
)
from wsframework.rooms.seats import _subscriptions
from wsframework.timers import Timers

# On real servers

KIB = 1024


async def test_coming_back_again_and_again_does_not_hold_memory(stage: Stage) -> None:
    room = Room("lobby", slow=SlowPolicy(action="drop_newest", max_bytes=100_000))
    most = 0
    done = trio.Event()
    app = new_app(limits=Limits(outbox_bytes=1000))

    @app.websocket("/")
    async def come_and_go(ws: Connection) -> None:
        nonlocal most
        await ws.receive()
        while room.statistics().dropped < 300:
            async with room.join(ws) as member:
                room.broadcast(bytes(75 * KIB))
                most = max(most, member.backlog_bytes)
            await trio.lowlevel.checkpoint()
        done.set()
        await ws.wait_closed()

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=4096)
    tracemalloc.start()
    try:
        await client.send_text("begin")
        await done.wait()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most <= 100_000
    assert held < 1024 * KIB


async def test_what_waits_and_what_comes_after_a_return_arrives_in_the_order_of_the_calls(
    stage: Stage,
) -> None:
    one, two = Room("one"), Room("two")
    app = new_app(limits=Limits(outbox_bytes=1000))
    calls: list[str] = []

    @app.websocket("/")
    async def come_and_go(ws: Connection) -> None:
        # Without a pause, so most of it has to wait for room in the outbox.
        for number in range(40):
            for room in (one, two):
                async with room.join(ws):
                    calls.append(
                        f"{room.name} {number} ".ljust(random.Random(number).randrange(10, 900), ".")
                    )
                    assert room.broadcast(calls[-1]) == 1
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait("would come too early")
        calls.append("the last")
        await ws.send(calls[-1])

    server = await stage.serve(app)
    client = await stage.connect(server)
    received = [await client.next_text()]
    while received[-1] != "the last":
        received.append(await client.next_text())
    assert received == calls
    assert len(calls) == 81


async def test_a_member_that_does_not_read_is_closed_on_time_without_another_broadcast(stage: Stage) -> None:
    room = Room("lobby", slow=SlowPolicy(max_seconds=0.3))
    app = new_app(limits=Limits(outbox_bytes=1000))
    waited: list[float] = []

    @app.websocket("/")
    async def hold(ws: Connection) -> None:
        async with room.join(ws):
            await ws.send(bytes(16 * 1024 * KIB))  # far more than the sockets' buffers take
            assert room.broadcast("the only one") == 1
            start = trio.current_time()
            with pytest.raises(ConnectionClosed):
                await ws.send("stands behind it")
            waited.append(trio.current_time() - start)

    server = await stage.serve(app)
    await stage.connect(server, receive_buffer=4096)
    await until(lambda: waited, what="the slow member is closed")
    assert waited[0] >= 0.3
    assert room.statistics().closed == 1


# Against a model

Action = Literal["close", "drop_newest", "drop_oldest"]


@attrs.define(eq=False)
class Entry:
    """What waits, as the model sees it; a send has no room."""

    text: str
    room: ModelRoom | None = None
    member: object = None
    due: float = 0


@attrs.define(eq=False)
class ModelRoom:
    room: Room
    dropped: int = 0
    closed: int = 0
    broadcasts: int = 0
    deliveries: int = 0


class ModelConnection:
    """A real connection on a pretended transport, and what must become of it, in plain lists."""

    def __init__(self, timers: Timers) -> None:
        self.transport: FakeTransport = connect(Limits(outbox_bytes=100))
        self.transport.taking = False
        self.transport.timers = timers
        self.ws = self.transport.connection
        self.memberships: dict[ModelRoom, AbstractAsyncContextManager[Member]] = {}
        self.senders: dict[str, trio.CancelScope] = {}
        self.sent: list[str] = []
        self.outbox = 0
        self.line: list[Entry] = []
        self.rooms_in_line: list[ModelRoom] = []
        self.closes: list[CloseFrame] = []
        self.over = False

    def fits(self, text: str) -> bool:
        return not self.outbox or self.outbox + len(text) <= 100

    def commit(self, text: str) -> None:
        self.sent.append(text)
        self.outbox += len(text)

    def offer(self, text: str) -> bool:
        if self.over or self.line or not self.fits(text):
            return False
        self.commit(text)
        return True

    def made_room(self) -> None:
        while self.line and self.fits(self.line[0].text):
            self.commit(self.line[0].text)
            self.remove(self.line[0])

    def add(self, entry: Entry) -> None:
        self.line.append(entry)
        if entry.room is not None and entry.room not in self.rooms_in_line:
            self.rooms_in_line.append(entry.room)

    def remove(self, entry: Entry) -> None:
        self.line.remove(entry)
        if entry.room is not None and all(other.room is not entry.room for other in self.line):
            self.rooms_in_line.remove(entry.room)

    def waiting(self, *, besides: ModelRoom | None = None) -> list[Entry]:
        return [entry for entry in self.line if entry.room is not None and entry.room is not besides]

    def close(self, frame: CloseFrame | None) -> None:
        self.over = True
        self.line.clear()
        self.rooms_in_line.clear()
        self.senders.clear()
        self.closes += [frame] if frame else []

    def broadcast(self, room: ModelRoom, text: str, now: float) -> bool:
        """Take a broadcast as the documentation says."""
        policy = room.room.slow

        def too_much(waiting: list[Entry]) -> bool:
            size = sum(len(entry.text) for entry in waiting) + len(text)
            return bool(waiting) and (size > policy.max_bytes or len(waiting) >= policy.max_messages)

        if self.over:
            return False
        if too_much(self.waiting()):
            if policy.action == "close":
                room.closed += 1
                self.close(CloseFrame(1013, "too slow for this room"))
                return False
            if policy.action == "drop_newest" or too_much(self.waiting(besides=room)):
                room.dropped += 1
                return False
            while too_much(self.waiting()):
                self.remove(next(entry for entry in self.line if entry.room is room))
                room.dropped += 1
            self.made_room()
        if not self.offer(text):
            self.add(Entry(text, room, due=now + policy.max_seconds))
        return True

    def judge(self, now: float) -> None:
        """Let the time be `now`."""
        for room in list(self.rooms_in_line):
            for entry in [entry for entry in self.line if entry.room is room and entry.due <= now]:
                if room.room.slow.action == "close":
                    room.closed += 1
                    self.close(CloseFrame(1013, "too slow for this room"))
                    return
                self.remove(entry)
                room.dropped += 1
        self.made_room()


class World:
    """A few rooms, a few connections, and somebody who does with them what the seed says."""

    def __init__(self, seed: int, nursery: trio.Nursery, clock: trio.testing.MockClock) -> None:
        self.random = random.Random(seed)
        self.nursery = nursery
        self.clock = clock
        self.timers = Timers()
        shared = LocalEngine()
        self.rooms = [
            ModelRoom(
                Room(
                    name,
                    engine=shared,
                    slow=SlowPolicy(
                        action=self.random.choice(["close", "drop_newest", "drop_oldest", "drop_oldest"]),
                        max_bytes=self.random.choice([50, 200, 1000]),
                        max_seconds=self.random.choice([2, 5, 9]),
                        max_messages=self.random.choice([3, 10, 100]),
                    ),
                )
            )
            for name in ("a", "a", "b", "c", "d")  # two of one name
        ]
        self.connections = [ModelConnection(self.timers) for _ in range(4)]
        self.number = 0

    def text(self) -> str:
        self.number += 1
        return f"{self.number}".ljust(self.random.choice([4, 4, 20, 60, 150]), ".")

    async def join(self, on: ModelConnection) -> None:
        room = self.random.choice(self.rooms)
        membership = room.room.join(on.ws, self.number)
        if any(other.room.name == room.room.name for other in on.memberships):
            with pytest.raises(RuntimeError, match="already a member"):
                await membership.__aenter__()
        else:
            await membership.__aenter__()
            on.memberships[room] = membership

    async def leave(self, on: ModelConnection) -> None:
        if on.memberships:
            room = self.random.choice(list(on.memberships))
            await on.memberships.pop(room).__aexit__(None, None, None)

    async def come_back(self, on: ModelConnection) -> None:
        for room, membership in list(on.memberships.items()):
            await membership.__aexit__(None, None, None)
            on.memberships[room] = room.room.join(on.ws)
            await on.memberships[room].__aenter__()

    async def broadcast(self, on: ModelConnection) -> None:
        room, text = self.random.choice(self.rooms), self.text()
        excluded = [on] if self.random.random() < 0.2 else []
        reached = 0
        for connection in self.connections:
            for joined in connection.memberships:
                if joined.room.name == room.room.name and connection not in excluded:
                    taken = connection.broadcast(joined, text, self.clock.current_time())
                    joined.deliveries += taken
                    reached += taken
        room.broadcasts += 1
        assert room.room.broadcast(text, exclude=[connection.ws for connection in excluded]) == reached

    async def send(self, on: ModelConnection) -> None:
        text = self.text()
        scope = trio.CancelScope()

        async def send() -> None:
            with scope:
                try:
                    await on.ws.send(text)
                except ConnectionClosed:
                    return

        self.nursery.start_soon(send)
        if not on.offer(text) and not on.over:
            on.add(Entry(text))
            on.senders[text] = scope
        await trio.testing.wait_all_tasks_blocked()

    async def send_nowait(self, on: ModelConnection) -> None:
        text = self.text()
        try:
            on.ws.send_nowait(text)
        except ConnectionClosed:
            assert on.over
        except trio.WouldBlock:
            assert not on.offer(text)
        else:
            assert on.offer(text)

    async def cancel_a_sender(self, on: ModelConnection) -> None:
        waiting = [entry for entry in on.line if entry.room is None]
        if waiting:
            entry = self.random.choice(waiting)
            on.senders.pop(entry.text).cancel()
            on.remove(entry)
            on.made_room()
            await trio.testing.wait_all_tasks_blocked()

    async def take(self, on: ModelConnection) -> None:
        size = min(on.outbox, self.random.choice([1, 10, 100, 1000]))
        on.outbox -= size
        on.made_room()
        on.transport.take(size)

    async def take_much(self, on: ModelConnection) -> None:
        for _ in range(20):
            await self.take(on)

    async def close(self, on: ModelConnection) -> None:
        if self.random.random() < 0.1 and not on.over:
            if self.random.random() < 0.5:
                on.ws.endpoint.start_close(CloseFrame(1000))
                on.close(CloseFrame(1000))
            else:
                on.ws.endpoint.end(LOST)
                on.close(None)

    async def let_time_pass(self, _: object) -> None:
        for _ in range(self.random.choice([1, 1, 3])):
            self.clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
            for connection in self.connections:
                connection.judge(self.clock.current_time())

    def check(self) -> None:
        for on in self.connections:
            assert on.transport.texts == on.sent
            assert on.transport.closes == on.closes
            numbers = [int(text.rstrip(".")) for text in on.sent]
            assert numbers == sorted(set(numbers)), "in the order of the calls, and each once"
            waiting = on.waiting()
            size = sum(len(entry.text) for entry in waiting)
            for membership in on.memberships.values():
                assert isinstance(membership, Member)
                assert membership.backlog_bytes == size
            assert on.ws.statistics().waiting_senders == len(on.line) - len(waiting)
            if len(waiting) > 1:
                policies = [room.room.slow for room in self.rooms]
                assert size <= max(max(policy.max_bytes for policy in policies), 150 + 4)
                assert len(waiting) <= max(policy.max_messages for policy in policies)
        for room in self.rooms:
            statistics = room.room.statistics()
            assert statistics.members == sum(room in on.memberships for on in self.connections)
            assert statistics.broadcasts == room.broadcasts
            assert statistics.deliveries == room.deliveries
            assert (statistics.dropped, statistics.closed) == (room.dropped, room.closed)
            same_name = [other for other in self.rooms if other.room.name == room.room.name]
            present = sum(other.room.statistics().members for other in same_name)
            assert len(room.room.present()) == present

    async def run(self, steps: int) -> None:
        self.nursery.start_soon(self.timers.run)
        moves: list[Any] = [self.join, self.broadcast, self.take, self.send, self.send_nowait]
        moves += [self.leave, self.come_back, self.cancel_a_sender, self.take_much, self.let_time_pass]
        moves += [self.close]
        for _ in range(steps):
            (move,) = self.random.choices(moves, [4, 12, 5, 3, 2, 1, 2, 1, 1, 2, 1])
            await move(self.random.choice(self.connections))
            self.check()
            for index, connection in enumerate(self.connections):
                if connection.over and not connection.memberships:
                    self.connections[index] = ModelConnection(self.timers)

    async def end(self) -> None:
        """Have everybody leave, and find nothing left of them."""
        for on in self.connections:
            while on.memberships:
                await self.leave(on)
        self.check()
        for on in self.connections:
            while on.line or on.outbox:
                await self.take(on)
        self.check()
        self.clock.jump(1000)
        await trio.testing.wait_all_tasks_blocked()
        for on in self.connections:
            assert on.ws.endpoint.waiting is None
            assert on.ws.endpoint.backlog is None
        assert self.timers._heap == []
        assert _subscriptions == {}
        self.nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(30))
async def test_random_comings_and_goings_do_what_plain_lists_say(
    seed: int, mock_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        world = World(seed, nursery, mock_clock)
        await world.run(250)
        await world.end()


async def test_the_rooms_of_a_set_are_gone_with_their_last_message(nursery: trio.Nursery) -> None:
    rooms = Rooms()
    transport = connect()
    transport.taking = False
    transport.outbox_bytes = 100
    async with rooms["tea"].join(transport.connection):
        rooms["tea"].broadcast("waits")
    assert list(rooms._rooms) == ["tea"]  # what waits is judged by its policy
    transport.take()
    _, timer = transport.pending.pop()
    timer.fire()
    del timer
    assert list(rooms._rooms) == []
