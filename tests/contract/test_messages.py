"""Messages arrive whole, once, in order, as what they were sent as."""

from __future__ import annotations

import pytest
import trio

from tests.contract.hosts import Host, new_app
from wsframework import App, Connection, Limits
from wsframework.testing import Frame
from wsframework.wire import Opcode


def echo_app(limits: Limits | None = None) -> App:
    app = new_app(limits=limits)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


MESSAGES: dict[str, str | bytes] = {
    "text": "hello",
    "empty text": "",
    "unicode text": "grüße, 世界, 🎈",
    "the longest text with a short header": "x" * 125,
    "the shortest with 16 bits of length": "x" * 126,
    "the longest with 16 bits of length": "x" * 65535,
    "the shortest with 64 bits of length": "x" * 65536,
    "binary": b"\x00\xff",
    "empty binary": b"",
    "long binary": bytes(70_000),
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=list(MESSAGES))
async def test_a_message_comes_back_as_it_was_sent(host: Host, message: str | bytes) -> None:
    async with host.serve(echo_app()) as served, served.connect() as client:
        await client.send(message)
        assert await client.receive() == message
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    payload = message.encode() if isinstance(message, str) else message
    assert client.recorder.frames[0] == Frame(opcode, payload)


async def test_a_large_message_comes_back_whole(host: Host) -> None:
    limits = Limits(message_bytes=4 * 1024 * 1024)
    large = bytes(range(256)) * (3 * 1024 * 1024 // 256)
    async with host.serve(echo_app(limits)) as served, served.connect() as client:
        await client.send(large)
        assert await client.receive() == large


async def test_many_messages_keep_their_order_both_ways(host: Host) -> None:
    texts = [str(number) for number in range(500)]
    async with (
        host.serve(echo_app()) as served,
        served.connect() as client,
        trio.open_nursery() as nursery,
    ):

        async def send_all() -> None:
            for text in texts:
                await client.send(text)

        nursery.start_soon(send_all)
        assert [await client.receive() for _ in texts] == texts


async def test_messages_of_concurrent_tasks_never_mix(host: Host) -> None:
    app = new_app()

    @app.websocket("/")
    async def talk_at_once(ws: Connection) -> None:
        async def say(number: int) -> None:
            for _ in range(10):
                await ws.send(bytes([number]) * 10_000)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(say, number)

    async with host.serve(app) as served, served.connect() as client:
        messages = [message async for message in client]
    assert sorted(messages) == sorted(bytes([number]) * 10_000 for number in range(10) for _ in range(10))


@pytest.mark.parametrize("make", [bytearray, memoryview])
async def test_any_bytes_like_is_sent_as_binary_and_may_be_reused_at_once(
    host: Host, make: type[bytearray] | type[memoryview]
) -> None:
    app = new_app()

    @app.websocket("/")
    async def send_and_reuse(ws: Connection) -> None:
        buffer = bytearray(b"before")
        await ws.send(make(buffer))
        buffer[:] = b"after!"
        await ws.receive()

    async with host.serve(app) as served, served.connect() as client:
        assert await client.receive() == b"before"


async def test_two_clients_are_served_at_the_same_time(host: Host) -> None:
    async with host.serve(echo_app()) as served, served.connect() as first, served.connect() as second:
        await first.send("one")
        await second.send("two")
        assert (await second.receive(), await first.receive()) == ("two", "one")


async def test_only_one_task_may_receive(host: Host) -> None:
    app = new_app()
    errors: list[BaseException] = []

    @app.websocket("/")
    async def receive_twice(ws: Connection) -> None:
        async def receive_too() -> None:
            try:
                await ws.receive()
            except trio.BusyResourceError as error:
                errors.append(error)
            await ws.send("busy")

        ws.nursery.start_soon(receive_too)
        await ws.receive()

    async with host.serve(app) as served, served.connect() as client:
        assert await client.receive() == "busy"
    assert len(errors) == 1


async def test_the_handler_sees_its_counters(host: Host) -> None:
    app = new_app()
    seen: list[tuple[int, int, int]] = []

    @app.websocket("/")
    async def count(ws: Connection) -> None:
        await ws.send(await ws.receive())
        await ws.receive()
        statistics = ws.statistics()
        seen.append((statistics.messages_received, statistics.messages_sent, statistics.unread_messages))

    async with host.serve(app) as served, served.connect() as client:
        await client.send("one")
        await client.receive()
        await client.send("two")
        await client.wait_closed()
    assert seen == [(2, 1, 0)]
