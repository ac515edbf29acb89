from __future__ import annotations

import trio.testing

from tests.fake_transport import FakeTransport, connect
from wsframework.backlog import Backlog, WaitingBroadcast, WaitingSend
from wsframework.closes import CloseFrame
from wsframework.timers import Timers
from wsframework.transport import encode


class Recipient:
    """Stands in for a room's member: drops, or closes, what is overdue."""

    def __init__(self, transport: FakeTransport, room: str = "a", *, close: bool = False) -> None:
        self.room = room
        self.dropped = 0
        self._endpoint = transport.connection.endpoint
        self._close = close

    def drop(self) -> None:
        self.dropped += 1

    def overdue(self) -> None:
        if self._close:
            self._endpoint.start_close(CloseFrame(1013))
        else:
            assert self._endpoint.waiting is not None
            self._endpoint.waiting.remove_oldest(self.room)
            self.drop()


def full() -> FakeTransport:
    """Return a transport whose outbox has no room for another byte."""
    transport = connect()
    transport.taking = False
    transport.outbox_bytes = 100
    return transport


def wait(recipient: Recipient, text: str, *, seconds: float = 10) -> WaitingBroadcast:
    message = encode(text)
    entry = WaitingBroadcast(recipient, message, len(message.payload), due=trio.current_time() + seconds)
    recipient._endpoint.open_backlog().add_broadcast(entry, seconds)
    return entry


def in_line(backlog: Backlog) -> list[str]:
    return [
        entry.message.payload.decode() if isinstance(entry, WaitingBroadcast) else entry.payload.decode()
        for entry in backlog._line
        if entry.size >= 0
    ]


# Order and account


async def test_broadcasts_of_all_rooms_and_sends_stand_in_one_line_and_one_account() -> None:
    transport = full()
    a, b = Recipient(transport, "a"), Recipient(transport, "b")
    wait(a, "a1")
    wait(b, "b1")
    backlog = transport.connection.endpoint.open_backlog()
    send = WaitingSend(trio.lowlevel.current_task(), 1, b"send")
    backlog.add_send(send)
    wait(a, "a2")
    assert in_line(backlog) == ["a1", "b1", "send", "a2"]
    assert (backlog.bytes, backlog.messages, backlog.senders) == (6, 3, 1)
    backlog.remove_send(send)
    assert (backlog.bytes, backlog.messages, backlog.senders) == (6, 3, 0)
    transport.take()
    assert transport.texts == ["a1", "b1", "a2"]
    assert (backlog.bytes, backlog.messages) == (0, 0)


async def test_the_oldest_of_one_room_is_taken_out_from_behind_those_of_others() -> None:
    transport = full()
    a, b = Recipient(transport, "a"), Recipient(transport, "b")
    for number in range(3):
        wait(a, f"a{number}")
        wait(b, f"b{number}")
    backlog = transport.connection.endpoint.open_backlog()
    assert backlog.remove_oldest("b").message.payload == b"b0"
    assert backlog.remove_oldest("b").message.payload == b"b1"
    assert in_line(backlog) == ["a0", "a1", "a2", "b2"]
    assert (backlog.bytes, backlog.messages) == (8, 4)
    transport.take()
    assert transport.texts == ["a0", "a1", "a2", "b2"]


async def test_empty_entries_never_outnumber_the_others_by_much() -> None:
    transport = full()
    a, b = Recipient(transport, "a"), Recipient(transport, "b")
    wait(a, "first")
    wait(b, "0")
    backlog = transport.connection.endpoint.open_backlog()
    for number in range(1, 10_000):
        wait(b, str(number))
        backlog.remove_oldest("b")
        assert len(backlog._line) < 100
    assert in_line(backlog) == ["first", "9999"]


async def test_it_is_full_by_bytes_or_by_messages_and_never_while_nothing_waits() -> None:
    transport = full()
    backlog = transport.connection.endpoint.open_backlog()
    backlog.add_send(WaitingSend(trio.lowlevel.current_task(), 1, b"x" * 1000))
    assert not backlog.is_full(1000, 100, 1)  # sends do not count, and the first may be of any size
    wait(Recipient(transport), "x" * 50)
    assert not backlog.is_full(50, 100, 2)
    assert backlog.is_full(51, 100, 2)
    assert backlog.is_full(0, 100, 1)


async def test_place_can_be_made_only_among_the_rooms_own() -> None:
    transport = full()
    wait(Recipient(transport, "a"), "x" * 60)
    wait(Recipient(transport, "b"), "y" * 60)
    backlog = transport.connection.endpoint.open_backlog()
    assert backlog.can_make_place("b", 40, 100, 10)
    assert not backlog.can_make_place("b", 41, 100, 10)
    assert not backlog.can_make_place("b", 40, 100, 1)
    assert not backlog.can_make_place("c", 1, 100, 10)
    backlog.remove_oldest("a")
    assert backlog.can_make_place("b", 1000, 100, 10)


