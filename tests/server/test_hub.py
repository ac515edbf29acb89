"""The hub: what is ready is called, what is dirty is flushed once a turn, mistakes stay where they are."""

from __future__ import annotations

import logging
import select
import socket as stdlib_socket
import sys
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.server.conftest import Pair
from tests.server.hubs import Watcher, turn
from wsframework.server import hub as hub_module
from wsframework.server.hub import Hub, tune, unsent_bytes
from wsframework.server.pollers import READ, WRITE, EpollPoller, Poller, SelectorPoller


async def test_a_pollee_is_called_with_what_is_ready(hub: Hub, pair: Pair) -> None:
    ours, theirs = pair
    watcher = Watcher(hub, ours)
    hub.add(ours.fileno(), watcher, READ)
    await turn()
    assert watcher.events == []
    theirs.send(b"hello")
    await turn()
    assert (watcher.events, watcher.received) == ([READ], b"hello")
    hub.ask(ours.fileno(), READ | WRITE)
    await turn()
    assert watcher.events == [READ, WRITE]


async def test_a_socket_can_be_handed_to_another_pollee(hub: Hub, pair: Pair) -> None:
    ours, theirs = pair
    first, second = Watcher(hub, ours), Watcher(hub, ours)
    hub.add(ours.fileno(), first, READ)
    hub.replace(ours.fileno(), second)
    theirs.send(b"for the second")
    await turn()
    assert (first.received, second.received) == (b"", b"for the second")


async def test_a_socket_that_was_removed_is_not_looked_at(hub: Hub, pair: Pair) -> None:
    ours, theirs = pair
    watcher = Watcher(hub, ours)
    hub.add(ours.fileno(), watcher, READ)
    theirs.send(b"x")
    hub.remove(ours.fileno())
    hub.remove(ours.fileno())
    ours.close()
    await turn()
    assert watcher.events == []


