"""A call from another thread is refused before anything changes, and the server goes on."""

from __future__ import annotations

import pytest
import trio

from tests.promises.stage import Journal, Stage, new_app
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

    def elsewhere() -> None:
        (ws,) = connections
        (member,) = room.members
        for call in (
            lambda: room.broadcast("from a thread"),
            lambda: ws.send_nowait("from a thread"),
            lambda: setattr(member, "data", "from a thread"),
            lambda: ws.nursery,
            lambda: trio.run(ws.send, "from another run"),
            lambda: trio.run(ws.receive),
            lambda: trio.run(ws.aclose),
            lambda: trio.run(ws.ping),
        ):
            with pytest.raises(WrongThread, match=r"trio_token=server\.trio_token"):
                call()

    server = await stage.serve(app)
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
    assert room.broadcast("from the server's own thread") == 2
    for each in (client, newcomer):
        assert await each.next_text() == "from the server's own thread"
    assert journal.tracebacks() == []
