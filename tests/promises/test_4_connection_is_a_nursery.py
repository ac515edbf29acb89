"""Promise 4: children end with the connection at once, the handler within its grace, and none leaks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.promises.rawclient import TEXT, Client, close_frame, frame
from tests.promises.stage import QUICK, Stage, new_app, tasks_alive, tasks_at_rest
from tests.waiting import until
from wsframework import App, Connection, ConnectionClosed, Keepalive, Limits, Timeouts

GRACE = QUICK.disconnect_grace

vanishing = pytest.mark.parametrize("vanish", [Client.vanish, Client.reset], ids=["FIN", "RST"])


class Sleeper:
    """A handler that sleeps, and a child that sleeps, and when each of them was woken."""

    def __init__(self, app: App) -> None:
        self.unread = 0
        self.child_gone: float | None = None
        self.handler_gone: float | None = None
        self.reason: str | None = None

        @app.websocket("/")
        async def handler(ws: Connection) -> None:
            async def child() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    self.child_gone = trio.current_time()

            async def count() -> None:
                while True:
                    self.unread = ws.statistics().unread_messages
                    await trio.sleep(0.005)

            ws.nursery.start_soon(child)
            ws.nursery.start_soon(count)
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                self.reason = cancelled.reason
                raise
            finally:
                self.handler_gone = trio.current_time()


@vanishing
@pytest.mark.parametrize("unread", [0, 100])
async def test_when_tcp_closes_under_a_sleeping_handler_it_is_gone_within_its_grace(
    stage: Stage, unread: int, vanish: Callable[[Client], None]
) -> None:
    app = new_app()
    sleeper = Sleeper(app)
    server = await stage.serve(app)
    before = await tasks_at_rest()
    client = await stage.connect(server)
    await client.send(*(frame(TEXT, f"message {number}") for number in range(unread)))
    await until(lambda: sleeper.unread == unread)
    start = trio.current_time()
    vanish(client)
    await until(lambda: sleeper.handler_gone is not None)
    assert sleeper.child_gone is not None
    assert sleeper.handler_gone is not None
    # At once, as far as the machine has time for it.
    assert sleeper.handler_gone - sleeper.child_gone > GRACE * 0.5, "children have no grace"
    assert GRACE * 0.9 < sleeper.handler_gone - start < GRACE + 25
    assert sleeper.reason is not None
    assert "the connection ended" in sleeper.reason
    await until(lambda: tasks_alive() == before, what="its tasks are gone")


@vanishing
async def test_a_grace_of_zero_cancels_the_handler_at_once(
    stage: Stage, vanish: Callable[[Client], None]
) -> None:
    app = new_app(timeouts=Timeouts(disconnect_grace=0))
    sleeper = Sleeper(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send_text("hello")
    await until(lambda: sleeper.unread == 1)
    vanish(client)
    took = await until(lambda: sleeper.handler_gone is not None)
    assert took < Timeouts().disconnect_grace / 2


@vanishing
async def test_a_peer_that_vanishes_while_it_is_held_back_is_missed_too(
    stage: Stage, vanish: Callable[[Client], None]
) -> None:
    # The inbox is full, so nobody reads the socket and its FIN is behind bytes that nobody takes: what brings
    # the news is a ping, which a system without that connection answers with a RST.
    app = new_app(limits=Limits(unread_bytes=1000), keepalive=Keepalive(interval=0.1, timeout=0.1))
    sleeper = Sleeper(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    with trio.move_on_after(0.3):
        while True:
            await client.send_text("x" * 1000)
    assert sleeper.unread
    vanish(client)
    await until(lambda: sleeper.handler_gone is not None)
    await until(lambda: not server.statistics().connections)


@vanishing
@pytest.mark.parametrize("transport", ["auto"])
async def test_the_hub_misses_it_without_any_keepalive(
    stage: Stage, vanish: Callable[[Client], None]
) -> None:
    # If its FIN has reached us at all. Streams cannot: one behind bytes that nobody reads is only for those
    # that ask the kernel for it.
    app = new_app(limits=Limits(unread_bytes=1000), timeouts=QUICK)
    sleeper = Sleeper(app)
    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(*(frame(TEXT, "x" * 1000) for _ in range(120)))
    await until(lambda: sleeper.unread)
    vanish(client)
    await until(lambda: sleeper.handler_gone is not None)
    await until(lambda: not server.statistics().connections)


async def test_a_handler_may_say_goodbye_to_others_within_its_grace(stage: Stage) -> None:
    app = new_app()
    goodbye: list[str] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for message in ws:
            goodbye.append(str(message))
        await trio.sleep(GRACE / 3)
        goodbye.append("goodbye")

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send_text("hello")
    client.vanish()
    await until(lambda: not server.statistics().connections)
    assert goodbye == ["hello", "goodbye"]


@vanishing
async def test_send_and_receive_of_a_handler_raise_when_its_peer_has_gone(
    stage: Stage, vanish: Callable[[Client], None]
) -> None:
    app = new_app()
    raised: list[ConnectionClosed] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def receive() -> None:
            try:
                await ws.receive()
            except ConnectionClosed as error:
                raised.append(error)

        async def send() -> None:
            try:
                while True:  # until the outbox is full, and then in line
                    await ws.send("x" * 100_000)
            except ConnectionClosed as error:
                raised.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            nursery.start_soon(send)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.next_frame()
    vanish(client)
    await until(lambda: len(raised) == 3)
    assert {error.code for error in raised} == {1006}
    assert len({error.closed for error in raised}) == 1


async def test_children_end_when_the_peer_closes_and_when_the_handler_returns(stage: Stage) -> None:
    app = new_app()
    gone: list[str] = []

    async def child(path: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            gone.append(path)

    @app.websocket("/waits")
    async def waits(ws: Connection) -> None:
        ws.nursery.start_soon(child, "/waits")
        try:
            await trio.sleep_forever()
        finally:
            gone.append("handler")

    @app.websocket("/returns")
    async def returns(ws: Connection) -> None:
        ws.nursery.start_soon(child, "/returns")
        await ws.send("here")

    server = await stage.serve(app)
    client = await stage.connect(server, "/returns")
    await client.next_frame()
    await client.close_well()
    assert gone == ["/returns"]
    client = await stage.connect(server, "/waits")
    await client.send(close_frame(1000))
    await until(lambda: gone == ["/returns", "/waits", "handler"])