async def test_a_pollee_that_removes_another_one_of_the_same_turn_is_no_mistake(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [stdlib_socket.socketpair() for _ in range(2)]

    class Jealous(Watcher):
        def on_ready(self, events: int, now: float) -> None:
            super().on_ready(events, now)
            for ours, _ in pairs:
                if ours is not self._socket:
                    hub.remove(ours.fileno())
                    ours.close()

    watchers = []
    for ours, theirs in pairs:
        tune(ours)
        watchers.append(Jealous(hub, ours))
        hub.add(ours.fileno(), watchers[-1], READ)
        theirs.send(b"x")
    await turn()
    assert sorted(len(watcher.events) for watcher in watchers) == [0, 1]
    assert caplog.records == []
    for watcher in watchers:
        if watcher.events:
            hub.remove(watcher._socket.fileno())
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


def make_pairs(hub: Hub, count: int) -> tuple[list[Pair], list[Watcher]]:
    """Watched sockets, all of them readable."""
    pairs, watchers = [], []
    for _ in range(count):
        ours, theirs = stdlib_socket.socketpair()
        tune(ours)
        pairs.append((ours, theirs))
        watchers.append(Watcher(hub, ours))
        hub.add(ours.fileno(), watchers[-1], READ)
        theirs.send(b"x")
    return pairs, watchers


def close_all(hub: Hub, pairs: list[Pair]) -> None:
    for ours, theirs in pairs:
        if ours.fileno() >= 0:
            hub.remove(ours.fileno())
        ours.close()
        theirs.close()


async def test_what_was_ready_is_not_told_to_the_next_owner_of_the_number(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    pairs, watchers = make_pairs(hub, 2)
    heirs: list[Watcher] = []

    def on_ready(events: int, now: float) -> None:
        """Close the other socket, whose event is still to be served, and accept another one."""
        (other,) = (watcher for watcher in watchers if not watcher.events)
        number = other._socket.fileno()
        hub.remove(number)
        other._socket.close()
        pairs.append(stdlib_socket.socketpair())
        tune(pairs[-1][0])
        assert pairs[-1][0].fileno() == number, "the system gives the lowest free number"
        heirs.append(Watcher(hub, pairs[-1][0]))
        hub.add(number, heirs[0], READ)

    for watcher in watchers:
        original = watcher.on_ready

        def first(events: int, now: float, original: Callable[[int, float], None] = original) -> None:
            original(events, now)
            if not heirs:
                on_ready(events, now)

        watcher.on_ready = first  # type: ignore[method-assign]
    await turn()
    assert heirs[0].events == []
    pairs[-1][1].send(b"mine")
    await turn()
    assert heirs[0].received == b"mine"
    assert caplog.records == []
    close_all(hub, pairs)


async def test_the_mistake_of_a_pollee_that_has_removed_itself_is_logged_and_is_about_that_one(
    hub: Hub, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = pair
    heir = Watcher(hub, ours)

    class Leaving(Watcher):
        def on_ready(self, events: int, now: float) -> None:
            self._socket.recv(100)
            hub.remove(self._socket.fileno())
            hub.add(self._socket.fileno(), heir, READ)
            raise ZeroDivisionError("behind its own back")

        def abort(self, cause: str) -> None:
            self.aborted, self.cause = True, cause

    leaving = Leaving(hub, ours)
    hub.add(ours.fileno(), leaving, READ)
    theirs.send(b"x")
    await turn()
    assert [entry.getMessage().split()[0] for entry in caplog.records] == ["connection.failed"]
    assert (leaving.aborted, heir.aborted) == (True, False)
    assert "ZeroDivisionError" in leaving.cause
    theirs.send(b"y")
    await turn()
    assert heir.received == b"y"


async def test_a_pollee_that_cannot_even_be_aborted_is_heard_of_no_more(
    hub: Hub, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    class Hopeless(Watcher):
        def abort(self, cause: str) -> None:
            raise ZeroDivisionError("again")

    hopeless = Hopeless(hub, pair[0])
    hopeless.mistake = ZeroDivisionError("a mistake of ours")
    hub.add(pair[0].fileno(), hopeless, READ)
    pair[1].send(b"x")
    await turn()
    await turn()
    assert len(hopeless.events) == 1
    assert len(caplog.records) == 2


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="only epoll keeps what was closed")
@pytest.mark.parametrize("closed", [False, True])
async def test_an_event_without_an_owner_is_taken_off_the_list_and_logged_once(
    pair: Pair, caplog: pytest.LogCaptureFixture, closed: bool
) -> None:
    poller = EpollPoller()
    hub = Hub(poller)
    ours, theirs = stdlib_socket.socketpair()
    child = ours.dup()  # else the kernel would forget it
    watcher = Watcher(hub, pair[0])
    hub.add(pair[0].fileno(), watcher, READ)
    poller.set(ours.fileno(), READ)
    if closed:
        poller._asked.pop(ours.fileno())
        ours.close()
    theirs.send(b"x")
    polls = 0
    original = poller.poll

    def poll() -> list[tuple[int, int]]:
        nonlocal polls
        polls += 1
        return original()

    poller.poll = poll  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        await trio.sleep(0.02)
        assert polls <= 2, "the hub is busy with nothing"
        pair[1].send(b"for the owner")
        await turn()
        assert watcher.received == b"for the owner"
        nursery.cancel_scope.cancel()
    assert [entry.getMessage().split()[0] for entry in caplog.records] == ["hub.unknown_descriptor"]
    hub.close()
    for socket in (ours, theirs, child):
        socket.close()


async def test_a_turn_ends_in_time_and_the_next_one_goes_on_where_it_ended(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_READ_SECONDS", -1)
    pairs, watchers = make_pairs(hub, 100)
    served: list[int] = []
    while sum(len(watcher.events) for watcher in watchers) < 100:
        await trio.lowlevel.checkpoint()
        served.append(sum(len(watcher.events) for watcher in watchers))
    assert len(set(served)) >= 5, "others had their turns in between"
    assert {len(watcher.events) for watcher in watchers} == {1}, "nobody twice before everybody once"
    close_all(hub, pairs)


async def test_steps_are_taken_in_turn_and_let_others_have_theirs(
    hub: Hub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "_AGAIN_SECONDS", -1)
    watchers = [Watcher(hub, pair[0]) for _ in range(3)]
    for watcher in watchers:
        watcher.steps_wanted = 5
        hub.again(watcher)
        hub.again(watcher)
    seen: list[list[int]] = []
    while sum(watcher.steps for watcher in watchers) < 15:
        await trio.lowlevel.checkpoint()
        seen.append([watcher.steps for watcher in watchers])
    assert all(max(steps) - min(steps) <= 1 for steps in seen)
    assert len(seen) >= 10
    await turn()
    assert [watcher.steps for watcher in watchers] == [5, 5, 5]
    hub.again(watchers[0])
    await turn()
    assert watchers[0].steps == 6


async def test_a_mistake_in_a_step_ends_only_that_pollee(
    hub: Hub, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    watchers = [Watcher(hub, pair[0]) for _ in range(3)]
    watchers[1].mistake = ZeroDivisionError("a mistake of ours")
    for watcher in watchers:
        hub.again(watcher)
    await turn()
    assert [watcher.steps for watcher in watchers] == [1, 1, 1]
    assert [watcher.aborted for watcher in watchers] == [False, True, False]
    assert len(caplog.records) == 1


class Unheard(BaseException):
    pass


@pytest.mark.parametrize("where", ["on_ready", "flush", "go_on", "poll"])
async def test_what_is_not_about_one_pollee_comes_out_of_run(where: str, pair: Pair) -> None:
    poller = SelectorPoller()
    hub = Hub(poller)
    watcher = Watcher(hub, pair[0])
    hub.add(pair[0].fileno(), watcher, READ)
    expected: type[BaseException] = Unheard
    if where == "poll":
        expected = OSError

        def poll() -> list[tuple[int, int]]:
            raise OSError("the list is gone")

        poller.poll = poll  # type: ignore[method-assign]
    else:
        watcher.mistake = Unheard()
    if where == "flush":
        hub.mark_dirty(watcher)
    elif where == "go_on":
        hub.again(watcher)
    else:
        pair[1].send(b"x")
    with trio.fail_after(30), pytest.raises(BaseExceptionGroup) as raised:
        await hub.run()
    assert raised.group_contains(expected)
    watcher.mistake = None
    hub.close()


async def test_a_keyboard_interrupt_never_strikes_in_the_hub(hub: Hub, pair: Pair) -> None:
    watcher = Watcher(hub, pair[0])
    hub.add(pair[0].fileno(), watcher, READ)
    pair[1].send(b"x")
    hub.mark_dirty(watcher)
    hub.again(watcher)
    await turn()
    assert (len(watcher.events), watcher.flushes, watcher.steps) == (1, 1, 1)
    assert watcher.protected == {True}


async def test_a_mistake_in_one_pollee_is_logged_and_ends_only_that_one(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [stdlib_socket.socketpair() for _ in range(2)]
    watchers = []
    for ours, theirs in pairs:
        tune(ours)
        watchers.append(Watcher(hub, ours))
        hub.add(ours.fileno(), watchers[-1], READ)
        theirs.send(b"x")
    watchers[0].mistake = ZeroDivisionError("a mistake of ours")
    await turn()
    assert watchers[0].aborted
    assert watchers[1].received == b"x"
    pairs[1][1].send(b"y")
    await turn()
    assert watchers[1].received == b"xy"
    (entry,) = caplog.records
    assert (entry.levelno, entry.getMessage().split()[0]) == (logging.ERROR, "connection.failed")
    assert entry.exc_info is not None
    hub.remove(pairs[1][0].fileno())
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_closing_drops_what_is_left(poller: Poller, pair: Pair) -> None:
    hub = Hub(poller)
    watcher = Watcher(hub, pair[0])
    hub.add(pair[0].fileno(), watcher, READ)
    with trio.move_on_after(0.01):
        await hub.run()
    assert not watcher.aborted
    hub.close()
    assert watcher.aborted


async def test_closing_drops_everybody_even_if_one_cannot_be_dropped(
    poller: Poller, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    class Hopeless(Watcher):
        def abort(self, cause: str) -> None:
            raise ZeroDivisionError("a mistake of ours")

    hub = Hub(poller)
    hub.add(pair[0].fileno(), Hopeless(hub, pair[0]), READ)
    pairs, watchers = make_pairs(hub, 3)
    hub.close()
    assert [watcher.cause for watcher in watchers] == ["the server has ended"] * 3
    assert len(caplog.records) == 1
    close_all(hub, pairs)


def test_a_socket_tells_what_it_has_not_sent(pair: Pair) -> None:
    ours, _ = pair
    assert unsent_bytes(ours.fileno()) == 0
    assert unsent_bytes(-1) == 0
    sent = ours.send(bytes(1000))
    assert sent == 1000
    if sys.platform == "linux":
        assert unsent_bytes(ours.fileno()) >= 1000


def test_a_tuned_socket_does_not_block_and_does_not_wait_to_fill_packets() -> None:
    with stdlib_socket.socket() as socket:
        tune(socket)
        assert socket.gettimeout() == 0
        assert socket.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY)
