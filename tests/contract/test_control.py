"""Pings, pongs and the peers' signs of life, whatever the handler is doing."""

from __future__ import annotations

import pytest
import trio

from tests.contract.hosts import TIMEOUTS, Host, new_app
from tests.contract.lending import lend
from wsframework import App, Connection, ConnectionClosed, Keepalive, Limits
from wsframework.wire import Opcode


async def test_a_ping_of_ours_is_answered_and_timed(host: Host) -> None:
    async with lend(host) as (ws, _):
        with trio.fail_after(30):
            assert 0 <= await ws.ping() < 5
            assert 0 <= await ws.ping(b"mine") < 5
        round_trip = ws.statistics().round_trip
        assert round_trip is not None
        assert round_trip >= 0


async def test_a_ping_of_the_peers_is_answered(host: Host) -> None:
    async with lend(host) as (_, client):
        await client.ping(b"payload")
        assert [frame.payload for frame in client.recorder.frames if frame.opcode == Opcode.PONG] == [
            b"payload"
        ]


async def test_pings_are_answered_while_the_handler_is_busy_with_a_hundred_unread_messages(
    host: Host,
) -> None:
    # Nobody receives: the test holds the connection and does nothing with it.
    async with lend(host) as (ws, client):
        for number in range(100):
            await client.send(str(number))
        await client.ping()
        assert ws.statistics().unread_messages == 100


async def test_past_the_budget_the_peer_is_held_back_and_nothing_is_lost(host: Host) -> None:
    app = new_app(limits=Limits(unread_bytes=64 * 1024))
    async with lend(host, app) as (ws, client), trio.open_nursery() as nursery:

        async def flood() -> None:
            for number in range(400):
                await client.send(bytes([number % 256]) * 50_000)  # 20 MB: more than any kernel holds

        client.deadline = 60
        nursery.start_soon(flood)
        await trio.sleep(0.2)
        assert ws.statistics().unread_bytes > 64 * 1024
        # One read may bring in more than the budget; nothing follows it.
        assert ws.statistics().unread_bytes < 400_000
        with trio.fail_after(20):
            for number in range(400):
                assert (await ws.receive())[:1] == bytes([number % 256])


async def test_an_unsolicited_pong_means_nothing(host: Host) -> None:
    async with lend(host) as (ws, client):
        await client.websocket.pong(b"unasked")
        await client.send("still here")
        assert await ws.receive() == "still here"


async def test_a_ping_raises_at_once_when_the_peer_dies(host: Host) -> None:
    async with lend(host) as (ws, client), trio.open_nursery() as nursery:
        client.gate.hold_writes()  # its pong never comes

        async def ping() -> None:
            with pytest.raises(ConnectionClosed), trio.fail_after(15):
                await ws.ping()

        nursery.start_soon(ping)
        await trio.sleep(0.05)
        await client.disconnect()


async def test_a_cancelled_ping_leaves_nothing_behind(host: Host) -> None:
    async with lend(host) as (ws, client):
        client.gate.hold_writes()
        with trio.move_on_after(0.05):
            await ws.ping(b"same")
        client.gate.release()
        with trio.fail_after(30):
            await ws.ping(b"same")


async def test_a_quiet_peer_that_is_gone_is_noticed(host: Host) -> None:
    app = App(timeouts=TIMEOUTS, keepalive=Keepalive(interval=0.1, timeout=0.1))
    async with lend(host, app) as (ws, client):
        client.vanish()
        with trio.move_on_after(30) as limit:
            await ws.wait_closed()
        assert not limit.cancelled_caught
        assert ws.closed is not None
        assert ws.closed.sent_first is None
        assert "ping" in ws.closed.cause


async def test_a_quiet_peer_that_answers_pings_is_kept(host: Host) -> None:
    app = App(timeouts=TIMEOUTS, keepalive=Keepalive(interval=0.05, timeout=0.1))

    @app.websocket("/")
    async def wait(ws: Connection) -> None:
        await ws.receive()

    async with host.serve(app) as served, served.connect() as client:
        await trio.sleep(0.35)
        assert client.closed is None
        pings = [frame for frame in client.recorder.frames if frame.opcode == Opcode.PING]
        assert pings
