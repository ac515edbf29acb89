"""Transports that tell observers of frames: chosen only where an observer wants them."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from tests.promises.rawclient import PING, PONG, TEXT, frame
from tests.promises.stage import Stage, staging
from tests.waiting import until
from wsframework import App, Connection, Deflate, Keepalive, ObservedFrame, Observer, Request, Timeouts
from wsframework.observer import TransportStep
from wsframework.server.observed import socket_transport, stream_transport
from wsframework.server.observers import Observers
from wsframework.server.socket import SocketTransport
from wsframework.server.stream import StreamTransport
from wsframework.server.tls import TLSTransport
from wsframework.timers import Timers


class Wire(Observer):
    """Keeps what happens on the wire, as text, for each path."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def frame_received(self, request: Request, frame: ObservedFrame) -> None:
        self.told.append(f"{request.path} in {_text(frame)}")

    def frame_sent(self, request: Request, frame: ObservedFrame) -> None:
        self.told.append(f"{request.path} out {_text(frame)}")

    def protocol_broken(self, request: Request, code: int, reason: str) -> None:
        self.told.append(f"{request.path} broken {code} {reason}")

    def transport_step(self, request: Request, step: TransportStep, cause: str) -> None:
        self.told.append(f"{request.path} {step}")


def _text(frame: ObservedFrame) -> str:
    parts = [frame.kind, frame.payload_bytes, frame.code, frame.reason or None]
    return " ".join(str(part) for part in parts if part is not None)


@pytest.fixture(params=["auto", "stream"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    async with staging(request.param) as stage:
        yield stage


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wsframework")


def echoing(wire: Wire, compression: Deflate | None = None) -> App:
    app = App(
        timeouts=Timeouts(close=0.3, disconnect_grace=0.2, last_words=0.2, drain=1.0),
        keepalive=Keepalive(interval=None),
        compression=compression,
    )
    app.observe(wire)

    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


def chosen(observers: Observers) -> tuple[object, ...]:
    made_by = socket_transport(observers, secure=False), socket_transport(observers, secure=True)
    return (*made_by, stream_transport(observers))


def test_transports_are_the_plain_ones_until_frames_are_wanted(caplog: pytest.LogCaptureFixture) -> None:
    timers = Timers()
    alone = Observers((), timers, lambda interrupt: None)
    assert chosen(alone) == (SocketTransport, TLSTransport, StreamTransport)
    assert not set(chosen(Observers([Wire()], timers, lambda interrupt: None))) & set(chosen(alone))
    caplog.set_level(logging.DEBUG, "wsframework")
    assert not set(chosen(alone)) & {SocketTransport, TLSTransport, StreamTransport}


async def test_each_message_and_control_frame_is_told_once(stage: Stage) -> None:
    wire = Wire()
    server = await stage.serve(echoing(wire))
    client = await stage.connect(server)
    # One message in two fragments, with a ping between them (RFC 6455 §5.4).
    await client.send(
        frame(TEXT, b"gr\xc3", fin=False)
        + frame(PING, b"hi")
        + frame(0, b"\xb6\xc3\x9fe")
        + frame(2, bytes(300))
    )
    for _ in range(3):
        await client.next_frame()
    await client.send(frame(PONG, b"unasked"))
    await client.close_well(4000)
    await until(lambda: len(wire.told) >= 8)
    assert sorted(wire.told[:6]) == [
        *("/ in binary 300", "/ in ping 2", "/ in text 7"),
        *("/ out binary 300", "/ out pong 2", "/ out text 7"),
    ]
    assert wire.told[6:9] == ["/ in pong 7", "/ in close 2 4000", "/ out close 2 4000"]


async def test_a_close_without_a_code_is_1005(stage: Stage) -> None:
    wire = Wire()
    server = await stage.serve(echoing(wire))
    client = await stage.connect(server)
    await client.send(frame(8))
    await client.read_to_end()
    assert wire.told[:2] == ["/ in close 0 1005", "/ out close 0 1005"]


async def test_a_broken_protocol_is_told(stage: Stage) -> None:
    wire = Wire()
    server = await stage.serve(echoing(wire))
    client = await stage.connect(server)
    await client.send(b"\x81\x02hi")
    await client.read_to_end()
    assert wire.told[0] == "/ broken 1002 a frame from a client is not masked"
    assert wire.told[1].startswith("/ out close ")


async def test_the_end_of_the_bytes_is_told(stage: Stage) -> None:
    wire = Wire()
    server = await stage.serve(echoing(wire))
    first, second = await stage.connect(server), await stage.connect(server)
    first.vanish()
    await until(lambda: "/ fin.received" in wire.told)
    second.reset()
    await until(lambda: "/ transport.broken" in wire.told)


async def test_sizes_are_those_before_compression(stage: Stage) -> None:
    wire = Wire()
    server = await stage.serve(echoing(wire, Deflate(threshold_bytes=0)))
    client = await stage.connect(server, extensions="permessage-deflate")
    await client.send(frame(TEXT, "tea " * 100))
    await client.next_frame()
    assert wire.told == ["/ in text 400", "/ out text 400"]


async def test_over_tls_it_is_the_same(stage: Stage) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    wire = Wire()
    server = await stage.serve(echoing(wire), ssl=context)
    client = await stage.connect(server, ssl=trusting)
    await client.send(frame(TEXT, "hi"))
    await client.next_frame()
    assert wire.told == ["/ in text 2", "/ out text 2"]
