"""Run a server until a signal says to stop."""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.server.serving import echo_app
from tests.waiting import until
from wsframework import App, Timeouts
from wsframework.errors import ListenError
from wsframework.server import Server
from wsframework.server.leaving import LastResort
from wsframework.server.signals import serve_until_signalled


async def run_server(
    start: Callable[..., Awaitable[object]], on_listening: Callable[[Server], None] | None = None
) -> None:
    """Do what `run_server` does, in the test's own run."""
    last_resort = LastResort(Timeouts())
    try:
        await serve_until_signalled(last_resort, start, on_listening, Timeouts())
    finally:
        last_resort.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_stops_the_server_and_serving_returns(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    servers: list[Server] = []

    async with trio.open_nursery() as nursery:
        start = functools.partial(echo_app().serve, "127.0.0.1", 0)
        nursery.start_soon(run_server, start, servers.append)
        await until(lambda: servers)
        await trio.sleep(0.01)
        signal.raise_signal(number)
    assert servers[0].draining
    assert signal.getsignal(number) is before


async def test_a_second_signal_cuts_the_drain_short() -> None:
    app = App(timeouts=Timeouts(drain=60, close=60, disconnect_grace=60))
    servers: list[Server] = []

    @app.websocket("/")
    async def sleeps(ws: object) -> None:
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_server, functools.partial(app.serve, "127.0.0.1", 0), servers.append)
            await until(lambda: servers)
            async with await trio.open_tcp_stream("127.0.0.1", servers[0].port) as stream:
                await stream.send_all(
                    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
                )
                await until(lambda: servers[0].statistics().websockets)
                signal.raise_signal(signal.SIGTERM)
                await until(lambda: servers[0].draining)
                signal.raise_signal(signal.SIGTERM)
                await until(lambda: not servers[0].statistics().connections)


@pytest.mark.parametrize("signals", [1, 5])
async def test_signals_that_say_what_a_parent_says_too_do_not_cut_the_drain_short(signals: int) -> None:
    server, cut = await drain_with_parent(lambda halt: None, signals)
    assert (server.draining, cut) == (True, False)


async def test_a_parent_that_insists_cuts_the_drain_short() -> None:
    server, cut = await drain_with_parent(lambda halt: halt(False, True), 1)
    assert (server.draining, cut) == (True, True)


async def drain_with_parent(
    insist: Callable[[Callable[[bool, bool], None]], None], signals: int
) -> tuple[Server, bool]:
    """Get signals and the word of a parent at once; return whether the last resort or a second stop came."""
    noted: list[str] = []
    servers: list[Server] = []
    stops: list[bool] = []

    class Noting(LastResort):
        def signalled(self) -> None:
            noted.append("signalled")

    async def parent(halt: Callable[[bool, bool], None]) -> None:
        await until(lambda: servers)
        stop = servers[0].stop

        def note(*, restarting: bool = False) -> None:
            stops.append(restarting)
            stop(restarting=restarting)

        servers[0].stop = note  # type: ignore[method-assign]
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
        # Before the event loop has seen the signal.
        halt(False, False)
        insist(halt)

    last_resort = Noting(Timeouts())
    try:
        start = functools.partial(echo_app().serve, "127.0.0.1", 0)
        await serve_until_signalled(last_resort, start, servers.append, Timeouts(), beside=parent)
    finally:
        last_resort.close()
    assert len(noted) == len(stops)
    return servers[0], len(stops) > 1


async def test_what_keeps_it_from_starting_comes_out_as_a_single_exception() -> None:
    with pytest.raises(ListenError, match="from 0 to 65535"):
        await run_server(functools.partial(echo_app().serve, "127.0.0.1", 65536))


async def test_an_end_without_a_signal_is_an_end_too() -> None:
    with trio.fail_after(30):
        await run_server(functools.partial(echo_app().serve, "127.0.0.1", 0), lambda server: server.stop())
