"""A server beside asyncio tasks: its start, its end, and what happens when either world fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests import waiting
from tests.asyncio.conftest import Run, until
from wsframework import App, Connection, ListenError, Room, Timeouts
from wsframework.asyncio import House, from_asyncio, from_trio, serve

MESSAGES = 1000


async def closed(client: ClientConnection) -> int | None:
    """Wait for the client's Close frame, and return its code."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass
    return client.close_code


def echo_app(**settings: Any) -> App:
    app = App(**settings)

    @app.websocket("/echo")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def test_a_thousand_messages_each_way_and_a_room_shared_with_asyncio(run: Run) -> None:
    app = echo_app()
    room = Room("news")
    readers: list[Connection] = []

    @app.websocket("/news")
    async def news(ws: Connection) -> None:
        readers.append(ws)
        async with room.join(ws):
            async for _ in ws:
                pass

    async def listen(client: ClientConnection) -> list[str | bytes]:
        return [await client.recv() for _ in range(MESSAGES)]

    async def main() -> None:
        expected = [str(number) for number in range(MESSAGES)]
        async with (
            serve(app, port=0) as house,
            connect(f"{house.urls[0]}/echo") as echo,
            connect(f"{house.urls[0]}/news") as reader,
        ):
            assert house.urls == (f"ws://127.0.0.1:{house.port}",)
            listening = asyncio.create_task(listen(echo))
            for text in expected:
                await echo.send(text)
            assert await listening == expected
            await until(lambda: room.members)
            listening = asyncio.create_task(listen(reader))
            for text in expected:
                room.broadcast(text)
                await asyncio.sleep(0)
            assert await listening == expected
            await house.from_asyncio(readers[0].send, "only you")
            assert await reader.recv() == "only you"

    run(main)


def test_handlers_call_asyncio_and_a_client_that_leaves_cancels_the_call(run: Run) -> None:
    app = App(timeouts=Timeouts(disconnect_grace=0))
    events: list[str] = []

    async def work(message: str) -> str:
        try:
            await asyncio.sleep(1000 if message == "long" else 0)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        return message.upper()

    @app.websocket("/work")
    async def handler(ws: Connection) -> None:
        async for message in ws:
            await ws.send(await from_trio(work, str(message)))

    async def main() -> None:
        async with serve(app, port=0) as house:
            async with connect(f"{house.urls[0]}/work") as client:
                for number in range(MESSAGES):
                    await client.send(f"m{number}")
                    assert await client.recv() == f"M{number}"
                await client.send("long")
            await until(lambda: events)
        assert events == ["cancelled"]

    run(main)