# Time


async def test_what_is_overdue_is_looked_for_by_one_timer_a_connection() -> None:
    transport = full()
    a = Recipient(transport, "a")
    for text in ("1", "2", "3"):
        wait(a, text)
    ((seconds, _),) = transport.pending
    assert seconds == 10
    wait(Recipient(transport, "b"), "sooner", seconds=2)
    assert [seconds for seconds, _ in transport.pending] == [10, 2]
    first, _ = (timer for _, timer in transport.pending)
    first.fire()
    assert a.dropped == 0  # it was cancelled


async def test_a_line_that_comes_and_goes_leaves_one_timer_behind() -> None:
    transport = full()
    recipient = Recipient(transport)
    for _ in range(100):
        wait(recipient, "x")
        transport.take()
        transport.outbox_bytes = 100
    assert len(transport.texts) == 100
    ((_, timer),) = transport.pending
    timer.fire()
    assert transport.connection.endpoint.backlog is None
    assert len(transport.pending) == 1


async def test_what_is_overdue_goes_to_its_room_on_time_and_each_by_itself(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = full()
    transport.timers = Timers()
    a, b = Recipient(transport, "a"), Recipient(transport, "b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.timers.run)
        wait(a, "a1", seconds=5)
        wait(b, "b1", seconds=2)
        await trio.sleep(1)
        wait(a, "a2", seconds=5)
        await trio.sleep(0.99)
        assert (a.dropped, b.dropped) == (0, 0)
        await trio.sleep(0.02)
        assert (a.dropped, b.dropped) == (0, 1)
        await trio.sleep(3)
        assert a.dropped == 1
        await trio.sleep(1)
        assert a.dropped == 2
        assert transport.connection.endpoint.waiting is None
        nursery.cancel_scope.cancel()


async def test_the_socket_gets_a_chance_before_anybody_counts_as_late() -> None:
    transport = full()
    recipient = Recipient(transport, close=True)
    wait(recipient, "in the nick of time")
    transport.on_flush_now = transport.take
    ((_, timer),) = transport.pending
    timer.fire()
    assert transport.texts == ["in the nick of time"]
    assert transport.closes == []
    assert transport.connection.endpoint.backlog is None


async def test_a_connection_that_turns_out_to_be_lost_is_judged_no_more() -> None:
    transport = full()
    recipient = Recipient(transport)
    wait(recipient, "x")
    transport.on_flush_now = lambda: transport.connection.endpoint.start_close(CloseFrame(1011))
    ((_, timer),) = transport.pending
    timer.fire()
    assert recipient.dropped == 0


async def test_a_room_that_closes_the_connection_ends_the_judging() -> None:
    transport = full()
    a, b = Recipient(transport, "a", close=True), Recipient(transport, "b")
    wait(a, "a")
    wait(b, "b")
    ((_, timer),) = transport.pending
    timer.fire()
    assert transport.closes == [CloseFrame(1013)]
    assert b.dropped == 0
    assert transport.connection.endpoint.backlog is None


async def test_who_stands_behind_a_large_broadcast_that_is_overdue_gets_its_turn() -> None:
    transport = full()
    transport.outbox_bytes = 50
    wait(Recipient(transport, "a"), "x" * 90, seconds=1)
    wait(Recipient(transport, "b"), "small", seconds=5)
    _, timer = transport.pending[0]
    timer.fire()
    assert transport.texts == ["small"]


async def test_a_broadcast_that_may_wait_for_ever_has_no_timer() -> None:
    transport = full()
    wait(Recipient(transport), "x", seconds=float("inf"))
    assert transport.pending == []
    wait(Recipient(transport, "b"), "y", seconds=1)
    ((_, timer),) = transport.pending
    transport.connection.endpoint.transport.flush_now()
    timer.fire()
    assert len(transport.pending) == 1


async def test_the_socket_is_not_asked_again_at_once(autojump_clock: trio.testing.MockClock) -> None:
    transport = full()
    asked: list[float] = []
    transport.on_flush_now = lambda: asked.append(trio.current_time())
    wait(Recipient(transport), "x")
    backlog = transport.connection.endpoint.open_backlog()
    for _ in range(5):
        backlog.offer()
    await trio.sleep(0.011)
    backlog.offer()
    assert len(asked) == 2


async def test_the_socket_is_asked_for_as_long_as_it_takes_something() -> None:
    transport = full()
    transport.on_flush_now = transport.take
    recipient = Recipient(transport)
    for number in range(10):
        wait(recipient, f"{number:90}")
    transport.connection.endpoint.open_backlog().offer()
    assert transport.texts == [f"{number:90}" for number in range(10)]
