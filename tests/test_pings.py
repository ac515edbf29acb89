"""Pings in flight and the pongs that answer them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from wsframework.pings import Pings


async def test_a_pong_tells_the_round_trip_time(autojump_clock: MockClock) -> None:
    pings = Pings()
    ping = pings.begin(b"a")
    await trio.sleep(0.5)
    assert pings.answer(b"a") == 0.5
    assert await pings.wait(ping) == 0.5


async def test_a_pong_answers_all_pings_before_it(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    pings = Pings()
    found: dict[bytes, float] = {}

    async def wait(payload: bytes) -> None:
        found[payload] = await pings.wait(pings.begin(payload))

    for payload in (b"1", b"2", b"3"):
        nursery.start_soon(wait, payload)
        await wait_all_tasks_blocked()
    await trio.sleep(1)
    assert pings.answer(b"2") == 1
    await wait_all_tasks_blocked()
    assert found == {b"1": 1, b"2": 1}
    pings.answer(b"3")


async def test_a_pong_nobody_waits_for_means_nothing() -> None:
    assert Pings().answer(b"heartbeat") is None


async def test_a_payload_in_flight_cannot_be_used_twice_until_it_is_answered_or_forgotten() -> None:
    pings = Pings()
    ping = pings.begin(b"a")
    with pytest.raises(ValueError, match="already in flight"):
        pings.begin(b"a")
    pings.forget(ping)
    later = pings.begin(b"a")
    pings.forget(ping)  # the first one again: the later one stays
    assert pings.answer(b"a") is not None
    assert later.round_trip is not None


async def test_a_payload_fits_a_control_frame() -> None:
    with pytest.raises(ValueError, match="at most 125 bytes; this one has 126"):
        Pings().begin(b"x" * 126)


async def test_a_cancelled_ping_is_forgotten(autojump_clock: MockClock) -> None:
    pings = Pings()
    with trio.move_on_after(1):
        await pings.wait(pings.begin(b"a"))
    assert pings.answer(b"a") is None


async def test_every_waiting_ping_fails_with_an_exception_of_its_own(nursery: trio.Nursery) -> None:
    pings = Pings()
    errors: list[Exception] = []

    async def wait(payload: bytes) -> None:
        try:
            await pings.wait(pings.begin(payload))
        except ConnectionError as error:
            errors.append(error)

    for payload in (b"1", b"2"):
        nursery.start_soon(wait, payload)
    await wait_all_tasks_blocked()
    pings.fail(lambda: ConnectionError("gone"))
    await wait_all_tasks_blocked()
    assert [str(error) for error in errors] == ["gone", "gone"]
    assert errors[0] is not errors[1]
