"""Connections that have reached their age; the contract suite has every host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from wsframework import App, Connection, Keepalive, Limits
from wsframework.server.aging import Aging
from wsframework.testing import Client, connect, connection_pair, serve
from wsframework.timers import Timer, Timers

AGE = 100.0


def new_app(age: float | None = AGE, keepalive: Keepalive | None = None) -> App:
    app = App(limits=Limits(connection_age=age), keepalive=keepalive)

    @app.websocket("/")
    async def stay(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    @app.websocket("/farewell")
    async def farewell(ws: Connection) -> None:
        await ws.wait_draining()
        assert ws.draining
        await ws.send("come back")
        await ws.wait_closed()

    return app


async def seconds_until_closed(client: Client) -> float:
    client.deadline = 10 * AGE
    started = trio.current_time()
    frame = await client.wait_closed()
    assert (frame.code, frame.reason) == (1012, "the connection has reached its maximum age")
    return trio.current_time() - started


async def test_a_connection_is_closed_with_1012_at_its_age_more_or_less(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serve(new_app()) as server:
        lasted: list[float] = []

        async def last() -> None:
            async with server.connect("/") as client:
                lasted.append(await seconds_until_closed(client))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(last)
    assert all(0.9 * AGE <= seconds <= 1.1 * AGE + 3 for seconds in lasted)
    assert max(lasted) - min(lasted) > AGE / 20, "they leave one after the other"
    assert len(set(lasted)) == 50


async def test_its_handler_is_told_in_time_for_a_last_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with connect(new_app(), "/farewell") as client:
        client.deadline = 10 * AGE
        assert await client.receive() == "come back"
        assert 0 < await seconds_until_closed(client) <= 2


async def test_without_a_limit_connections_last(autojump_clock: trio.testing.MockClock) -> None:
    # Pings would take most of the test's time.
    async with connect(new_app(None, Keepalive(interval=None)), "/") as client:
        await trio.sleep(80_000)
        await client.send("still there")
        assert await client.receive() == "still there"


async def test_a_short_age_has_a_short_notice(autojump_clock: trio.testing.MockClock) -> None:
    async with connect(new_app(0.5), "/") as client:
        assert 0.45 <= await seconds_until_closed(client) <= 0.8


async def test_what_is_closed_before_its_age_is_forgotten_and_nothing_is_left_to_do(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers()
    sweeps: list[float] = []
    after = timers.after

    def counted(seconds: float, callback: Callable[[], None]) -> Timer:
        sweeps.append(seconds)
        return after(seconds, callback)

    monkeypatch.setattr(timers, "after", counted)
    nursery.start_soon(timers.run)
    aging = Aging(AGE, timers)
    await trio.sleep(10)
    assert sweeps == []
    async with connection_pair() as (ws, client):
        aging.connection_opened(ws, "")
        await trio.sleep(10.5)
        assert len(sweeps) == 11
        aging.connection_closed(ws, "")
        aging.connection_closed(ws, "")
        await trio.sleep(10 * AGE)
        assert len(sweeps) == 11
        assert not ws.draining
        assert ws.closed is None
        # And it begins again.
        aging.connection_opened(ws, "")
        await seconds_until_closed(client)
