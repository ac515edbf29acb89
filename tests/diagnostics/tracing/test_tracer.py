"""Whole connections, traced from SYN to FIN."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from examples.chat_server import app as chat
from tests.diagnostics.broken import LINUX, Story, every, only, plan_for, problems
from tests.diagnostics.tracing.apps import echoing, trace_app
from wsframework import App, Close, Connection, Deflate
from wsframework.diagnostics import kernel
from wsframework.diagnostics.steps import Step, as_json
from wsframework.diagnostics.tracing.tracer import trace


async def test_the_first_chat_is_told_from_syn_to_fin() -> None:
    story, well = await trace_app(
        chat, "/ws/chat", messages=("Hello!",), subprotocols=("chat",), wait_seconds=1.3
    )
    assert well
    assert problems(story) == []
    assert [step["step"] for step in story] == [
        "name.resolved",
        "tcp.connecting",
        "tcp.connected",
        "http.request",
        "http.response",
        "frame",
        "frame",
        "frame",
        "frame",
        "closing.handshake",
        "tcp.fin",
        "tcp.fin",
        "tcp.closed",
    ]
    assert [step["at"] for step in story] == sorted(step["at"] for step in story)

    resolved = only(story, "name.resolved")
    assert (resolved["host"], resolved["is_address"]) == ("127.0.0.1", True)
    remote = only(story, "tcp.connected")["remote"]
    assert resolved["addresses"] == [remote]
    assert only(story, "tcp.connecting")["remote"] == remote

    request, response = only(story, "http.request"), only(story, "http.response")
    assert request["lines"] == [
        "GET /ws/chat HTTP/1.1",
        f"Host: {remote}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {request['key']}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: chat",
    ]
    assert request["bytes"] == len("\r\n".join([*request["lines"], "", ""]))
    assert (response["status"], response["body"]) == (101, "")
    assert response["lines"][0] == "HTTP/1.1 101 Switching Protocols"
    agreement = response["agreement"]
    assert agreement["accept_input"].startswith(request["key"])
    assert agreement["accept"] == agreement["accept_expected"]
    assert agreement["accept_matches"] is True
    assert (agreement["subprotocol"], agreement["extensions"]) == ("chat", None)

    hello, name, close, answer = every(story, "frame")
    assert len(bytes.fromhex(hello.pop("masking_key"))) == 4
    assert without_time(hello) == {
        "step": "frame",
        "direction": "sent",
        "opcode": 1,
        "name": "text",
        "fin": True,
        "rsv": [],
        "masked": True,
        "length": 6,
        "header_bytes": 6,
        "complete": True,
        "payload": {"text": "Hello!", "hex": "48656c6c6f21", "cut": False},
        "close_code": None,
        "close_reason": None,
    }
    assert (name["direction"], name["masked"], name["masking_key"]) == ("received", False, None)
    assert (name["payload"]["text"], name["header_bytes"]) == ("What's your name?", 2)
    assert name["at"] - hello["at"] > 0.9
    assert (close["direction"], close["close_code"], close["masked"]) == ("sent", 1000, True)
    assert (answer["direction"], answer["close_code"], answer["masked"]) == ("received", 1000, False)
    assert without_time(only(story, "closing.handshake")) == {
        "step": "closing.handshake",
        "first": "client",
        "sent_code": 1000,
        "received_code": 1000,
        "received_reason": "",
        "clean": True,
    }
    theirs, ours = every(story, "tcp.fin")
    assert (theirs["direction"], theirs["first"]) == ("received", True)
    assert (ours["direction"], ours["first"]) == ("sent", False)
    closed = only(story, "tcp.closed")
    assert (closed["how"], closed["first"]) == ("fin", "server")


def without_time(step: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in step.items() if name not in ("at", "masking_key")}


@LINUX
async def test_the_kernels_states_tell_who_ended_tcp_first() -> None:
    story, _ = await trace_app(echoing())
    connected = only(story, "tcp.connected")["kernel"]
    assert connected["state"] == "ESTABLISHED"
    assert 0 < connected["round_trip"] < 1
    assert connected["segment_bytes"] > 500
    assert connected["retransmissions"] == 0
    theirs, ours = every(story, "tcp.fin")
    assert theirs["states"] == ["CLOSE_WAIT"]
    assert ours["states"][0] == "CLOSE_WAIT"
    assert ours["states"][-1] == "CLOSED"
    closed = only(story, "tcp.closed")
    assert closed["time_wait"] == ["server"]
    assert closed["kernel"]["state"] == "CLOSED"
    assert closed["kernel"]["segments_sent"] >= 4
    assert closed["kernel"]["bytes_received"] > 100


async def test_without_tcp_info_the_story_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernel, "kernel_tells", lambda: False)
    monkeypatch.setattr(kernel, "_TABLES", (Path("/nonexistent/tcp"),))
    story, well = await trace_app(echoing())
    assert well
    assert only(story, "tcp.connecting")["state"] is None
    assert only(story, "tcp.connected")["kernel"] is None
    assert [step["states"] for step in every(story, "tcp.fin")] == [[], []]
    assert only(story, "tcp.closed")["time_wait"] is only(story, "tcp.closed")["kernel"] is None


async def test_nothing_to_send_still_shows_what_the_server_says() -> None:
    app = App()

    @app.websocket("/")
    async def greet(ws: Connection) -> None:
        await ws.send(b"\x00\xff")
        await ws.receive()

    story, _ = await trace_app(app)
    greeting, *_ = every(story, "frame")
    assert (greeting["name"], greeting["payload"]) == (
        "binary",
        {"text": None, "hex": "00ff", "cut": False},
    )


async def test_a_close_of_the_servers_is_answered_and_told_with_its_reason() -> None:
    app = App()

    @app.websocket("/")
    async def leave(ws: Connection) -> None:
        raise Close(4001, "no tea left")

    story, well = await trace_app(app, wait_seconds=10)
    assert well
    theirs, ours = every(story, "frame")
    assert (theirs["direction"], theirs["close_code"], theirs["close_reason"]) == (
        "received",
        4001,
        "no tea left",
    )
    assert (ours["direction"], ours["close_code"]) == ("sent", 4001)
    closing = only(story, "closing.handshake")
    assert (closing["first"], closing["received_reason"], closing["clean"]) == ("server", "no tea left", True)


async def test_a_ping_is_answered_with_its_payload() -> None:
    app = App()

    @app.websocket("/")
    async def ask(ws: Connection) -> None:
        await ws.ping(b"alive?")

    story, _ = await trace_app(app, wait_seconds=10)
    ping, pong, *_ = every(story, "frame")
    assert (ping["name"], ping["payload"]["text"]) == ("ping", "alive?")
    assert (pong["direction"], pong["name"], pong["payload"]["text"]) == ("sent", "pong", "alive?")


@pytest.mark.parametrize("bits", [9, 15])
async def test_compressed_messages_are_told_as_frames_and_as_messages(bits: int) -> None:
    app = echoing(compression=Deflate(threshold_bytes=0, client_max_window_bits=bits))
    story, well = await trace_app(app, deflate=True, messages=("tea " * 100, "tea " * 100))
    assert well
    agreement = only(story, "http.response")["agreement"]
    assert agreement["extensions_offered"] == "permessage-deflate; client_max_window_bits"
    assert agreement["extensions"].startswith("permessage-deflate")
    frames = [step for step in every(story, "frame") if step["name"] == "text"]
    assert [step["rsv"] for step in frames] == [[1]] * 4
    assert all(step["length"] < 100 for step in frames)
    messages = every(story, "message")
    assert [step["direction"] for step in messages] == ["sent", "sent", "received", "received"]
    assert {(step["length"], step["compressed"]) for step in messages} == {(400, True)}


# The same, of the server's log


async def test_the_servers_log_tells_the_same_story(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wsframework")
    story, _ = await trace_app(echoing(), messages=("hi",), subprotocols=("chat",))
    mine = only(story, "tcp.connected")["local"]
    told = [
        (entry.__dict__["event"], entry.__dict__["fields"])
        for entry in caplog.records
        if str(entry.__dict__.get("fields", {}).get("remote")) == mine
    ]
    assert [event for event, _ in told] == [
        "connection.accepted",
        "handshake.received",
        "handshake.accepted",
        "connection.opened",
        "message.received",
        "message.sent",
        "close.received",
        "close.sent",
        "fin.sent",
        "fin.received",
        "connection.closed",
    ]
    fields = dict(told)
    assert fields["handshake.accepted"]["key"] == only(story, "http.request")["key"]
    assert fields["handshake.accepted"]["accept"] == only(story, "http.response")["agreement"]["accept"]
    assert fields["message.sent"]["bytes"] == 2
    assert fields["connection.closed"]["first"] == "client"


# Other servers


async def serve_trio_websocket(
    talk: Callable[[WebSocketRequest], Awaitable[None]], nursery: trio.Nursery
) -> str:
    server = await nursery.start(serve_websocket, talk, "127.0.0.1", 0, None)
    return f"ws://127.0.0.1:{server.port}/"


async def test_a_trio_websocket_server_is_told_too() -> None:
    async def echo(request: WebSocketRequest) -> None:
        ws = await request.accept(subprotocol=request.proposed_subprotocols[0])
        try:
            while True:
                await ws.send_message(await ws.get_message())
        except ConnectionClosed:
            pass

    steps: list[Step] = []
    async with trio.open_nursery() as nursery:
        url = await serve_trio_websocket(echo, nursery)
        plan = plan_for(url, messages=("Hello!",), subprotocols=("a", "b"), wait_seconds=0.1)
        assert await trace(plan, steps.append)
        nursery.cancel_scope.cancel()
    story: Story = json.loads(json.dumps([as_json(step) for step in steps]))
    assert only(story, "http.response")["agreement"]["subprotocol"] == "a"
    assert [step["payload"]["text"] for step in every(story, "frame")][:2] == ["Hello!", "Hello!"]
    assert only(story, "closing.handshake")["clean"] is True
    assert [step["direction"] for step in every(story, "tcp.fin")] == ["received", "sent"]