def test_a_cancelled_error_of_asyncio_code_is_one_connections_crash(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    app = echo_app()

    async def leak() -> None:
        raise asyncio.CancelledError

    async def fail() -> None:
        raise SystemExit

    @app.websocket("/{what}")
    async def crash(ws: Connection, what: str) -> None:
        await from_trio({"leak": leak, "fail": fail}[what])

    async def main() -> None:
        async with serve(app, port=0) as house, connect(f"{house.urls[0]}/echo") as other:
            for what in ("leak", "fail"):
                async with connect(f"{house.urls[0]}/{what}") as client:
                    assert await closed(client) == 1011
            await other.send("still here")
            assert await other.recv() == "still here"

    run(main)
    crashes = [entry for entry in caplog.records if entry.__dict__.get("event") == "handler.crashed"]
    assert len(crashes) == 2


def test_the_end_of_the_block_drains_and_the_lifespans_are_left_after_it(run: Run) -> None:
    app = echo_app()
    events: list[str] = []

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        events.append("entered")
        yield
        await trio.sleep(0.01)
        events.append("left")

    async def main() -> None:
        async with serve(app, port=0) as house:
            client = await connect(f"{house.urls[0]}/echo")
            assert events == ["entered"]
        assert house.server.stopped
        assert events == ["entered", "left"]
        assert await closed(client) == 1001
        # A second server in the same loop, and two at once.
        async with serve(app, port=0) as first, serve(echo_app(), port=0) as second:
            for house in (first, second):
                async with connect(f"{house.urls[0]}/echo") as client:
                    await client.send("again")
                    assert await client.recv() == "again"

    run(main)


def test_blocks_that_follow_at_once_in_other_tasks_get_a_run_each(run: Run) -> None:
    async def one() -> None:
        async with serve(App(), port=0) as house:
            await house.from_asyncio(trio.sleep, 0.001)

    async def main() -> None:
        for _ in range(5):
            tasks = [asyncio.create_task(one()) for _ in range(3)]
            await asyncio.sleep(0.002)
            tasks.append(asyncio.create_task(one()))
            await asyncio.gather(*tasks)

    run(main)


def test_a_cancelled_block_drains_and_a_second_cancellation_cuts_that_short(run: Run) -> None:
    app = App(timeouts=Timeouts(drain=1000, disconnect_grace=1000))
    houses: list[House] = []

    @app.websocket("/stubborn")
    async def stubborn(ws: Connection) -> None:
        await trio.sleep_forever()

    async def block() -> None:
        async with serve(app, port=0) as house:
            houses.append(house)
            await asyncio.sleep(1000)

    async def main() -> None:
        task = asyncio.create_task(block())
        await until(lambda: houses)
        client = await connect(f"{houses[0].urls[0]}/stubborn")
        task.cancel()
        await until(lambda: houses[0].server.draining)
        # Its drain has a thousand seconds.
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert houses[0].server.stopped
        await client.close()

    run(main)


def test_a_start_up_that_is_cancelled_leaves_nothing(run: Run) -> None:
    app = App()
    events: list[str] = []

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        events.append("entering")
        try:
            await trio.sleep(math.inf)
            yield
        finally:
            events.append("cancelled")

    async def block() -> None:
        async with serve(app, port=0):
            raise AssertionError

    async def main() -> None:
        task = asyncio.create_task(block())
        await until(lambda: events)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert events == ["entering", "cancelled"]
        with pytest.raises(RuntimeError, match="no server runs"):
            await from_asyncio(trio.sleep, 0)

    run(main)


def test_what_keeps_it_from_starting_is_raised_at_once(run: Run) -> None:
    app = App()

    @app.lifespan
    async def lifespan() -> AsyncIterator[None]:
        if app.routes:
            yield
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with serve(app, port=0):
                raise AssertionError
        async with serve(App(), port=0) as house:
            with pytest.raises(ListenError):
                async with serve(App(), port=house.port):
                    raise AssertionError

    run(main)


def breaking_app() -> App:
    """An App whose server fails when a client asks for it."""
    app = echo_app()

    @app.websocket("/interrupt")
    async def interrupt(ws: Connection) -> None:
        raise KeyboardInterrupt

    return app


def test_a_server_that_fails_cancels_the_block_and_is_raised_at_its_end(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    in_block: list[bool] = []

    async def fail(self: object) -> None:
        await waiting.until(lambda: in_block)
        raise OSError("the poller is broken")

    monkeypatch.setattr("wsframework.server.hub.Hub.run", fail)

    async def block(body: Callable[[], Awaitable[None]]) -> None:
        async with serve(echo_app(), port=0):
            in_block.append(True)
            try:
                await body()
            finally:
                in_block.clear()

    async def wait() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def wait_and_fail() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            raise ValueError("while it ended")

    async def main() -> None:
        with pytest.raises(OSError, match="the poller is broken"):
            await block(wait)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(ExceptionGroup) as group:
            await block(wait_and_fail)
        assert [type(error) for error in group.value.exceptions] == [ValueError, OSError]

    run(main)
    assert events == ["cancelled"]


def test_a_keyboard_interrupt_in_a_handler_ends_the_block(run: Run) -> None:
    app = breaking_app()

    async def main() -> None:
        async with serve(app, port=0) as house:
            async with connect(f"{house.urls[0]}/interrupt") as client:
                await client.wait_closed()
            await asyncio.sleep(1000)

    with pytest.raises(KeyboardInterrupt):
        run(main)


def test_an_exception_of_the_block_is_raised_after_the_drain(run: Run) -> None:
    houses: list[House] = []

    async def main() -> None:
        async with serve(echo_app(), port=0) as house:
            houses.append(house)
            raise ValueError("in the block")

    with pytest.raises(ValueError, match="in the block"):
        run(main)
    assert houses[0].server.stopped


@pytest.mark.parametrize("default", [False, True])
def test_a_ctrl_c_drains(default: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    codes: list[int | None] = []

    async def talk(url: str) -> None:
        async with connect(url) as client:
            await client.send("hello")
            await client.recv()
            os.kill(os.getpid(), signal.SIGINT)
            codes.append(await closed(client))

    async def main() -> None:
        async with serve(echo_app(), port=0) as house:
            talking = asyncio.create_task(talk(f"{house.urls[0]}/echo"))
            try:
                await asyncio.sleep(1000)
            finally:
                house.server.stop()
                await asyncio.wait([talking])

    if not default:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())
    else:  # a loop that leaves SIGINT to Python
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(main())
        finally:
            loop.close()
    assert codes == [1001]
    gc.collect()


def test_it_needs_a_task(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        result = loop.create_future()

        def outside() -> None:
            try:
                serve(App(), port=0).__aenter__().__await__().__next__()
            except BaseException as error:
                result.set_exception(error)

        loop.call_soon(outside)
        with pytest.raises(RuntimeError, match="belongs into an asyncio task"):
            await result

    run(main)


def test_a_cancel_scope_of_anyio_ends_the_block_and_leaves_the_drain_its_time(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.websocket("/slow")
    async def slow(ws: Connection) -> None:
        await ws.wait_closed()
        with trio.CancelScope(shield=True):
            await trio.sleep(0.05)

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with serve(app, port=0) as house, connect(f"{house.urls[0]}/slow") as client:
                scope.cancel()
                await client.recv()
        assert scope.cancelled_caught
        assert house.server.stopped

    run(main)
    assert "server.drain_timeout" not in caplog.text
