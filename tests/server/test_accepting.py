"""Accepting for Trio streams; what both kinds of listeners share is tested with the hub's."""

from __future__ import annotations

import errno
import socket as stdlib_socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio

from tests.server.desk import Poor
from tests.waiting import until
from wsframework.config import Limits, Timeouts
from wsframework.server.accepting import Accepted, StreamListener
from wsframework.server.core import Core


class Stand:
    def __init__(self) -> None:
        core = Core(limits=Limits(), timeouts=Timeouts(), secure=False, observers=())
        self.accepted: list[Accepted] = []
        self.listener = stdlib_socket.create_server(("127.0.0.1", 0))
        self.streams = StreamListener(self.listener, None, core, self.accepted.append, shared=False)
        self.timers = core.timers

    def connect(self) -> stdlib_socket.socket:
        return stdlib_socket.create_connection(self.listener.getsockname())


@asynccontextmanager
async def accepting() -> AsyncIterator[Stand]:
    stand = Stand()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stand.timers.run)
            nursery.start_soon(stand.streams.run)
            yield stand
            nursery.cancel_scope.cancel()
    stand.streams.close()
    for accepted in stand.accepted:
        await accepted.stream.aclose()
        accepted.closed()


async def test_a_connection_is_handed_over_with_its_addresses() -> None:
    async with accepting() as stand:
        with stand.connect() as client:
            await until(lambda: stand.accepted)
            (accepted,) = stand.accepted
            assert (accepted.remote.port, accepted.local.port) == (
                client.getsockname()[1],
                stand.listener.getsockname()[1],
            )
            assert not accepted.on_spare


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EINVAL, 0])
async def test_it_pauses_and_goes_on(number: int, caplog: pytest.LogCaptureFixture) -> None:
    async with accepting() as stand:
        stand.streams._listener = poor = Poor(stand.listener, number, number)  # type: ignore[assignment]
        with stand.connect():
            await until(lambda: caplog.records)
            assert stand.accepted == []
            await until(lambda: stand.accepted)
            assert poor.calls < 10
        stand.streams._listener = stand.listener
    assert len(caplog.records) == 1


async def test_what_serves_one_on_a_spare_descriptor_is_cancelled_for_the_next(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stand = Stand()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stand.timers.run)
        spare = stand.streams._spare
        poor = Poor(stand.listener, *[errno.EMFILE] * 6)
        with stand.connect(), monkeypatch.context() as patch:
            patch.setattr(spare, "refill", lambda: False)
            patch.setattr(stand.streams, "_listener", poor)
            poor._errors[1:1] = [0]  # after the first spare descriptor, something else
            assert not stand.streams._accept()
            poor._errors.clear()
            assert stand.streams._accept()
            (told,) = stand.accepted
            assert told.on_spare
            poor._errors = [errno.EMFILE] * 4
            assert not stand.streams._accept()
        nursery.cancel_scope.cancel()
    assert told.scope.cancel_called
    await told.stream.aclose()
    told.closed()
    assert len(spare._kept) == 4, "it has given its descriptor back"
    stand.streams.close()


@pytest.mark.parametrize("others_accept", [None, False, True])
async def test_who_has_connected_before_it_closes_is_handed_over_unless_others_accept(
    others_accept: bool | None,
) -> None:
    stand = Stand()
    if others_accept is not None:
        politeness = SimpleNamespace(others_accept=lambda: others_accept)
        stand.streams._politeness = politeness  # type: ignore[assignment]
    clients = [stand.connect() for _ in range(100)]
    stand.streams.close()
    assert len(stand.accepted) == (0 if others_accept else 100)
    for accepted in stand.accepted:
        await accepted.stream.aclose()
    for client in clients:
        client.close()
