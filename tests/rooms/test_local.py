"""The engine of a single process. The contract that it keeps is tested in tests/testing/test_engines.py."""

from __future__ import annotations

import tracemalloc

import pytest

from tests.fake_transport import connect
from wsframework import App, History, LocalEngine, Room, RoomMessage
from wsframework.rooms import local
from wsframework.testing import RecordingSubscriber

ONE = RoomMessage.of("x")


async def test_a_key_is_forgotten_after_ten_minutes() -> None:
    now = 0.0
    engine = LocalEngine(clock=lambda: now)
    first = await engine.publish("a", ONE, (), None, "key")
    now = 599.0
    assert await engine.publish("a", ONE, (), None, "key") == first
    now = 601.0
    assert await engine.publish("a", ONE, (), None, "key") != first


async def test_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_MOST_KEYS", 3)
    engine = LocalEngine()
    positions = [await engine.publish("a", ONE, (), None, f"{number}") for number in range(4)]
    assert await engine.publish("a", ONE, (), None, "3") == positions[3]
    assert await engine.publish("a", ONE, (), None, "0") != positions[0]


async def test_the_history_of_all_rooms_is_bounded_together() -> None:
    engine = LocalEngine(total=History(messages=2))
    first = await engine.publish("a", ONE, (), History(), None)
    for room in "bc":
        await engine.publish(room, ONE, (), History(), None)
    assert (await engine.history("b", first, History())).complete
    await engine.publish("a", ONE, (), History(), None)
    await engine.publish("a", ONE, (), History(), None)
    assert not (await engine.history("b", first, History())).complete


async def test_positions_of_another_engine_are_unknown() -> None:
    one, two = LocalEngine(), LocalEngine()
    position = await one.publish("a", ONE, (), History(), None)
    await two.publish("a", ONE, (), History(), None)
    assert not (await two.history("a", position, History())).complete


async def test_it_may_be_installed_as_other_engines_must() -> None:
    app = App()
    app.install(LocalEngine())
    async with app.running():
        pass


async def test_a_room_without_members_has_nobody_present() -> None:
    engine = LocalEngine()
    engine.subscribe("a", RecordingSubscriber())
    engine.enter("a", f"{engine.node}/1", "Ada")
    engine.unsubscribe("a")
    assert engine.present("a") == {}


async def test_rooms_that_were_left_take_no_memory() -> None:
    engine, ws = LocalEngine(), connect().connection

    async def come_and_go(number: int) -> None:
        async with Room(f"room {number}", engine=engine).join(ws, "Ada"):
            pass

    await come_and_go(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(1, 1001):
            await come_and_go(number)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


async def test_a_delivery_has_no_position_while_nothing_is_kept() -> None:
    engine, subscriber = LocalEngine(), RecordingSubscriber()
    engine.subscribe("a", subscriber)
    engine.broadcast("a", ONE, (), None)
    assert subscriber.received == [("x", None, ())]
