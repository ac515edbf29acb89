"""Promise 3: `aclose` is idempotent, bounded, safe when cancelled; TCP ends with FIN, and nothing is lost.

That a close "ends with FIN, not RST" is judged from the client's socket: it reads everything that was sent,
then an end of file, and what it writes in the meantime breaks nothing.
"""

from __future__ import annotations

import pytest
import trio

from tests.promises.rawclient import CLOSE, PING, TEXT, Client, End, Frame, close_frame, frame
from tests.promises.stage import PATIENT, QUICK, Stage, new_app
from tests.waiting import until
from wsframework import App, Close, Closed, CloseFrame, Connection, ConnectionClosed, Limits, Timeouts

FLOOD = [str(number) + "f" * 30_000 for number in range(100)]
"""3 MB of messages: more than a side's socket buffers take while the other does not read."""


async def send_flood(client: Client) -> None:
    for message in FLOOD:
        await client.send_text(message)


async def send_for_ever(client: Client) -> None:
    while True:
        await client.send_text("more and more" * 100)
        await trio.sleep(0.001)


async def test_a_close_by_the_server_with_data_in_flight_both_ways_ends_with_fin(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=8 * 1024 * 1024))
    ended: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        assert await ws.receive() == FLOOD[0]
        for message in FLOOD:
            await ws.send(message)
        await ws.aclose(4000, "enough")
        ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    async with trio.open_nursery() as nursery:
        # The whole flood goes out though the handler takes one message of it.
        nursery.start_soon(send_flood, client)
        frames = [await client.next_frame()]
        while frames[-1].opcode != CLOSE:
            frames.append(await client.next_frame())
    await client.send(close_frame(4000))
    assert await client.read_to_end() == []
    assert client.end is End.FIN
    assert [frame.text for frame in frames[:-1]] == FLOOD
    assert (frames[-1].close_code, frames[-1].close_reason) == (4000, "enough")
    client.vanish()
    await until(lambda: ended)
    assert ended == [Closed(CloseFrame(4000, "enough"), CloseFrame(4000), sent_first=True)]


async def test_a_close_by_the_client_with_data_in_flight_both_ways_ends_with_fin(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=8 * 1024 * 1024, message_bytes=8 * 1024 * 1024))
    ended: list[Closed | None] = []
    sent: list[str] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def push() -> None:
            for message in FLOOD:
                await ws.send(message)
                sent.append(message)

        ws.nursery.start_soon(push)
        received = [message async for message in ws]
        assert received == FLOOD
        await ws.wait_closed()
        ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            await send_flood(client)
            await client.send(close_frame(1000, "done"))

        frames = await client.read_to_end()
    assert client.end is End.FIN
    assert [frame.text for frame in frames[:-1]] == sent == FLOOD
    assert frames[-1].close_code == 1000
    client.vanish()
    await until(lambda: ended)
    assert ended == [Closed(CloseFrame(1000), CloseFrame(1000, "done"), sent_first=False)]


async def test_a_client_that_half_closes_behind_its_close_frame_gets_every_answer_before_ours(
    stage: Stage,
) -> None:
    # Its FIN is at the server long before the handler, which a slow client holds back, has read up to it.
    timeouts = Timeouts(close=5, last_words=5, disconnect_grace=0.2, drain=1)
    app = new_app(limits=Limits(unread_bytes=40_000, outbox_bytes=40_000), timeouts=timeouts)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=64 * 1024)
    echoes: list[str] = []
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def send() -> None:
            await send_flood(client)
            await client.send(close_frame(1000))
            await client.half_close()

        while (found := await client.next_frame()).opcode == TEXT:
            echoes.append(found.text)
            if len(echoes) == len(FLOOD) - 30:
                await trio.sleep(4 * timeouts.disconnect_grace)
    assert len(echoes) == len(FLOOD)
    assert echoes == FLOOD
    assert found.close_code == 1000
    assert await client.read_to_end() == []
    assert client.end is End.FIN


async def test_a_client_that_half_closed_behind_a_full_inbox_is_still_written_to(stage: Stage) -> None:
    timeouts = Timeouts(close=5, last_words=5, disconnect_grace=0.3, drain=1)
    app = new_app(limits=Limits(unread_bytes=1000), timeouts=timeouts)
    answer = "y" * 1_000_000

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)
            await ws.send(answer)

    server = await stage.serve(app)
    client = await stage.connect(server, receive_buffer=64 * 1024)
    questions = [str(number) + "?" * 5000 for number in range(20)]
    await client.send(*(frame(TEXT, question) for question in questions), close_frame(1000))
    await client.half_close()
    await trio.sleep(0.1)  # the answers have filled what they can fill
    frames = await client.read_to_end()
    assert [found.text for found in frames[:-1:2]] == questions
    assert all(found.text == answer for found in frames[1:-1:2])
    assert frames[-1].close_code == 1000
    assert client.end is End.FIN


