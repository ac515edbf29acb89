"""Promise 1: a cancelled `send` sent nothing; one that returns handed over the whole frame, in order."""

from __future__ import annotations

from collections import Counter

import trio

from tests.promises.rawclient import CLOSE, TEXT, Client, End, Frame, close_frame
from tests.promises.stage import QUICK, Stage, new_app
from tests.waiting import until
from wsframework import Connection, Limits

LARGE = 8 * 1024 * 1024
"""Far more than the kernel's socket buffers take from a server whose client does not read."""


async def try_send(ws: Connection, message: str, seconds: float, sent: list[str]) -> bool:
    with trio.move_on_after(seconds):
        await ws.send(message)
        sent.append(message)
        return True
    return False


async def test_a_large_send_cancelled_and_then_a_small_send_leave_only_whole_frames(stage: Stage) -> None:
    app = new_app()
    sent: list[str] = []
    small_send_waits = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await try_send(ws, "first" + "a" * LARGE, 0.05, sent)
        assert not await try_send(ws, "second" + "b" * LARGE, 0.05, sent)
        assert not await try_send(ws, "third", 0.05, sent)
        small_send_waits.set()
        await ws.send("small")
        sent.append("small")

    server = await stage.serve(app)
    client = await stage.connect(server)
    await small_send_waits.wait()
    frames = [await client.next_frame()]
    while frames[-1].payload != b"small":
        frames.append(await client.next_frame())
    assert len(await client.close_well()) == 1
    assert [frame.text for frame in frames] == sent
    assert [message[:5] for message in sent] == ["first", "small"]


async def test_cancelled_sends_to_a_client_that_never_reads_leave_nothing_behind_a_cut(stage: Stage) -> None:
    app = new_app(timeouts=QUICK)
    sent: list[str] = []
    handler_left = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        for letter in "abcd":
            await try_send(ws, letter * LARGE, 0.02, sent)
            await try_send(ws, f"small {letter}", 0.02, sent)
        handler_left.set()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await handler_left.wait()
    await until(lambda: not server.statistics().connections, what="the close timeout ends it")
    # Only now the client looks at what is in its kernel's buffers: a frame that nobody could finish may be
    # cut at the very end of the stream, but nothing was written into it or behind it.
    client.recorder.feed(await client.read_all())
    assert sent == ["a" * LARGE]
    assert client.recorder.frames == []
    payload = client.recorder.pending[10:]
    assert len(payload) > 1000
    assert payload == b"a" * len(payload)


async def test_in_a_loop_of_cancelled_sends_every_one_arrives_whole_or_not_at_all(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=32 * 1024))
    sent: list[str] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        for number in range(400):
            # Of all sizes, so that some fit while a larger one would not.
            await try_send(ws, f"{number} " + "x" * (number * 7919 % 200_000), 0.001, sent)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=16 * 1024)
    received: list[str] = []
    while (frame := await client.next_frame()).opcode == TEXT:
        received.append(frame.text)
        await trio.sleep(0.001)
    assert frame.close_code == 1000
    assert received == sent
    assert 0 < len(sent) < 400, "some sends were to be cancelled and some not"


async def test_many_tasks_send_and_are_cancelled_without_tearing_each_others_frames(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=16 * 1024))
    sent: list[str] = []
    cancelled: list[str] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def talk(who: int) -> None:
            for number in range(30):
                message = f"{who} {number} " + "y" * (number * who * 977 % 50_000)
                if not await try_send(ws, message, 0.002, sent):
                    cancelled.append(message)

        async with trio.open_nursery() as nursery:
            for who in range(10):
                nursery.start_soon(talk, who)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=16 * 1024)
    received: list[str] = []
    while (frame := await client.next_frame()).opcode == TEXT:
        received.append(frame.text)
        await trio.sleep(0.0005)
    assert Counter(received) == Counter(sent)
    assert cancelled
    # Every task's own messages are in the order of its calls.
    for who in range(10):
        assert _of(who, received) == _of(who, sent)


def _of(who: int, messages: list[str]) -> list[str]:
    return [message for message in messages if message.startswith(f"{who} ")]


async def test_a_send_that_returned_arrives_though_the_handler_ends_at_once(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=64 * 1024 * 1024))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        for number in range(64):
            await ws.send(str(number) + "z" * 65536)

    server = await stage.serve(app)
    client = await stage.connect(server)
    frames = await read_slowly(client)
    assert [frame.text[:2].rstrip("z") for frame in frames[:-1]] == [str(number) for number in range(64)]
    assert frames[-1].opcode == CLOSE
    assert client.end is End.FIN


async def read_slowly(client: Client) -> list[Frame]:
    frames = [await client.next_frame()]
    await trio.sleep(0.05)
    while frames[-1].opcode != CLOSE:
        frames.append(await client.next_frame())
    await client.send(close_frame(1000))
    assert await client.read_to_end() == []
    return frames


async def test_cancelled_while_open_a_send_leaves_the_connection_usable_both_ways(stage: Stage) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        sent: list[str] = []
        await try_send(ws, "a" * LARGE, 0.02, sent)
        await try_send(ws, "b" * LARGE, 0.02, sent)
        async for message in ws:
            await ws.send(f"{len(sent)} {message!r}")

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send_text("are you well?")
    await trio.sleep(0.1)
    frames = [await client.next_frame()]
    while len(frames[-1].payload) > 1000:
        frames.append(await client.next_frame())
    assert frames[-1].text == f"{len(frames) - 1} 'are you well?'"
    await client.close_well()
