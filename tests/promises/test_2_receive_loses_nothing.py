"""Promise 2: a cancelled `receive` leaves the message in the queue."""

from __future__ import annotations

import trio
import trio.testing

from tests.promises.rawclient import TEXT, frame
from tests.promises.stage import Stage, new_app
from tests.waiting import until
from wsframework import Connection, ConnectionClosed


async def test_receives_that_are_cancelled_all_the_time_lose_no_message(stage: Stage) -> None:
    app = new_app()
    received: list[str | bytes] = []
    cancelled = 0
    over = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        nonlocal cancelled
        try:
            while True:
                with trio.move_on_after(0.0003) as limit:
                    received.append(await ws.receive())
                cancelled += limit.cancelled_caught
        except ConnectionClosed:
            over.set()

    server = await stage.serve(app)
    client = await stage.connect(server)
    for number in range(500):
        await client.send_text(str(number))
        if number % 5 == 0:
            await trio.sleep(0.0005)
    await client.close_well()
    await over.wait()
    assert received == [str(number) for number in range(500)]
    assert cancelled > 10


async def test_a_receive_cancelled_in_the_turn_in_which_the_message_comes_does_not_take_it(
    stage: Stage,
) -> None:
    app = new_app()
    result: list[str | bytes | None] = []
    over = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        scope = trio.CancelScope()

        async def receive() -> None:
            with scope:
                result.append(await ws.receive())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await ws.send("ready")
            while not ws.statistics().messages_received:
                await trio.lowlevel.checkpoint()
            scope.cancel()
        # Either the receive had the message when the cancellation came, or it is still here.
        if not result:
            result.append(await ws.receive())
        over.set()

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert await client.next_text() == "ready"
    await client.send_text("only one")
    await over.wait()
    assert result == ["only one"]


async def test_messages_that_came_before_the_end_can_be_received_after_it(stage: Stage) -> None:
    app = new_app()
    received: list[str | bytes] = []
    over = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await until(lambda: ws.closed is not None)
        async for message in ws:
            received.append(message)
        over.set()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(*(frame(TEXT, str(number)) for number in range(100)))
    client.vanish()
    await over.wait()
    assert received == [str(number) for number in range(100)]
