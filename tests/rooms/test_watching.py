"""Watching who is present."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import trio
import trio.testing

from tests.fake_transport import LOST
from tests.fake_transport import connect as fake_connect
from wsframework import App, Connection, LocalEngine, PresenceChange, Room, Rooms, WrongThread
from wsframework.rooms import seats
from wsframework.testing import cancel_everywhere, serve


async def following(changes: AsyncIterator[PresenceChange], seconds: float = 60.0) -> PresenceChange | None:
    """Return the next change, or None if there is none."""
    with trio.move_on_after(seconds):
        return await anext(changes)
    return None


def entered(**people: Any) -> PresenceChange:
    return PresenceChange(people, {}, {}, False)


NOBODY = entered()


async def test_the_first_change_has_everybody_and_the_next_what_has_changed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room("tea")
    async with room.join(fake_connect().connection, "Ada", key="ada"):
        changes = room.watch()
        assert await anext(changes) == entered(ada="Ada")
        assert await following(changes) is None
        async with room.join(fake_connect().connection, "Bob", key=7) as bob:
            assert await anext(changes) == PresenceChange({"7": "Bob"}, {}, {}, False)
            bob.data = "Bob, away"
            assert await anext(changes) == PresenceChange({}, {}, {"7": "Bob, away"}, False)
        assert await following(changes, 4.9) is None
        assert await anext(changes) == PresenceChange({}, {"7": "Bob, away"}, {}, False)


async def test_an_empty_room_can_be_watched_and_is_given_up_with_the_last_watcher(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = LocalEngine()
    room = Room("tea", engine=engine)
    changes, others = room.watch(linger=0), room.watch()
    assert await anext(changes) == await anext(others) == NOBODY
    async with room.join(fake_connect().connection, "Ada") as member:
        assert await anext(changes) == await anext(others) == entered(**{member.id: "Ada"})
    assert await anext(changes) == PresenceChange({}, {member.id: "Ada"}, {}, False)
    del changes
    assert seats.subscription_of(engine, "tea") is not None
    del others
    assert seats.subscription_of(engine, "tea") is None


async def test_a_loop_that_ends_leaves_nothing_behind(autojump_clock: trio.testing.MockClock) -> None:
    engine = LocalEngine()
    room = Room("tea", engine=engine)

    async def watch() -> None:
        async for _ in room.watch():
            pass

    async for change in room.watch():
        assert change == NOBODY
        break
    assert seats.subscription_of(engine, "tea") is None
    with trio.move_on_after(1):
        await watch()
    assert seats.subscription_of(engine, "tea") is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        assert seats.subscription_of(engine, "tea") is not None
        nursery.cancel_scope.cancel()
    gc.collect()
    assert seats.subscription_of(engine, "tea") is None


async def test_what_happens_at_once_is_one_change(autojump_clock: trio.testing.MockClock) -> None:
    room = Room("tea")
    changes = room.watch()
    await anext(changes)
    for number in range(100):
        await room.enter(fake_connect().connection, number, key=number)
    begun = trio.current_time()
    change = await anext(changes)
    assert change.entered == {str(number): number for number in range(100)}
    assert trio.current_time() - begun == pytest.approx(0.05)
    for member in room.members:
        member.leave()
    assert len((await anext(changes)).left) == 100
    assert await following(changes) is None


async def test_a_second_tab_and_a_client_that_reconnects_are_no_news(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room("tea")
    changes = room.watch()
    await anext(changes)
    async with room.join(fake_connect().connection, "first tab", key="ada"):
        assert await anext(changes) == entered(ada="first tab")
        async with room.join(fake_connect().connection, "second tab", key="ada"):
            assert room.present() == ["first tab", "second tab"]
            assert await following(changes) is None
        assert await following(changes) is None
    assert await following(changes, 4) is None
    async with room.join(fake_connect().connection, "first tab", key="ada"):
        assert await following(changes) is None
        gone = fake_connect()
        await room.enter(gone.connection, key="bob")
        assert (await anext(changes)).entered == {"bob": None}
        gone.connection.endpoint.finish(LOST)
        assert (await anext(changes)).left == {"bob": None}


async def test_a_slow_watcher_gets_one_change_however_much_has_happened(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room("tea")
    slow, quick = room.watch(linger=0), room.watch(linger=0)
    await anext(slow)
    await anext(quick)
    stays = await room.enter(fake_connect().connection, "a", key="stays")
    await anext(slow)
    await anext(quick)
    for number in range(500):
        member = await room.enter(fake_connect().connection, key=f"visitor {number}")
        await anext(quick)
        member.leave()
        assert (await anext(quick)).left
    stays.data = "b"
    last = await room.enter(fake_connect().connection, "c", key="last")
    await anext(quick)
    assert await anext(slow) == PresenceChange({"last": "c"}, {}, {"stays": "b"}, False)
    stays.leave()
    last.leave()
    assert (await anext(slow)).left == (await anext(quick)).left == {"stays": "b", "last": "c"}


async def test_one_who_watches_alone_and_slowly_keeps_nothing_of_those_who_have_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room("tea")
    changes = room.watch(linger=0)
    await anext(changes)
    for number in range(500):
        member = await room.enter(fake_connect().connection, key=f"visitor {number}")
        await trio.sleep(0.1)
        member.leave()
    assert await following(changes) is None


async def test_many_watchers_share_one_change(autojump_clock: trio.testing.MockClock) -> None:
    room = Room("tea")
    watchers = [room.watch() for _ in range(20)]
    for changes in watchers:
        await anext(changes)
    seen: list[PresenceChange] = []

    async def watch(changes: AsyncIterator[PresenceChange]) -> None:
        seen.append(await anext(changes))

    async with trio.open_nursery() as nursery:
        for changes in watchers:
            nursery.start_soon(watch, changes)
        await trio.testing.wait_all_tasks_blocked()
        await room.enter(fake_connect().connection, "Ada", key="ada")
    assert len(seen) == 20
    assert all(change is seen[0] for change in seen)
    late = room.watch()
    assert await anext(late) == entered(ada="Ada")
    room.members[0].leave()


async def test_rooms_of_one_name_and_of_users_are_watched(autojump_clock: trio.testing.MockClock) -> None:
    rooms = Rooms()
    one = Room("tea", engine=LocalEngine())
    two = Room("tea", engine=one.engine)
    changes, of_user, of_room = one.watch(), rooms.user(42).watch(), rooms["42"].watch()
    for each in (changes, of_user, of_room):
        await anext(each)
    async with (
        two.join(fake_connect().connection, "Ada", key="ada"),
        rooms.user(42).join(fake_connect().connection, "a tab", key="ada"),
    ):
        assert await anext(changes) == entered(ada="Ada")
        assert await anext(of_user) == entered(ada="a tab")
        assert await following(of_room) is None


class Away(LocalEngine):
    """An engine whose broker can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.stale = False

    def presence_stale(self, room: str) -> bool:
        return self.stale

    def present(self, room: str) -> Mapping[str, Any]:
        return {} if self.stale and not self._present else super().present(room)

    def go(self, *, stale: bool) -> None:
        self.stale = stale
        for subscriber in self._subscribers.values():
            subscriber.presence_read()