async def test_a_refused_flood_ends_with_fin_though_its_end_was_never_read_by_a_handler(stage: Stage) -> None:
    # The client is in the middle of a message that is too large: it writes on, reads the reason, then EOF.
    app = new_app(limits=Limits(message_bytes=1000))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.receive()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(frame(TEXT, "x" * 8_000_000))
    frames = await client.read_to_end()
    assert [frame.close_code for frame in frames] == [1009]
    assert client.end is End.FIN


async def test_after_the_closing_handshake_the_server_ends_tcp_though_the_client_keeps_it_open(
    stage: Stage,
) -> None:
    app = new_app()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.aclose()

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert (await client.next_frame()).close_code == 1000
    await client.send(close_frame(1000))
    with trio.fail_after(PATIENT.close / 2):
        assert await client.read_to_end() == []
    assert client.end is End.FIN


async def test_a_client_that_never_closes_its_side_is_let_go_of_by_the_close_timeout(stage: Stage) -> None:
    app = new_app(timeouts=QUICK)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.aclose()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(close_frame(1000))
    assert await client.read_to_end() != []
    assert client.end is End.FIN
    await until(lambda: not server.statistics().connections)


async def test_a_message_and_a_close_in_one_segment_bring_the_echo_before_the_answer(stage: Stage) -> None:
    server = await stage.serve(echo_app())
    client = await stage.connect(server)
    await client.send(frame(TEXT, "one"), frame(TEXT, "two"), close_frame(4001, "bye"))
    frames = await client.read_to_end()
    assert [frame.text for frame in frames[:-1]] == ["one", "two"]
    assert frames[-1].close_code == 4001
    assert client.end is End.FIN


async def test_a_message_and_a_protocol_error_in_one_segment_bring_the_echo_and_then_1002(
    stage: Stage,
) -> None:
    server = await stage.serve(echo_app())
    client = await stage.connect(server)
    await client.send(frame(TEXT, "one"), b"\xff\xff\xff\xff")
    frames = await client.read_to_end()
    assert [frame.text for frame in frames[:-1]] == ["one"]
    assert frames[-1].close_code == 1002
    assert client.end is End.FIN


async def test_a_message_in_the_inbox_of_a_busy_handler_holds_the_close_back_only_for_the_last_words(
    stage: Stage,
) -> None:
    app = new_app(timeouts=QUICK)

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await trio.sleep_forever()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(frame(TEXT, "nobody reads this"), close_frame(1000))
    start = trio.current_time()
    frames = await client.read_to_end()
    assert [frame.close_code for frame in frames] == [1000]
    assert trio.current_time() - start >= QUICK.last_words * 0.9


async def test_aclose_is_over_by_the_close_timeout_when_the_peer_says_nothing(stage: Stage) -> None:
    app = new_app(timeouts=QUICK)
    took: list[float] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        start = trio.current_time()
        await ws.aclose(1000)
        took.append(trio.current_time() - start)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await until(lambda: took)
    assert QUICK.close * 0.9 < took[0] < QUICK.close + 25
    await until(lambda: not server.statistics().connections)
    assert [frame.close_code for frame in await client.read_to_end()] == [1000]


async def test_aclose_is_over_by_the_close_timeout_when_the_peer_does_not_read(stage: Stage) -> None:
    app = new_app(timeouts=QUICK)
    took: list[float] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.send("x" * 8 * 1024 * 1024)
        start = trio.current_time()
        await ws.aclose(1000)
        took.append(trio.current_time() - start)

    server = await stage.serve(app)
    await stage.connect(server)
    await until(lambda: took)
    assert took[0] < QUICK.close + 25
    await until(lambda: not server.statistics().connections)


async def test_aclose_is_over_by_the_close_timeout_when_the_peer_never_stops_sending(stage: Stage) -> None:
    app = new_app(timeouts=QUICK)
    took: list[float] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.receive()
        start = trio.current_time()
        await ws.aclose(1000)
        took.append(trio.current_time() - start)

    server = await stage.serve(app)
    client = await stage.connect(server)
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(client)
    await until(lambda: took)
    assert took[0] < QUICK.close + 25


