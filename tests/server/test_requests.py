"""Requests over streams and their mistakes; what users see of both is in the contract and the promises."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from tests.server.serving import QUICK, echo_app
from wsframework.config import Limits
from wsframework.request import Address
from wsframework.server.core import Core
from wsframework.server.http import Head
from wsframework.server.requests import Requests
from wsframework.server.streams import StreamIncoming
from wsframework.session import Decide
from wsframework.wire import build_request

PAGE = b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = build_request("x", "/", "dGhlIHNhbXBsZSBub25jZQ==")
REMOTE, LOCAL = Address("192.0.2.1", 1), Address("192.0.2.2", 2)


def new_core() -> Core:
    return Core(limits=Limits(), timeouts=QUICK, secure=False, observers=())


@asynccontextmanager
async def running(core: Core, decide: Decide) -> AsyncIterator[Requests]:
    requests = Requests(core, decide)
    async with trio.open_nursery() as nursery:
        await nursery.start(requests.tasks.run)
        nursery.start_soon(core.timers.run)
        try:
            with trio.fail_after(30):
                yield requests
        finally:
            requests.tasks.close()
            nursery.cancel_scope.cancel()


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    data = bytearray()
    while piece := await stream.receive_some():
        data += piece
    return bytes(data)


async def exchange(requests: Requests, received: bytes = b"") -> bytes:
    """Serve one stream, of which something was read before, and return all of the answer."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, ours:
        nursery.start_soon(requests.over_stream(theirs, REMOTE, LOCAL, received).serve)
        await ours.send_all(PAGE[len(received) :])
        return await receive_all(ours)


async def test_a_stream_is_served_from_what_was_read_of_it() -> None:
    core = new_core()
    async with running(core, echo_app().decide) as requests:
        assert (await exchange(requests, PAGE[:10])).endswith(b"a page")
    assert (core.admission.open, core.admission.accepted, core.deciding) == (0, 1, {})


async def test_a_decision_that_fails_by_our_mistake_ends_its_connection_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a mistake of ours")

    core = new_core()
    async with running(core, echo_app().decide) as requests:
        with monkeypatch.context() as patch:
            patch.setattr("wsframework.server.requests.consider", fail)
            assert (await exchange(requests)).startswith(b"HTTP/1.1 500")
        (entry,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
        assert entry.__dict__["event"] == "connection.failed"
        assert (await exchange(requests)).endswith(b"a page")
    assert not core.lifetime.stopping.is_set()


async def test_where_no_request_can_be_served_the_server_fails() -> None:
    core = new_core()
    requests = Requests(core, echo_app().decide)  # nothing runs its tasks
    assert await exchange(requests) == b""
    assert core.lifetime.failure is not None
    assert core.lifetime.stopping.is_set()


class Late(trio.abc.ReceiveStream):
    """Has bytes when its reader's time is just over, as a socket has that the event loop came to too late."""

    def __init__(self) -> None:
        self._pieces = [PAGE]

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._pieces:
            return b""
        await trio.sleep(QUICK.handshake + 0.01)
        return self._pieces.pop()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_head_that_waited_for_us_is_read_though_its_time_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answer = trio.testing.MemorySendStream()
    async with running(new_core(), echo_app().decide) as requests:
        await requests.over_stream(trio.StapledStream(answer, Late()), REMOTE, LOCAL).serve()
    assert answer.get_data_nowait().endswith(b"a page")


async def test_a_client_that_sends_nothing_gets_little_more_than_its_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    core = new_core()
    async with running(core, echo_app().decide) as requests:
        _, theirs = trio.testing.memory_stream_pair()
        started = trio.current_time()
        await requests.over_stream(theirs, REMOTE, LOCAL).serve()
    assert QUICK.handshake <= trio.current_time() - started < QUICK.handshake + 0.1
    assert core.handshakes == {}


@pytest.mark.parametrize("steps", range(12))
async def test_a_stream_whose_task_is_cancelled_before_the_decision_leaves_nothing_behind(steps: int) -> None:
    core = new_core()
    async with running(core, echo_app().decide) as requests:
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(UPGRADE)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.over_stream(theirs, REMOTE, LOCAL).serve)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not core.transports
        assert not core.sessions
        assert not core.deciding
        assert core.admission.open == 0
        await ours.aclose()


async def test_a_stream_that_is_lost_before_anybody_decides_about_its_request_is_gone() -> None:
    heads: list[Head] = []
    ours, theirs = trio.testing.memory_stream_pair()
    incoming = StreamIncoming(theirs, REMOTE, LOCAL, new_core(), lambda _, head: heads.append(head))
    async with ours, trio.open_nursery() as nursery:
        nursery.start_soon(incoming.serve)
        await ours.send_all(UPGRADE)
        await trio.testing.wait_all_tasks_blocked()
        assert heads
        assert not incoming.gone
        nursery.cancel_scope.cancel()
    # Whoever decides now has nobody to answer.
    assert incoming.gone
