"""Operations on a connection that run in tasks of their own, for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import FakeTransport, connect
from wsframework.closes import Closed, CloseFrame
from wsframework.config import Limits
from wsframework.connection import Connection

Operation = Callable[[Connection], Awaitable[object]]

BY_PEER = Closed(CloseFrame(4000), CloseFrame(4000, "bye"), False)


def full(limits: Limits | None = None) -> FakeTransport:
    """Return a transport whose outbox has no room for another byte."""
    transport = connect(limits)
    transport.taking = False
    transport.outbox_bytes = 100
    return transport


class Outcome:
    """How an operation that runs in a task of its own went."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.value: object = None
        self.error: Exception | None = None
        self._finished = False

    def finished(self) -> bool:
        return self._finished

    async def run(self, operation: Operation, ws: Connection) -> None:
        with self.scope:
            try:
                self.value = await operation(ws)
            except Exception as error:
                self.error = error
            self._finished = True


async def start(nursery: trio.Nursery, ws: Connection, operation: Operation) -> Outcome:
    """Start an operation and wait until it waits or is over."""
    outcome = Outcome()
    nursery.start_soon(outcome.run, operation, ws)
    await wait_all_tasks_blocked()
    return outcome


def sending(message: str | bytes) -> Operation:
    return lambda ws: ws.send(message)


async def receiving(ws: Connection) -> str | bytes:
    return await ws.receive()


async def next_of_the_loop(ws: Connection) -> str | bytes:
    async for message in ws:
        return message
    return "the loop has ended"


async def pinging(ws: Connection) -> float:
    return await ws.ping(b"p")


async def closing(ws: Connection) -> None:
    await ws.aclose()


# Read anew: the type checker takes an attribute it saw once for a constant.


def ws_is_closed(ws: Connection) -> bool:
    return ws.closed is not None


def has_unread(ws: Connection) -> bool:
    return ws.endpoint.has_unread


def is_draining(ws: Connection) -> bool:
    return ws.draining


# The session's side


class FakeSession:
    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.calls: list[str] = []

    def nursery(self) -> trio.Nursery:
        return self._nursery

    def connection_ended(self) -> None:
        self.calls.append("connection_ended")

    def connection_closed(self) -> None:
        self.calls.append("connection_closed")

    def cancel(self) -> None:
        self.calls.append("cancel")
