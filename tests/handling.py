"""Sessions for tests: a handler served on a fake transport, and what was logged of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import LOST, FakeTransport, connect
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Timeouts
from wsframework.connection import Connection
from wsframework.errors import ConnectionClosed
from wsframework.server.logged import LogObserver
from wsframework.session import Acceptance, Session
from wsframework.timers import Timers

Handler = Callable[[Connection], Awaitable[object]]

BY_PEER = Closed(CloseFrame(4000), CloseFrame(4000, "bye"), False)
ELSEWHERE = ConnectionClosed(LOST)
"""What a handler gets from another connection, such as one to a server behind this one."""


@pytest.fixture(autouse=True)
def logged_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")


class Served:
    """A session that runs in a task, on a transport whose peer answers our Close."""

    def __init__(self, handler: Handler, timeouts: Timeouts) -> None:
        self.transport: FakeTransport = connect(subprotocol="chat")
        self.ws = self.transport.connection
        self.timers = self.transport.timers = Timers()
        self.timeouts = timeouts
        self.over = trio.Event()
        self.accept(Acceptance(handler, name="talk"))

    def accept(self, acceptance: Acceptance) -> None:
        self._session = Session(
            self.ws,
            acceptance,
            timers=self.timers,
            timeouts=self.timeouts,
            observer=LogObserver(self.timers),
            on_over=lambda _: self.over.set(),
        )

    async def run(self) -> None:
        await self._session.run()

    def end(self, closed: Closed = BY_PEER) -> None:
        """Pretend that the peer closed the connection, or was lost."""
        self.ws.endpoint.end(closed)
        self.timers.after(0.1, lambda: self.ws.endpoint.finish(closed))


@asynccontextmanager
async def serving(handler: Handler, *, grace: float = 5.0, taking: bool = True) -> AsyncIterator[Served]:
    """Serve `handler`, let the block do something to it, and wait until the session is over.

    Args:
        handler: what is served.
        grace: seconds that it gets after the connection's end.
        taking: whether the pretended socket takes what is sent.
    """
    served = Served(handler, Timeouts(disconnect_grace=grace))
    served.transport.taking = taking
    async with trio.open_nursery() as nursery:
        nursery.start_soon(served.timers.run)
        nursery.start_soon(served.run)
        await wait_all_tasks_blocked()
        yield served
        with trio.fail_after(60):
            await served.over.wait()
        nursery.cancel_scope.cancel()


async def serve(handler: Handler) -> Served:
    """Serve `handler`, whose peer does nothing but answer our Close, to its end."""
    async with serving(handler) as served:
        pass
    return served


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.__dict__["event"] for entry in caplog.records]


def crash(caplog: pytest.LogCaptureFixture) -> BaseException:
    """Return the one exception that was logged."""
    (entry,) = [entry for entry in caplog.records if entry.exc_info]
    assert entry.__dict__["event"] == "handler.crashed"
    assert entry.levelno == logging.ERROR
    assert entry.exc_info is not None
    assert isinstance(entry.exc_info, tuple)
    assert entry.exc_info[1] is not None
    return entry.exc_info[1]


def raising(error: BaseException) -> Handler:
    async def handler(ws: Connection) -> None:
        raise error

    return handler


async def until_the_end(ws: Connection) -> None:
    async for _ in ws:
        pass


# ws.nursery


async def sleeper(log: list[str]) -> None:
    try:
        await trio.sleep_forever()
    finally:
        log.append(f"child over at {trio.current_time():g}")