async def test_tcp_of_an_oversized_message_and_a_mute_peer_is_gone_within_the_close_timeout(
    stage: Stage,
) -> None:
    app = new_app(limits=Limits(message_bytes=1000), timeouts=QUICK)
    ended: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        with pytest.raises(ConnectionClosed):
            await ws.receive()
        ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send(frame(TEXT, "x" * 1001))
    took = await until(lambda: not server.statistics().connections)
    assert took > QUICK.close * 0.5, "it waits for the peer's FIN as long as it may"
    assert [frame.close_code for frame in await client.read_to_end()] == [1009]
    assert ended[0] is not None
    assert ended[0].sent is not None
    assert ended[0].sent.code == 1009
    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever(client)


async def test_aclose_is_idempotent_and_all_its_callers_see_the_same_end(stage: Stage) -> None:
    app = new_app()
    ends: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        async def close(code: int) -> None:
            await ws.aclose(code, f"I am {code}")
            ends.append(ws.closed)

        async with trio.open_nursery() as nursery:
            for code in range(4000, 4010):
                nursery.start_soon(close, code)
        await ws.aclose()

    server = await stage.serve(app)
    client = await stage.connect(server)
    close = await client.next_frame()  # before ours, which the handler may meet as early as it likes
    assert close.close_reason == f"I am {close.close_code}"
    await client.send(close_frame(close.close_code))
    assert await client.read_to_end() == []
    assert client.end is End.FIN
    client.vanish()
    await until(lambda: len(ends) == 10)
    assert len(set(ends)) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 10])
async def test_a_cancelled_aclose_still_gives_the_peer_a_close_frame_and_the_end(
    stage: Stage, turns: int
) -> None:
    app = new_app()
    left = trio.Event()

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.receive()
        await ws.send("before")

        async def close() -> None:
            await ws.aclose(4002, "going")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await trio.lowlevel.checkpoint()
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert ws.closed is not None
        left.set()
        await ws.wait_closed()

    server = await stage.serve(app)
    client = await stage.connect(server)
    await client.send_text("go")
    assert await client.next_text() == "before"
    close = await client.next_frame()
    assert (close.close_code, close.close_reason) == (4002, "going")
    await left.wait()
    await client.send(close_frame(4002))
    assert await client.read_to_end() == []
    assert client.end is End.FIN
    client.vanish()
    await until(lambda: not server.statistics().connections)


async def test_pings_and_messages_behind_our_close_are_no_reason_to_break_the_handshake(stage: Stage) -> None:
    app = new_app()
    ended: list[Closed | None] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        await ws.aclose(1000)
        ended.append(ws.closed)

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert (await client.next_frame()).opcode == CLOSE
    await client.send(frame(PING, "still?"), frame(TEXT, "crossed your close"), close_frame(1000))
    # "After sending a control frame indicating the connection should be closed, a peer does not send any
    # further data" (RFC 6455 §1.4): no pong either, or the recorder would have failed.
    assert await client.read_to_end() == []
    client.vanish()
    await until(lambda: ended)
    assert ended[0] is not None
    assert ended[0].clean


async def test_a_client_that_resets_in_the_middle_of_the_closing_handshake_ends_it(stage: Stage) -> None:
    app = new_app()
    took: list[float] = []

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        start = trio.current_time()
        await ws.aclose()
        took.append(trio.current_time() - start)

    server = await stage.serve(app)
    client = await stage.connect(server)
    assert (await client.next_frame()).opcode == CLOSE
    client.reset()
    await until(lambda: not server.statistics().connections)
    assert took[0] < PATIENT.close / 2, "there is nothing to wait for"


async def test_a_close_without_a_code_is_answered_by_one_without_a_code(stage: Stage) -> None:
    server = await stage.serve(echo_app())
    client = await stage.connect(server)
    await client.send(close_frame(None))
    assert await client.read_to_end() == [Frame(CLOSE, b"")]


async def test_close_raised_in_a_handler_reaches_the_client_behind_its_messages(stage: Stage) -> None:
    app = new_app(limits=Limits(outbox_bytes=8 * 1024 * 1024))

    @app.websocket("/")
    async def handler(ws: Connection) -> None:
        for message in FLOOD:
            await ws.send(message)
        raise Close(4123, "that was all")

    server = await stage.serve(app)
    client = await stage.connect(server)
    frames = [await client.next_frame() for _ in range(len(FLOOD) + 1)]
    assert [frame.text for frame in frames[:-1]] == FLOOD
    assert (frames[-1].close_code, frames[-1].close_reason) == (4123, "that was all")
    await client.send(close_frame(4123))
    assert await client.read_to_end() == []
    assert client.end is End.FIN


def echo_app() -> App:
    app = new_app()

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app