async def test_a_watcher_is_told_that_what_it_knows_may_be_out_of_date(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Away()
    room = Room("tea", engine=engine)
    changes = room.watch()
    await room.enter(fake_connect().connection, "Ada", key="ada")
    await anext(changes)
    await anext(changes)
    engine.go(stale=True)
    stale = [room.presence_stale]
    assert await anext(changes) == PresenceChange({}, {}, {}, True)
    assert await following(changes) is None
    late = room.watch()
    assert await anext(late) == PresenceChange({"ada": "Ada"}, {}, {}, True)
    engine.go(stale=False)
    assert await anext(changes) == await anext(late) == PresenceChange({}, {}, {}, False)
    assert [*stale, room.presence_stale] == [True, False]
    engine.go(stale=True)
    engine.go(stale=False)
    assert await following(changes) is None
    room.members[0].leave()


async def test_an_engine_that_cannot_tell_who_is_present_leaves_no_watcher() -> None:
    class Broken(LocalEngine):
        def present(self, room: str) -> Mapping[str, Any]:
            raise OSError("a test")

    room = Room("tea", engine=Broken())
    with pytest.raises(OSError, match="a test"):
        room.watch()
    assert seats.subscription_of(room.engine, "tea") is None


async def test_the_first_change_waits_until_the_members_are_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    engine = Away()
    engine.stale = True
    room = Room("tea", engine=engine)
    changes = room.watch()
    await room.enter(fake_connect().connection, "Ada", key="ada")
    assert await following(changes) is None
    seen: list[PresenceChange] = []

    async def watch() -> None:
        seen.append(await anext(changes))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        engine.go(stale=False)
    assert seen == [entered(ada="Ada")]
    room.members[0].leave()


async def test_a_watcher_that_is_cancelled_anywhere_misses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    room = Room("tea")
    changes = room.watch()
    known: dict[str, Any] = {}
    number = 0

    async def watch() -> None:
        change = await anext(changes)
        known.update(change.entered)

    async def check() -> None:
        nonlocal number
        while len(known) < number:
            await watch()
        number += 1
        await room.enter(fake_connect().connection, key=number)

    await watch()
    await check()
    assert (await cancel_everywhere(watch, check)).cancelled >= 2
    for member in room.members:
        member.leave()


async def test_watching_in_another_thread_is_refused() -> None:
    room = Room("tea")
    changes = room.watch()
    await anext(changes)

    async def watch() -> None:
        await anext(changes)

    for call in (lambda: trio.run(watch), room.watch):
        with pytest.raises(WrongThread, match=r"room\.watch"):
            await trio.to_thread.run_sync(call)


@pytest.mark.parametrize("linger", [-1.0, float("nan")])
def test_a_linger_that_makes_no_sense_is_refused(linger: float) -> None:
    with pytest.raises(ValueError, match="linger must be 0 or more"):
        Room("tea").watch(linger=linger)


async def test_clients_are_told_who_comes_and_goes() -> None:
    app = App()
    rooms = Rooms()

    @app.websocket("/{user}")
    async def talk(ws: Connection, user: str) -> None:
        async def tell() -> None:
            async for change in rooms["tea"].watch(linger=0.1):
                await ws.send(f"+{','.join(change.entered)} -{','.join(change.left)}")

        async with rooms["tea"].join(ws, key=user):
            ws.nursery.start_soon(tell)
            async for _ in ws:
                pass

    async with serve(app) as server, server.connect("/ada") as ada:
        assert await ada.receive() == "+ada -"
        async with server.connect("/bob") as bob:
            assert await ada.receive() == "+bob -"
            assert await bob.receive() in ("+ada,bob -", "+ada -")
            async with server.connect("/bob"):
                pass
        assert await ada.receive() == "+ -bob"
    assert len(rooms) == 0
