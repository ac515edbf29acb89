"""A mistake of ours in one connection stays there, whenever it is made."""

from __future__ import annotations

import pytest
import trio

from wsframework import App, Connection, Timeouts
from wsframework.testing import StreamWrapper, connect, memory_pair, serve


class Mistaken(StreamWrapper):
    """Raises what no stream may raise, when it is cancelled or when the peer leaves."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await super().receive_some(max_bytes)
        except trio.Cancelled:
            raise ZeroDivisionError from None
        if not data:
            raise ZeroDivisionError
        return data


def mistaken_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
    client, server = memory_pair()
    return client, Mistaken(server)


def sleepy_app() -> App:
    app = App(timeouts=Timeouts(drain=1, close=3))

    @app.websocket("/")
    async def sleep(ws: Connection) -> None:
        await ws.send("ready")
        await trio.sleep_forever()

    return app


def failures(caplog: pytest.LogCaptureFixture) -> list[object]:
    return [entry for entry in caplog.records if getattr(entry, "event", "") == "connection.failed"]


async def test_a_mistake_is_logged_and_the_server_goes_on(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = sleepy_app()
    async with serve(app), connect(app, "/", pair=mistaken_pair) as client:
        assert await client.receive() == "ready"
        await client.disconnect()
        await trio.sleep(1)
        async with connect(app, "/") as neighbour:
            assert await neighbour.receive() == "ready"
    assert len(failures(caplog)) == 1


async def test_a_mistake_while_the_server_is_being_cancelled_is_logged_and_goes_no_further(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = sleepy_app()
    async with serve(app) as server, connect(app, "/", pair=mistaken_pair) as client:
        assert await client.receive() == "ready"
        client.gate.hold_writes()  # so it cannot answer the server's Close, and the drain runs into its end
        server.stop()
        await trio.sleep(5)
    assert len(failures(caplog)) == 1
