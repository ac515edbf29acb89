"""What is received, and what a cancelled receive leaves behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake_transport import connect
from tests.operations import BY_PEER, Operation, next_of_the_loop, receiving, start
from wsframework.config import Limits
from wsframework.endpoint import HEADER_BYTES
from wsframework.errors import ConnectionClosed


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_waiting_receiver_gets_the_message_that_comes(
    nursery: trio.Nursery, operation: Operation
) -> None:
    transport = connect()
    waiting = await start(nursery, transport.connection, operation)
    transport.connection.endpoint.deliver("a")
    transport.connection.endpoint.deliver("b")
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert await operation(transport.connection) == "b"


async def test_messages_are_received_in_order_by_call_and_by_loop() -> None:
    ws = connect().connection
    for message in ("a", b"b", "c", "d"):
        ws.endpoint.deliver(message)
    ws.endpoint.end(BY_PEER)
    assert await ws.receive() == "a"
    assert [message async for message in ws] == [b"b", "c", "d"]


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_cancelled_receive_leaves_the_message(nursery: trio.Nursery, operation: Operation) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, operation)
    waiting.scope.cancel()
    ws.endpoint.deliver("a")  # after the cancellation, before the receiver's task has run
    await wait_all_tasks_blocked()
    assert waiting.scope.cancelled_caught
    with trio.CancelScope() as scope:
        scope.cancel()
        await operation(ws)
    assert scope.cancelled_caught
    assert await operation(ws) == "a"


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_a_receive_that_has_its_message_returns_it_although_it_is_cancelled_then(
    nursery: trio.Nursery, operation: Operation
) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, operation)
    ws.endpoint.deliver("a")
    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert not waiting.scope.cancelled_caught


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
async def test_only_one_task_at_a_time_may_receive(nursery: trio.Nursery, operation: Operation) -> None:
    ws = connect().connection
    first = await start(nursery, ws, receiving)
    with pytest.raises(trio.BusyResourceError, match="another task is already receiving"):
        await operation(ws)
    ws.endpoint.deliver("a")
    await wait_all_tasks_blocked()
    assert first.value == "a"
    ws.endpoint.deliver("b")
    assert await operation(ws) == "b"


@pytest.mark.parametrize("receive", [receiving, next_of_the_loop])
async def test_over_the_budget_reading_pauses_and_resumes_at_half_of_it(receive: Operation) -> None:
    transport = connect(Limits(unread_bytes=8000))
    ws = transport.connection
    message = "x" * (1000 - HEADER_BYTES)
    for _ in range(8):
        ws.endpoint.deliver(message)
    assert transport.reading()
    ws.endpoint.deliver(message)
    assert transport.log == ["pause"]
    ws.endpoint.deliver(message)  # from the same read
    assert ws.statistics().unread_bytes == 10_000
    for _ in range(5):
        await receive(ws)
    assert not transport.reading()
    await receive(ws)
    assert transport.log == ["pause", "resume"]
    for _ in range(4):
        await receive(ws)
    assert transport.log == ["pause", "resume"]
    assert ws.statistics().unread_bytes == 0


async def test_a_flood_of_empty_messages_is_over_the_budget_too() -> None:
    transport = connect(Limits(unread_bytes=8000))
    for _ in range(1000):
        transport.connection.endpoint.deliver("")
    assert transport.log == ["pause"]


async def test_a_message_for_a_waiting_receiver_counts_against_no_budget(nursery: trio.Nursery) -> None:
    transport = connect(Limits(unread_bytes=100))
    waiting = await start(nursery, transport.connection, receiving)
    transport.connection.endpoint.deliver("x" * 1000)
    await wait_all_tasks_blocked()
    assert waiting.value == "x" * 1000
    assert transport.reading()


class AtOnce(trio.abc.Instrument):
    """Does something as soon as this task waits, before any other task runs."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do = do
        self._task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            trio.lowlevel.remove_instrument(self)
            self._do()


@pytest.mark.parametrize("operation", [receiving, next_of_the_loop])
@pytest.mark.parametrize("first", [receiving, next_of_the_loop])
async def test_tasks_that_receive_in_turn_each_get_their_own_message(
    nursery: trio.Nursery, first: Operation, operation: Operation
) -> None:
    """The second one waits, and its message comes, before the first one has run with its own."""
    ws = connect().connection
    waiting = await start(nursery, ws, first)
    ws.endpoint.deliver("a")
    trio.lowlevel.add_instrument(AtOnce(lambda: ws.endpoint.deliver("b")))
    assert ws.endpoint.has_unread
    assert await operation(ws) == "b"
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
    assert not ws.endpoint.has_unread


@pytest.mark.parametrize("first", [receiving, next_of_the_loop])
async def test_the_end_takes_no_message_from_the_task_that_it_was_handed_to(
    nursery: trio.Nursery, first: Operation
) -> None:
    ws = connect().connection
    waiting = await start(nursery, ws, first)
    ws.endpoint.deliver("a")
    trio.lowlevel.add_instrument(AtOnce(lambda: ws.endpoint.end(BY_PEER)))
    with pytest.raises(ConnectionClosed):
        await ws.receive()
    await wait_all_tasks_blocked()
    assert waiting.value == "a"
