"""A broadcast is compressed for each member: not for all in one turn, and each member's order stays."""

from __future__ import annotations

import zlib

import pytest
import trio

from tests.promises.rawclient import Client, frame
from tests.promises.stage import Stage, new_app
from tests.waiting import until
from wsframework import Connection, Deflate, Room
from wsframework.wire import Deflater, Opcode

MEMBERS = 20
LARGE = "".join(f"{number:x} " for number in range(60_000))
"""300 KB, which take milliseconds to compress on any machine."""


class Turns:
    """How many bytes are compressed in each turn of the scheduler."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = [0]
        compress = Deflater.compress

        def counted(deflater: Deflater, payload: bytes) -> bytes:
            self.bytes[-1] += len(payload)
            return compress(deflater, payload)

        monkeypatch.setattr(Deflater, "compress", counted)

    async def count(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.bytes.append(0)


class Member:
    """A client that inflates what it gets."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    async def texts(self) -> list[str]:
        """Return all texts up to the Close."""
        texts = []
        while (found := await self._client.next_frame()).opcode != Opcode.CLOSE:
            assert found.rsv1
            texts.append(self._inflater.decompress(found.payload + b"\0\0\xff\xff").decode())
        return texts


async def test_a_large_message_is_compressed_for_few_members_in_a_turn_and_in_order(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = new_app()
    app.compression = Deflate(threshold_bytes=0)
    room = Room("all")
    begin = trio.Event()

    @app.websocket("/")
    async def member(ws: Connection) -> None:
        async with room.join(ws):
            await begin.wait()
            await ws.send("behind the broadcast")
            await ws.receive()
            room.broadcast("before the Close", to=[ws])

    server = await stage.serve(app)
    members = [
        Member(client)
        for client in [await stage.connect(server, extensions="permessage-deflate") for _ in range(MEMBERS)]
    ]
    await until(lambda: len(room.members) == MEMBERS)
    turns = Turns(monkeypatch)
    stage.nursery.start_soon(turns.count)
    assert room.broadcast(LARGE) == MEMBERS
    await trio.lowlevel.checkpoint()
    room.broadcast("small")
    for each in members:
        await each._client.send(frame(Opcode.TEXT, "go"))
    await until(lambda: sum(turns.bytes) >= MEMBERS * len(LARGE + "small"))
    # One, or two if the turns of this test's own task are longer.
    assert max(turns.bytes) < 3 * len(LARGE)
    begin.set()
    for each in members:
        assert await each.texts() == [LARGE, "small", "behind the broadcast", "before the Close"]
