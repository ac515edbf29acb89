"""The client waits for everything and for nothing too long."""

from __future__ import annotations

import pytest
import trio
import trio_websocket

from wsframework import App, Close, CloseFrame, Connection, ConnectionClosed, Timeouts
from wsframework.testing import (
    ClientSettings,
    DeadlineExceeded,
    InvalidFrame,
    StreamWrapper,
    connect,
    connection_pair,
    memory_pair,
    open_client,
)

app = App()


@app.websocket("/echo")
async def echo(ws: Connection) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/mute")
async def mute(ws: Connection) -> None:
    async for _ in ws:
        pass


@app.websocket("/busy")
async def busy(ws: Connection) -> None:
    await trio.sleep_forever()


async def test_a_message_that_never_comes_fails_the_test_in_virtual_seconds_and_says_everything(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with connect(app, "/mute") as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.receive()
    text = str(caught.value)
    assert "waited 5 s on /mute for a message" in text
    assert "no message came at all" in text
    assert "the connection is open" in text
    assert "the handler waits in mute (test_client.py:" in text
    assert "Connection.__anext__" in text


async def test_a_failure_shows_what_came_before(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/echo", deadline=2) as client:
        for number in range(7):
            await client.send(f"message {number}")
        await client.send("x" * 1000)
        for _ in range(8):
            await client.receive()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.receive()
    text = str(caught.value)
    assert "waited 2 s" in text
    assert "8 came before, the last 5: 'message 3'" in text
    assert "'message 6', 'xxxx" in text
    assert "… (1000 long)" in text


async def test_iteration_that_waits_too_long_fails(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/echo") as client:
        await client.send("one")
        assert await anext(client) == "one"
        with pytest.raises(DeadlineExceeded, match=r"a message, or the end; 1 came before: 'one'"):
            await anext(client)


async def test_a_pong_that_never_comes_fails(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/echo") as client:
        client.gate.hold_reads()
        with pytest.raises(DeadlineExceeded, match="a pong"):
            await client.ping()


async def test_a_close_that_is_never_answered_fails(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/echo") as client:
        client.gate.hold_reads()
        with pytest.raises(DeadlineExceeded, match="the server's answer to Close"):
            await client.aclose()


async def test_an_end_that_never_comes_fails(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/mute") as client:
        with pytest.raises(DeadlineExceeded, match="the end of the connection"):
            await client.wait_closed()
        with pytest.raises(DeadlineExceeded, match="the end of the handler"):
            await client.wait_handler()


async def test_a_server_that_does_not_read_fails_a_send(autojump_clock: trio.abc.Clock) -> None:
    async with connect(app, "/busy") as client:
        client.gate.hold_writes()
        with pytest.raises(DeadlineExceeded, match="the server to take a message"):
            await client.send("x")


async def test_an_answer_that_never_comes_fails_the_opening(autojump_clock: trio.abc.Clock) -> None:
    ours, theirs = memory_pair()
    with pytest.raises(DeadlineExceeded, match="answer to the opening handshake on /x"):
        async with open_client(ours, "localhost", "/x"):
            pytest.fail("it opened")
    assert ours.closed
    assert (await theirs.receive_some()).startswith(b"GET /x HTTP/1.1")


async def test_the_client_sees_how_the_server_closes() -> None:
    async with connection_pair() as (ws, client):
        assert "open" in repr(client)
        await ws.aclose(4000, "bye")
        assert await client.wait_closed() == CloseFrame(4000, "bye")
        assert client.closed == CloseFrame(4000, "bye")
        assert "closed (4000 (bye))" in repr(client)
        with pytest.raises(trio_websocket.ConnectionClosed) as caught:
            await client.receive()
        assert caught.value.reason is not None
        assert caught.value.reason.code == 4000
        for call in (client.send("x"), client.ping()):
            with pytest.raises(trio_websocket.ConnectionClosed):
                await call
        assert [message async for message in client] == []
        await client.aclose()


async def test_the_server_sees_how_the_client_closes() -> None:
    async with connection_pair() as (ws, client):
        await client.aclose(4001, "tschüß")
        await ws.wait_closed()
        assert ws.closed is not None
        assert ws.closed.received == CloseFrame(4001, "tschüß")
        await client.aclose()


async def test_messages_that_came_before_the_end_are_received_first() -> None:
    async with connection_pair() as (ws, client):
        await ws.send("one")
        await ws.send(b"two")
        await ws.aclose()
        await client.wait_closed()
        assert await client.receive() == "one"
        assert await client.receive() == b"two"
        assert client.messages == ("one", b"two")


async def test_a_receive_that_is_cancelled_loses_nothing() -> None:
    async with connection_pair() as (ws, client):
        with trio.move_on_after(0.01):
            await client.receive()
        await ws.send("kept")
        assert await client.receive() == "kept"


async def test_a_ping_is_timed_and_raises_when_the_connection_dies(autojump_clock: trio.abc.Clock) -> None:
    async with connection_pair() as (ws, client):
        assert await client.ping(b"x") == 0
        client.gate.hold_writes()
        async with trio.open_nursery() as nursery:

            async def ping() -> None:
                with pytest.raises(trio_websocket.ConnectionClosed):
                    await client.ping()

            nursery.start_soon(ping)
            await trio.sleep(1)
            nursery.start_soon(ws.aclose)
            await trio.sleep(1)
            client.gate.release()


async def test_a_vanished_client_says_nothing_and_keeps_nobody_waiting(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with connection_pair() as (ws, client):
        client.vanish()
        with trio.move_on_after(10) as limit:
            await ws.receive()
        assert limit.cancelled_caught
        left = trio.current_time()
    assert trio.current_time() - left < 10


@pytest.mark.parametrize("how", ["disconnect", "reset"])
async def test_a_client_may_leave_without_a_close_frame(autojump_clock: trio.abc.Clock, how: str) -> None:
    async with connection_pair() as (ws, client):
        await (client.disconnect() if how == "disconnect" else client.reset())
        with pytest.raises(ConnectionClosed) as caught:
            await ws.receive()
        assert caught.value.code == 1006
        assert await client.wait_closed() == CloseFrame(1006)


async def test_a_client_that_does_not_read_holds_the_server_back(autojump_clock: trio.abc.Clock) -> None:
    async with connection_pair() as (ws, client):
        client.gate.hold_reads()
        with trio.move_on_after(1) as limit:
            for _ in range(100):
                await ws.send(b"x" * 10_000)
        assert limit.cancelled_caught
        sent = ws.statistics().messages_sent
        client.gate.release()
        assert [len(await client.receive()) for _ in range(sent)] == [10_000] * sent


async def test_a_torn_frame_fails_the_test_by_itself() -> None:
    class Tearing(StreamWrapper):
        """A server that loses bytes."""

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await super().send_all(bytes(data).replace(b"cut here", b""))

    def tearing_pair() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        client, server = memory_pair()
        return client, Tearing(server)

    async def test() -> None:
        async with connect(app, "/echo", pair=tearing_pair) as client:
            await client.send("cut here")
            await client.send("another, which is taken for the rest of the first")
            await client.receive()

    with pytest.raises(InvalidFrame):
        await test()


async def test_a_ping_that_crosses_the_clients_close_does_no_harm(autojump_clock: trio.abc.Clock) -> None:
    async with connection_pair() as (ws, client), trio.open_nursery() as nursery:
        client.gate.hold_reads()

        async def ping() -> None:
            with pytest.raises(ConnectionClosed):
                await ws.ping()

        nursery.start_soon(ping)
        await trio.sleep(1)
        nursery.start_soon(client.aclose, 4000)
        await trio.sleep(1)
        client.gate.release()


async def test_a_client_over_a_real_socket() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(app.serve, "127.0.0.1", 0)
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        settings = ClientSettings(headers=(("X-Token", "1"),), deadline=3)
        host = f"127.0.0.1:{server.port}"
        async with open_client(stream, host, "/echo", settings=settings) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
            with pytest.raises(RuntimeError, match="in memory"):
                await client.wait_handler()
            assert "this client cannot see" in client._late("x")
        nursery.cancel_scope.cancel()


async def test_a_handlers_code_is_seen_with_its_reason() -> None:
    picky = App(timeouts=Timeouts(disconnect_grace=0))

    @picky.websocket("/")
    async def refuse(ws: Connection) -> None:
        raise Close(4003, "not you")

    async with connect(picky) as client:
        assert await client.wait_closed() == CloseFrame(4003, "not you")
        await client.wait_handler()
