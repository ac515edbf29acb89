"""A call from another thread is refused before anything changes, and the server goes on."""

from __future__ import annotations

import pytest
import trio

from tests.promises.stage import Journal, Stage, new_app
from tests.waiting import until
from wsframework import Connection, Room, WrongThread


async def test_a_thread_that_uses_what_is_not_its_own_hurts_nobody(stage: Stage, journal: Journal) -> None:
    room = Room("lobby")
    app = new_app()
    connections: list[Connection] = []

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        connections.append(ws)
        async with room.join(ws, "here"):
            async for message in ws:
                await ws.send(message)

    server = await stage.serve(app)

    def elsewhere() -> None:
        (ws,) = connections
        (member,) = room.members
        for call in (
            lambda: room.broadcast("from a thread"),
            lambda: ws.send_nowait("from a thread"),
            lambda: setattr(member, "data", "from a thread"),
            lambda: ws.nursery,
            server.stop,
            lambda: trio.run(server.wait_stopping),
            lambda: trio.run(server.wait_stopped),
            lambda: trio.run(ws.send, "from another run"),
            lambda: trio.run(ws.receive),
            lambda: trio.run(ws.aclose),
            lambda: trio.run(ws.ping),
        ):
            with pytest.raises(WrongThread, match=r"trio_token=server\.trio_token"):
                call()

    client = await stage.connect(server)
    await client.send_text("before")
    assert await client.next_text() == "before"
    await trio.to_thread.run_sync(elsewhere)
    assert room.statistics().broadcasts == 0
    assert room.present() == ["here"]
    for number in range(2):
        await client.send_text(f"after {number}")
        assert await client.next_text() == f"after {number}"
    newcomer = await stage.connect(server)
    await until(lambda: len(room.members) == 2)  # the answer leaves before the handler runs
    assert room.broadcast("from the server's own thread") == 2
    for each in (client, newcomer):
        assert await each.next_text() == "from the server's own thread"
    assert journal.tracebacks() == []


async def test_a_thread_may_have_the_server_called(stage: Stage) -> None:
    room = Room("lobby")
    app = new_app()

    @app.websocket("/")
    async def talk(ws: Connection) -> None:
        async with room.join(ws):
            async for message in ws:
                await ws.send(message)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send_text("before")
    assert await client.next_text() == "before"

    def elsewhere() -> int:
        reached = trio.from_thread.run_sync(room.broadcast, "by way of", trio_token=server.trio_token)
        trio.from_thread.run_sync(server.stop, trio_token=server.trio_token)
        return reached

    assert await trio.to_thread.run_sync(elsewhere, abandon_on_cancel=True) == 1
    assert await client.next_text() == "by way of"
    assert server.draining
