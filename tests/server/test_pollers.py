"""Pollers: they report what is ready of what was asked for, and forget a socket before its number is free."""

from __future__ import annotations

import os
import select
import selectors
import socket as stdlib_socket

import pytest

from tests.server.conftest import Pair
from wsframework.server.pollers import (
    HANGUP,
    READ,
    WRITE,
    EpollPoller,
    Poller,
    SelectorPoller,
    default_poller,
    hub_is_possible,
)


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


def test_a_poller_forgets_a_socket_that_somebody_else_holds_too(poller: Poller) -> None:
    # As a child holds it that a handler has forked: then closing it takes it off no list of the kernel's.
    ours, theirs = stdlib_socket.socketpair()
    poller.set(ours.fileno(), READ)
    child = ours.dup()
    with theirs, child:
        assert poller.forget(ours.fileno())
        ours.close()
        theirs.send(b"x")
        assert poller.poll() == []
    poller.close()


def test_a_poller_that_is_closed_has_given_its_descriptor_back(poller: Poller) -> None:
    number = poller.fileno()
    poller.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_poller_is_not_disturbed_by_a_number_that_it_does_not_know(poller: Poller, pair: Pair) -> None:
    assert not poller.forget(pair[0].fileno())
    assert not poller.forget(1_000_000)
    poller.close()
    assert not poller.forget(pair[0].fileno())


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


def test_without_epoll_the_default_is_a_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(select, "epoll", raising=False)
    poller = default_poller()
    assert isinstance(poller, SelectorPoller)
    poller.close()
