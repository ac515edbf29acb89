"""Bodies of requests as they arrive, and who waits for them; what clients see of it is in `test_exchange`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wsframework.errors import Reject
from wsframework.server.bodies import HTTPBody
from wsframework.server.http import Head
from wsframework.tasks import Limit, begin_deciding, end_deciding
from wsframework.timers import Timers

CHUNKED = b"5\r\nhello\r\n1;x=y\r\n \r\n5\r\nworld\r\n0\r\nTrailer: z\r\n\r\n"


@pytest.fixture
async def timers() -> AsyncIterator[Timers]:
    timers = Timers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        yield timers
        nursery.cancel_scope.cancel()


class Desk:
    """A body, and whether it was asked for."""

    def __init__(
        self,
        timers: Timers,
        size: int | None,
        trailing: bytes = b"",
        *,
        max_bytes: int = 1000,
        expect: str | None = None,
    ) -> None:
        fields = () if expect is None else (("expect", expect),)
        self.asked = 0
        self.body = HTTPBody(
            Head("POST", "/", "1.1", fields, trailing, size),
            max_bytes=max_bytes,
            standstill=5.0,
            timers=timers,
            on_wanted=self.ask,
        )

    def ask(self) -> None:
        self.asked += 1

    async def read(self) -> bytes | int:
        try:
            return await self.body.read()
        except Reject as reject:
            return reject.status


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("size", "data"), [(11, b"hello world"), (None, CHUNKED)])
@pytest.mark.parametrize("early", [0, 4])
async def test_a_body_is_whole_however_its_bytes_come(
    timers: Timers, size: int | None, data: bytes, step: int, early: int
) -> None:
    desk = Desk(timers, size, data[:early])
    answers: list[bytes | int] = []

    async def read() -> None:
        answers.append(await desk.read())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert (desk.body.wants, desk.asked) == (True, 1)
        data += b"GET /"
        for place in range(early, len(data), step):
            desk.body.feed(data[place : place + step])
    assert answers == [b"hello world"] * 2
    assert (desk.body.complete, desk.body.wants, desk.body.trailing) == (True, False, b"GET /")
    assert await desk.read() == b"hello world"


async def test_nothing_is_wanted_before_somebody_asks(timers: Timers) -> None:
    desk = Desk(timers, 5, b"he")
    assert (desk.body.wants, desk.asked) == (False, 0)
    whole = Desk(timers, 5, b"helloGET")
    assert await whole.read() == b"hello"
    assert (whole.asked, whole.body.trailing) == (0, b"GET"), "it was there already"


@pytest.mark.parametrize("early", [b"", b"x" * 4])
async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(
    timers: Timers, early: bytes
) -> None:
    desk = Desk(timers, 11, early, max_bytes=10)
    for _ in range(2):
        assert await desk.read() == 413
    assert desk.asked == 0
    assert await Desk(timers, 10, b"x" * 10, max_bytes=10).read() == b"x" * 10


@pytest.mark.parametrize(
    ("size", "whole"), [(11, b"hello world"), (None, b"6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n")]
)
async def test_a_body_that_came_whole_with_its_head_and_is_too_large_is_refused(
    timers: Timers, size: int | None, whole: bytes
) -> None:
    desk = Desk(timers, size, whole + b"GET /", max_bytes=10)
    for _ in range(2):
        assert await desk.read() == 413
    # It has ended, so the connection can go on with the next request.
    assert (desk.body.drop_rest(), desk.body.trailing, desk.asked) == (True, b"GET /", 0)
    assert await Desk(timers, size, whole, max_bytes=11).read() == b"hello world"


async def test_chunks_are_counted_as_they_come(timers: Timers, autojump_clock: MockClock) -> None:
    desk = Desk(timers, None, b"6\r\nhello \r\n", max_bytes=10)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await desk.read() == 413

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        desk.body.feed(b"5\r\nworld\r\n")
    assert not desk.body.drop_rest()
    assert await Desk(timers, None, b"b\r\nhello world\r\n", max_bytes=10).read() == 413


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"5\nhello\r\n",
        b"-5\r\n",
        b"5\r\nhelloXX",
        b"F" * 30 + b"\r\n",
        b"1;" + b"x" * 5000,
    ],
)
async def test_malformed_chunks_are_a_400(timers: Timers, data: bytes) -> None:
    desk = Desk(timers, None, data)
    with trio.fail_after(5):
        assert await desk.read() == 400
    assert not desk.body.drop_rest()


async def test_a_body_must_make_progress_while_somebody_waits(
    timers: Timers, autojump_clock: MockClock
) -> None:
    desk = Desk(timers, 1000)
    await trio.sleep(100)  # as long as nobody waits, nobody judges

    async def feed() -> None:
        for _ in range(3):
            await trio.sleep(4)
            desk.body.feed(b"x" * 240)

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        assert await desk.read() == 408
        assert trio.current_time() - began == pytest.approx(5), "240 bytes a second are the least"
    enough = Desk(timers, 5200)
    began = trio.current_time()

    async def feed_more() -> None:
        for _ in range(4):
            await trio.sleep(4)
            enough.body.feed(b"x" * 1300)

    enough.body.bound(5200, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed_more)
        assert await enough.read() == b"x" * 5200
    assert trio.current_time() - began == pytest.approx(16, abs=0.1)


async def test_a_body_that_ends_too_early_is_a_400(timers: Timers) -> None:
    desk = Desk(timers, 5, b"he")
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await desk.read() == 400

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        desk.body.fail(400, "cut")
    assert await desk.read() == 400
    desk.body.fail(408, "the first one counts")
    assert await desk.read() == 400


async def test_a_cancelled_read_loses_nothing(timers: Timers) -> None:
    desk = Desk(timers, 5, b"he")
    for _ in range(2):
        with trio.move_on_after(0):
            await desk.read()
    desk.body.feed(b"l")
    with trio.CancelScope() as scope:
        scope.cancel()
        await desk.read()
    desk.body.feed(b"lo")
    assert await desk.read() == b"hello"


@pytest.mark.parametrize(
    ("size", "early", "expect", "can"),
    [
        (5, b"hello", None, True),
        (5, b"he", None, True),
        (64 * 1024, b"", None, True),
        (64 * 1024 + 1, b"", None, False),
        (64 * 1024 + 10, b"x" * 10, None, True),
        (None, CHUNKED, None, True),
        (None, CHUNKED[:-1], None, False),
        (5, b"", "100-Continue", False),
        (5, b"h", "100-continue", True),
        (5, b"", "something", True),
    ],
)
async def test_only_a_short_rest_is_dropped(
    timers: Timers, size: int | None, early: bytes, expect: str | None, can: bool
) -> None:
    desk = Desk(timers, size, early, expect=expect)
    assert desk.body.drop_rest() is can
    if can and not desk.body.complete:
        assert desk.body.wants
        assert size is not None
        desk.body.feed(b"x" * (size - len(early)) + b"GET")
        assert (desk.body.complete, desk.body.wants, desk.body.trailing) == (True, False, b"GET")


async def test_the_time_of_a_decision_stands_still_while_its_body_comes(
    timers: Timers, autojump_clock: MockClock
) -> None:
    desk = Desk(timers, 50_000, max_bytes=100_000)
    begin_deciding()
    try:
        desk.body.decided_by = trio.lowlevel.current_task()

        async def feed() -> None:
            for _ in range(10):
                await trio.sleep(4)
                desk.body.feed(b"x" * 5000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            with Limit(10):
                await trio.sleep(3)
                async with trio.open_nursery() as handlers:
                    for _ in range(2):  # tasks of the handler's own
                        handlers.start_soon(desk.read)
                await trio.sleep(6)
            finished = trio.current_time()
            with Limit(10):
                assert len(await desk.body.read()) == 50_000
                await trio.sleep(11)
                raise AssertionError("its time is over")
        assert trio.current_time() - finished == pytest.approx(10)
    finally:
        end_deciding()


async def test_little_is_read_at_once_outside_of_large_chunks(timers: Timers) -> None:
    def body(size: int | None, trailing: bytes = b"") -> HTTPBody:
        return Desk(timers, size, trailing, max_bytes=10**6).body

    assert body(100_000).step == 16 * 1024
    assert body(None).step == 2 * 1024
    assert body(None, b"1\r\nx\r\n" * 10).step == 2 * 1024
    assert body(None, b"2000\r\n").step == 8 * 1024
    assert body(None, b"ffffff\r\n" + b"x" * 1000).step == 16 * 1024
