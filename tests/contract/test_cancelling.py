"""Whatever is cancelled, and wherever: no frame is torn, no message lost, and closing always ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.contract.hosts import Host, new_app
from tests.contract.lending import lend, lending
from tests.waiting import until
from wsframework import App, CloseFrame, Connection, Limits, Timeouts
from wsframework.testing import Client, cancel_everywhere

LARGE = "x" * 8 * 1024 * 1024
"""More than a kernel takes from a sender whose peer does not read."""


async def test_a_large_send_that_is_cancelled_and_a_small_one_leave_whole_frames_only(host: Host) -> None:
    async with lend(host) as (ws, client):
        client.gate.hold_reads()
        client.deadline = 20
        sent: list[str] = []
        for text in [LARGE, LARGE, LARGE, "small"]:
            with trio.move_on_after(0.05):
                await ws.send(text)
                sent.append(text)
        # The first went into the empty outbox whole; the others found no room and were not sent.
        assert sent == [LARGE]
        client.gate.release()
        assert await client.receive() == LARGE
        await ws.send("after")
        assert await client.receive() == "after"
    client.recorder.end()
    assert client.recorder.messages == [LARGE, "after"]


async def test_every_send_that_returned_arrives_and_none_that_was_cancelled(host: Host) -> None:
    app = new_app(limits=Limits(outbox_bytes=10_000))
    async with lend(host, app) as (ws, client):
        returned: list[str] = []
        client.gate.hold_reads()
        client.deadline = 20
        for number in range(60):
            text = f"{number} " + "x" * 300_000
            with trio.move_on_after(0.005):
                await ws.send(text)
                returned.append(text)
        assert 0 < len(returned) < 60
        client.gate.release()
        assert [await client.receive() for _ in returned] == returned
        await ws.send("last")
        assert await client.receive() == "last"
    client.recorder.end()


async def test_send_may_be_cancelled_anywhere(host: Host) -> None:
    async with lend(host) as (ws, client):
        returned: list[str] = []

        async def send() -> None:
            for _ in range(3):
                text = str(len(returned))
                await ws.send(text)
                returned.append(text)

        report = await cancel_everywhere(send)
        assert report.cancelled >= 3
        await ws.send("last")
        assert [await client.receive() for _ in [*returned, "last"]] == [*returned, "last"]
        assert client.messages == (*returned, "last")


async def test_send_that_waits_for_room_may_be_cancelled_anywhere(host: Host) -> None:
    app = new_app(limits=Limits(outbox_bytes=10_000))

    async with lending(host, app) as lender:

        @asynccontextmanager
        async def full_outbox() -> AsyncIterator[tuple[Connection, Client, list[str]]]:
            async with lender.connect() as (ws, client), trio.open_nursery() as nursery:
                client.gate.hold_reads()
                client.deadline = 20
                await ws.send(LARGE)
                nursery.start_soon(release_once_somebody_waits, ws, client)
                yield ws, client, [LARGE]
                nursery.cancel_scope.cancel()

        async def release_once_somebody_waits(ws: Connection, client: Client) -> None:
            await until(lambda: ws.statistics().waiting_senders > 0)
            client.gate.release()

        async def send(setting: tuple[Connection, Client, list[str]]) -> None:
            ws, _, returned = setting
            await ws.send("waited")
            returned.append("waited")

        async def check(setting: tuple[Connection, Client, list[str]]) -> None:
            ws, client, returned = setting
            client.gate.release()
            with trio.fail_after(20):
                await ws.send("last")
            assert [await client.receive() for _ in [*returned, "last"]] == [*returned, "last"]

        report = await cancel_everywhere(send, check, setup=full_outbox, deadline=30)
    # At the check; when it parks; and when it wakes, at which time the message is sent and stays so.
    assert [point.kind for point in report.points] == ["check", "park", "wake"]
    assert [point.cancelled for point in report.points] == [True, True, False]


async def test_receive_may_be_cancelled_anywhere_and_loses_nothing(host: Host) -> None:
    async with lend(host) as (ws, client):
        received: list[str | bytes] = []
        sent: list[str] = []

        @asynccontextmanager
        async def a_message_that_comes_late() -> AsyncIterator[trio.Event]:
            is_sent = trio.Event()

            async def send_soon() -> None:
                await trio.sleep(0.01)
                sent.append(str(len(sent)))
                await client.send(sent[-1])
                is_sent.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_soon)
                yield is_sent

        async def receive(_: trio.Event) -> None:
            received.append(await ws.receive())

        async def check(is_sent: trio.Event) -> None:
            await is_sent.wait()
            if len(received) < len(sent):
                received.append(await ws.receive())
            assert received == sent

        report = await cancel_everywhere(receive, check, setup=a_message_that_comes_late)
        # When it wakes, the message has been handed over and is not lost to the cancellation.
        assert [(point.kind, point.cancelled) for point in report.points[-2:]] == [
            ("park", True),
            ("wake", False),
        ]


async def test_iteration_may_be_cancelled_anywhere_and_loses_nothing(host: Host) -> None:
    async with lend(host) as (ws, client):
        received: list[str | bytes] = []
        for number in range(200):
            await client.send(str(number))

        async def receive_three() -> None:
            count = 0
            async for message in ws:
                received.append(message)
                count += 1
                if count == 3:
                    break

        await cancel_everywhere(receive_three)
        with trio.fail_after(30):
            while len(received) < 200:
                received.append(await ws.receive())
        assert received == [str(number) for number in range(200)]


async def test_aclose_may_be_cancelled_anywhere_and_the_peer_gets_the_close_frame(host: Host) -> None:
    async with lending(host) as lender:

        async def close(pair: tuple[Connection, Client]) -> None:
            ws, _ = pair
            await ws.send("before")
            await ws.aclose(4000, "bye")

        async def check(pair: tuple[Connection, Client]) -> None:
            ws, client = pair
            if ws.closed is None:  # cancelled before aclose had begun
                await ws.aclose(4000, "bye")
            assert await client.wait_closed() == CloseFrame(4000, "bye")
            with trio.fail_after(30):
                await ws.wait_closed()
            assert ws.closed is not None
            assert ws.closed.clean

        report = await cancel_everywhere(close, check, setup=lender.connect)
    assert report.cancelled >= 2


async def test_aclose_may_be_cancelled_anywhere_with_a_mute_peer(host: Host) -> None:
    app = App(timeouts=Timeouts(close=0.1, disconnect_grace=0.1, drain=0.3))
    async with lending(host, app) as lender:

        @asynccontextmanager
        async def mute_peer() -> AsyncIterator[Connection]:
            async with lender.connect() as (ws, client):
                client.vanish()
                yield ws

        async def close(ws: Connection) -> None:
            await ws.aclose(4000, "bye")

        async def check(ws: Connection) -> None:
            with trio.fail_after(30):
                await ws.aclose()
                await ws.wait_closed()

        report = await cancel_everywhere(close, check, setup=mute_peer)
    assert report.cancelled >= 1


async def test_ping_may_be_cancelled_anywhere(host: Host) -> None:
    async with lend(host) as (ws, client):

        async def ping() -> None:
            await ws.ping(b"same")

        async def check() -> None:
            await ws.send("still here")
            assert await client.receive() == "still here"
            # The pong to a ping that was cancelled may still be on its way, so this one has its own payload.
            with trio.fail_after(30):
                await ws.ping()

        report = await cancel_everywhere(ping, check)
        assert report.cancelled >= 2


async def test_a_ping_that_crosses_our_close_frame_harms_nobody(host: Host) -> None:
    async with lending(host) as lender, lender.connect() as (ws, client), lender.connect() as (_, neighbour):
        client.gate.hold_reads()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ws.aclose, 4000)
            await trio.sleep(0.05)
            await client.websocket.pong(b"heartbeat")
            nursery.start_soon(_ping, client)
            await trio.sleep(0.05)
            client.gate.release()
            await client.wait_closed()
        await neighbour.ping()


async def _ping(client: Client) -> None:
    with trio.move_on_after(0.2):
        await client.websocket.ping()
