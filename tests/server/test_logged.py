"""The server's log at debug tells a connection's every step; above debug it costs nothing."""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.promises.rawclient import PING, PONG, TEXT, close_frame, frame
from tests.promises.stage import Journal, Stage, staging
from tests.waiting import until
from wsframework import App, Connection, Deflate, Keepalive, Request, Room, Timeouts
from wsframework.records import JsonFormatter

OPENING = ["connection.accepted", "handshake.received", "handshake.accepted", "connection.opened"]


@pytest.fixture(params=["auto", "stream"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with staging(request.param) as stage:
        yield stage


@pytest.fixture
def journal(caplog: pytest.LogCaptureFixture) -> Journal:
    caplog.set_level(logging.DEBUG, "wsframework")
    return Journal(caplog)


def new_app(compression: Deflate | None = None) -> App:
    timeouts = Timeouts(close=0.3, disconnect_grace=0.2, last_words=0.2, drain=1.0)
    return App(timeouts=timeouts, keepalive=Keepalive(interval=None), compression=compression)


def echoing() -> App:
    app = new_app()
    room = Room()

    @app.websocket("/", subprotocols=["chat"])
    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async with room.join(ws):
            async for message in ws:
                if message == "all":
                    room.broadcast(message)
                else:
                    await ws.send(message)

    @app.websocket("/ask")
    async def ask(ws: Connection) -> None:
        await ws.ping(b"four")

    @app.http("/page")
    async def page(request: Request) -> str:
        return "page"

    return app


def steps(journal: Journal) -> list[str]:
    """The names of what was logged about connections."""
    return [event for event in journal.events() if not event.startswith(("server.", "connection.failed"))]


async def test_a_token_among_the_subprotocols_is_not_logged(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server, subprotocols=["chat", "bearer.s3cret.t0ken"])
    await client.close_well()
    await until(lambda: "connection.closed" in steps(journal))
    assert journal.fields("handshake.received")["subprotocols"] == "chat, <19 characters>"
    assert not [entry for entry in journal.caplog.records if "t0ken" in str(entry.__dict__)]


async def test_each_step_is_one_record_with_the_peers_address(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server, subprotocols=["chat"])
    await client.send(frame(TEXT, "größe") + frame(TEXT, "all") + frame(2, b"\0\1\2") + frame(PING, b"hi"))
    for _ in range(4):
        await client.next_frame()
    await client.send(frame(PONG, b"unasked"))
    await client.close_well(1001)
    await until(lambda: "connection.closed" in steps(journal))
    told = steps(journal)
    assert told[:4] == OPENING
    assert told[4:8] == ["message.received"] * 3 + ["ping.received"]
    assert sorted(told[8:12]) == ["message.sent"] * 3 + ["pong.sent"]
    assert told[12:15] == ["pong.received", "close.received", "close.sent"]
    assert told[-1] == "connection.closed"
    if stage.transport == "auto":
        assert told[15:-1] == ["fin.sent", "fin.received"]
    assert journal.fields("handshake.received")["subprotocols"] == "chat"
    assert journal.fields("handshake.accepted")["subprotocol"] == "chat"
    assert journal.fields("ping.received")["bytes"] == journal.fields("pong.sent")["bytes"] == 2
    assert journal.fields("close.received")["code"] == 1001
    assert "reason" not in journal.fields("close.received"), "there was none"
    remote = journal.fields("connection.opened")["remote"]
    records = [entry for entry in journal.caplog.records if entry.__dict__["event"] in told]
    assert {entry.__dict__["fields"]["remote"] for entry in records} == {remote}
    received = [
        (entry.__dict__["fields"]["kind"], entry.__dict__["fields"]["bytes"])
        for entry in records
        if entry.__dict__["event"] == "message.received"
    ]
    assert received == [("text", 7), ("text", 3), ("binary", 3)]


async def test_every_record_is_json_with_its_fields(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server)
    await client.close_well(4000)
    await until(lambda: "connection.closed" in steps(journal))
    records = [json.loads(JsonFormatter().format(entry)) for entry in journal.caplog.records]
    (closed,) = (entry for entry in records if entry["event"] == "connection.closed")
    assert (closed["first"], closed["sent_code"], closed["received_code"]) == ("client", 4000, 4000)
    assert (closed["received"], closed["sent"]) == (0, 0)
    assert closed["seconds"] >= 0


async def test_pings_of_ours_are_told(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server, "/ask")
    ping = await client.next_frame()
    await client.send(frame(PONG, ping.payload))
    await client.close_well()
    assert journal.fields("ping.sent")["bytes"] == journal.fields("pong.received")["bytes"] == 4
    told = steps(journal)
    assert told.index("pong.received") < told.index("close.sent")


async def test_a_broken_protocol_is_told_with_its_code(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server)
    await client.send(b"\x81\x02hi")
    await client.read_to_end()
    client.vanish()
    broken = journal.fields("protocol.broken")
    assert (broken["code"], broken["reason"]) == (1002, "a frame from a client is not masked")
    assert journal.fields("close.sent")["code"] == 1002


async def test_a_peer_that_vanishes_is_told(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server)
    client.vanish()
    await until(lambda: "connection.closed" in steps(journal))
    assert "fin.received" in steps(journal)
    closed = journal.fields("connection.closed")
    assert "first" not in closed
    assert "received_code" not in closed


async def test_a_peer_that_resets_is_told(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.connect(server)
    client.reset()
    await until(lambda: "connection.closed" in steps(journal))
    assert "reset" in str(journal.fields("transport.broken")["cause"]).lower()


async def test_a_peer_that_never_answers_a_close_frame_is_told(stage: Stage, journal: Journal) -> None:
    app = new_app()

    @app.websocket("/")
    async def leave(ws: Connection) -> None:
        return

    server = await stage.serve(app)
    await stage.connect(server)
    await until(lambda: "connection.closed" in steps(journal))
    assert "transport.aborted" in steps(journal)


async def test_a_refused_handshake_is_told(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    client = await stage.dial(server)
    answer = await client.upgrade("/nowhere")
    assert answer.status == 404
    assert steps(journal)[:4] == [
        "connection.accepted",
        "handshake.received",
        "handshake.refused",
        "http.answered",
    ]
    assert journal.fields("handshake.refused")["status"] == 404


async def test_a_page_has_no_frames_to_tell_of(stage: Stage, journal: Journal) -> None:
    server = await stage.serve(echoing())
    answer = await stage.ask(server, "GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 200
    assert steps(journal) == ["connection.accepted", "http.answered"]


async def test_a_log_that_is_sent_over_the_connection_is_not_told_of_itself(
    stage: Stage, journal: Journal
) -> None:
    app = new_app()
    watching: list[Connection] = []

    @app.websocket("/")
    async def watch(ws: Connection) -> None:
        watching.append(ws)
        await ws.receive()
        await ws.send("hello")

    class Sending(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            if entry.__dict__["event"] == "message.sent":
                watching[0].send_nowait("a message was sent")

    server = await stage.serve(app)
    client = await stage.connect(server)
    sending = Sending()
    logging.getLogger("wsframework").addHandler(sending)
    try:
        await client.send(frame(TEXT, "go"))
        assert {await client.next_text(), await client.next_text()} == {"hello", "a message was sent"}
        await client.close_well()
    finally:
        logging.getLogger("wsframework").removeHandler(sending)
    assert steps(journal).count("message.sent") == 1


async def test_compressed_messages_are_told_by_their_real_size(stage: Stage, journal: Journal) -> None:
    app = new_app(Deflate(threshold_bytes=0))

    @app.websocket("/")
    async def greet(ws: Connection) -> None:
        await ws.send("tea " * 100)

    server = await stage.serve(app)
    client = await stage.connect(server, extensions="permessage-deflate")
    await client.next_frame()
    await client.close_well()
    assert journal.fields("message.sent")["bytes"] == 400
    assert str(journal.fields("handshake.accepted")["extensions"]).startswith("permessage-deflate")


async def test_tls_is_told(stage: Stage, journal: Journal) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    server = await stage.serve(echoing(), ssl=context)
    client = await stage.connect(server, ssl=trusting)
    await client.send(frame(TEXT, "hi"))
    assert (await client.next_frame()).text == "hi"
    await client.send(close_frame())
    await client.next_frame()
    told = steps(journal)
    assert told[:6] == [*OPENING, "message.received", "message.sent"]
    assert journal.fields("connection.accepted")["tls"] == "TLSv1.3"
