"""Flushes: once at the end of a turn, or when a task waits for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.server.conftest import Pair
from tests.server.hubs import Watcher, turn
from wsframework.server import hub as hub_module
from wsframework.server.hub import Hub
from wsframework.server.pollers import Poller


async def test_what_is_dirty_is_flushed_once_at_the_end_of_the_turn(hub: Hub, pair: Pair) -> None:
    watcher = Watcher(hub, pair[0])
    await turn()
    for _ in range(10):
        hub.mark_dirty(watcher)
    assert (watcher.flushes, watcher.dirty) == (0, True)
    await turn()
    assert (watcher.flushes, watcher.dirty) == (1, False)
    hub.mark_dirty(watcher)
    await turn()
    assert watcher.flushes == 2


async def test_a_mistake_in_a_flush_is_logged_and_the_others_are_flushed(
    hub: Hub, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    watchers = [Watcher(hub, pair[0]) for _ in range(3)]
    watchers[1].mistake = ZeroDivisionError("a mistake of ours")
    for watcher in watchers:
        hub.mark_dirty(watcher)
    await turn()
    assert [watcher.flushes for watcher in watchers] == [1, 1, 1]
    assert [watcher.aborted for watcher in watchers] == [False, True, False]
    assert len(caplog.records) == 1


async def test_thousands_of_flushes_let_other_tasks_have_their_turn(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_WRITE_SECONDS", 0)
    watchers = [Watcher(hub, pair[0]) for _ in range(100)]
    for watcher in watchers:
        hub.mark_dirty(watcher)
    seen: list[int] = []
    while sum(watcher.flushes for watcher in watchers) < 100:
        await trio.lowlevel.checkpoint()
        seen.append(sum(watcher.flushes for watcher in watchers))
    assert len(seen) >= 5


async def test_as_much_is_flushed_in_one_turn_as_its_time_allows(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_WRITE_SECONDS", 1000)
    watchers = [Watcher(hub, pair[0]) for _ in range(100)]
    await trio.testing.wait_all_tasks_blocked()
    for watcher in watchers:
        hub.mark_dirty(watcher)
    while not watchers[0].flushes:
        await trio.lowlevel.checkpoint()
    assert [watcher.flushes for watcher in watchers] == [1] * 100


async def test_what_is_dirty_can_be_flushed_without_the_hubs_tasks(
    poller: Poller, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    hub = Hub(poller)
    watchers = [Watcher(hub, pair[0]) for _ in range(3)]
    watchers[0].mistake = ZeroDivisionError("a mistake of ours")
    for watcher in watchers:
        hub.mark_dirty(watcher)
    hub.flush_now()
    hub.flush_now()
    assert [watcher.flushes for watcher in watchers] == [1, 1, 1]
    assert [watcher.aborted for watcher in watchers] == [True, False, False]
    assert not any(watcher.dirty for watcher in watchers)
    hub.close()


async def test_waiting_for_a_flush_ends_with_it_and_with_the_hub(pair: Pair, poller: Poller) -> None:
    hub = Hub(poller)
    watcher = Watcher(hub, pair[0])
    hub.mark_dirty(watcher)
    await hub.flushed(watcher)  # nothing flushes, so there is nothing to wait for
    hub.flush_now()
    watcher.flushes = 0
    flushes: list[int] = []

    async def wait() -> None:
        await hub.flushed(watcher)
        flushes.append(watcher.flushes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await trio.testing.wait_all_tasks_blocked()
        hub.mark_dirty(watcher)
        await wait()
        assert flushes == [1]
        # The hub may fail in the same moment: whoever waits must not wait for ever.
        hub.mark_dirty(watcher)
        nursery.start_soon(wait)
        nursery.cancel_scope.cancel()
    assert len(flushes) == 2
    await hub.flushed(watcher)
    hub.close()


async def test_a_keyboard_interrupt_cannot_strike_while_a_task_begins_to_wait_for_a_flush(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected: set[bool] = set()
    wait = trio.lowlevel.wait_task_rescheduled

    async def watched(abort: Callable[[object], trio.lowlevel.Abort]) -> object:
        protected.add(trio.lowlevel.currently_ki_protected())
        return await wait(abort)

    await trio.testing.wait_all_tasks_blocked()
    monkeypatch.setattr(hub_module, "wait_task_rescheduled", watched)
    watcher = Watcher(hub, pair[0])
    hub.mark_dirty(watcher)
    assert not trio.lowlevel.currently_ki_protected()
    await hub.flushed(watcher)
    assert protected == {True}


async def test_waiting_for_a_flush_outlasts_turns_that_end_before_it(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_WRITE_SECONDS", -1)  # every turn ends after the first look at the clock
    watchers = [Watcher(hub, pair[0]) for _ in range(40)]
    await trio.testing.wait_all_tasks_blocked()
    for watcher in watchers:
        hub.mark_dirty(watcher)
    await hub.flushed(watchers[-1])
    assert [watcher.flushes for watcher in watchers] == [1] * 40


async def test_what_gets_dirty_in_a_turn_that_ends_early_is_flushed_after_what_is_left_of_it(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_WRITE_SECONDS", -1)
    order: list[int] = []

    class Numbered(Watcher):
        def __init__(self, number: int) -> None:
            super().__init__(hub, pair[0])
            self.number = number

        def flush(self) -> None:
            order.append(self.number)
            if self.number == 0:
                hub.mark_dirty(late)

    late = Numbered(40)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(40):
        hub.mark_dirty(Numbered(number))
    await turn()
    assert order == list(range(41))
