"""The hub: what is ready is called, what is dirty is flushed once a turn, mistakes stay where they are."""

from __future__ import annotations

import logging
import select
import selectors
import socket as stdlib_socket
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
import trio.testing

from wsframework.server import hub as hub_module
from wsframework.server.hub import (
    HANGUP,
    READ,
    WRITE,
    EpollPoller,
    Hub,
    Poller,
    SelectorPoller,
    hub_is_possible,
    tune,
)

POLLERS: list[Callable[[], Poller]] = [SelectorPoller]
if hasattr(select, "epoll"):
    POLLERS.append(EpollPoller)

Pair = tuple[stdlib_socket.socket, stdlib_socket.socket]


@pytest.fixture(params=POLLERS, ids=lambda poller: poller.__name__)
def poller(request: pytest.FixtureRequest) -> Poller:
    made: Poller = request.param()
    return made


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = stdlib_socket.socketpair()
    tune(ours)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def hub(poller: Poller) -> AsyncIterator[Hub]:
    """A hub that runs."""
    hub = Hub(poller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        yield hub
        nursery.cancel_scope.cancel()
    hub.close()


class Watcher:
    """A pollee that remembers what happened to it."""

    def __init__(self, hub: Hub, socket: stdlib_socket.socket) -> None:
        self.dirty = False
        self.events: list[int] = []
        self.received = b""
        self.flushes = 0
        self.aborted = False
        self.mistake: Exception | None = None
        self._hub = hub
        self._socket = socket

    def on_ready(self, events: int, now: float) -> None:
        self.events.append(events)
        if self.mistake is not None:
            raise self.mistake
        if events & READ:
            self.received += self._socket.recv(100)
        if events & WRITE:
            self._hub.ask(self._socket.fileno(), READ)

    def flush(self) -> None:
        self.flushes += 1
        if self.mistake is not None:
            raise self.mistake

    def abort(self, cause: str) -> None:
        self.aborted = True
        self._hub.remove(self._socket.fileno())
        self._socket.close()


async def turn() -> None:
    """Let the hub do what is to be done."""
    await trio.testing.wait_all_tasks_blocked(0.005)


# Pollers


def test_a_poller_says_what_is_ready_among_what_was_asked(poller: Poller, pair: Pair) -> None:
    ours, theirs = pair
    fd = ours.fileno()
    poller.set(fd, READ)
    assert poller.poll() == []
    theirs.send(b"x")
    assert poller.poll() == [(fd, READ)]
    poller.set(fd, READ | WRITE)
    assert poller.poll() == [(fd, READ | WRITE)]
    poller.set(fd, WRITE)
    assert poller.poll() == [(fd, WRITE)]
    poller.set(fd, 0)
    assert poller.poll() == []
    poller.set(fd, READ)
    assert poller.poll() == [(fd, READ)]
    poller.forget(fd)
    ours.close()
    assert poller.poll() == []
    poller.close()


def test_a_poller_knows_nothing_of_a_new_socket_with_an_old_number(poller: Poller) -> None:
    ours, theirs = stdlib_socket.socketpair()
    number = ours.fileno()
    poller.set(number, WRITE)
    poller.forget(number)
    ours.close()
    theirs.close()
    ours, theirs = stdlib_socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno()), "the system gives the lowest free number"
        poller.set(number, READ)
        assert poller.poll() == []
    poller.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="only epoll tells it")
def test_epoll_tells_a_fin_that_is_behind_unread_bytes(pair: Pair) -> None:
    ours, theirs = pair
    poller = EpollPoller()
    poller.set(ours.fileno(), HANGUP)
    theirs.send(b"unread")
    assert poller.poll() == []
    theirs.shutdown(stdlib_socket.SHUT_WR)
    ((_, events),) = poller.poll()
    assert events & HANGUP
    assert not events & READ
    poller.close()


def test_a_selector_of_ones_own_will_do(pair: Pair) -> None:
    with selectors.DefaultSelector() as selector:
        poller = SelectorPoller(selector)
        poller.set(pair[0].fileno(), WRITE)
        assert poller.poll() == [(pair[0].fileno(), WRITE)]


def test_the_hub_is_possible_where_there_is_an_interest_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub_is_possible()
    for name in ("epoll", "kqueue"):
        monkeypatch.delattr(select, name, raising=False)
    assert not hub_is_possible()


def test_without_epoll_the_hub_takes_a_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll", raising=False)
    hub = Hub()
    assert isinstance(hub._poller, SelectorPoller)
    hub.close()


# The hub


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


async def test_closing_drops_what_is_left(poller: Poller, pair: Pair) -> None:
    hub = Hub(poller)
    watcher = Watcher(hub, pair[0])
    hub.add(pair[0].fileno(), watcher, READ)
    with trio.move_on_after(0.01):
        await hub.run()
    assert not watcher.aborted
    hub.close()
    assert watcher.aborted


def test_a_tuned_socket_does_not_block_and_does_not_wait_to_fill_packets() -> None:
    with stdlib_socket.socket() as socket:
        tune(socket)
        assert socket.gettimeout() == 0
        assert socket.getsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY)
