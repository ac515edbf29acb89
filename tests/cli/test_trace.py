"""The story of a connection from SYN to FIN, against servers that behave, and where there is none."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from examples.chat_server import app as chat
from tests.cli.broken import Story, every, only, plan_for, problems, raw_server, tell_story
from tests.cli.conftest import Command
from tests.cli.process import running
from tests.cli.test_output import Terminal
from wsframework import App, Close, Connection, Deflate
from wsframework.cli import main
from wsframework.diagnostics import kernel
from wsframework.diagnostics.steps import Step, as_json
from wsframework.diagnostics.target import tls_context
from wsframework.diagnostics.tracing.tracer import Plan, trace

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has TCP_INFO")


async def trace_app(
    app: App, path: str = "/", *, context: ssl.SSLContext | None = None, **plan: Any
) -> tuple[Story, bool]:
    """Trace a connection to an App that is served for this one."""
    steps: list[Step] = []
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(app.serve, "127.0.0.1", 0, ssl=context))
        url = str(server.urls[0]) + path
        settings = {"wait_seconds": 0.1, "timeout_seconds": 5.0, **plan}
        if context is not None:
            url = url.replace("127.0.0.1", "localhost")
        with trio.fail_after(20):
            well = await trace(plan_for(url, **settings), steps.append)
        nursery.cancel_scope.cancel()
    return json.loads(json.dumps([as_json(step) for step in steps])), well


def echoing(**options: object) -> App:
    app = App(**options)  # type: ignore[arg-type]

    @app.websocket("/", subprotocols=["chat"])
    @app.websocket("/")
    async def echo(ws: Connection) -> None:
        async for message in ws:
            await ws.send(message)

    return app


# The whole life


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


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def served_by(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_is_told_with_its_certificate(authority: trustme.CA) -> None:
    context = tls_context()
    authority.configure_trust(context)
    served = served_by(authority, "localhost", "127.0.0.1", "*.tea.example")
    story, well = await trace_app(echoing(), context=served, tls=context, messages=("hi",))
    assert well
    assert problems(story) == []
    tls = only(story, "tls.opened")
    assert tls["version"] == "TLSv1.3"
    assert tls["bits"] >= 128
    assert (tls["server_name"], tls["verified"]) == ("localhost", True)
    certificate = tls["certificate"]
    assert certificate["names"] == ["localhost", "127.0.0.1", "*.tea.example"]
    assert certificate["issuer"]
    assert datetime.fromisoformat(certificate["not_before"]) < datetime.fromisoformat(
        certificate["not_after"]
    )
    assert certificate["days_left"] > 0
    assert [step["name"] for step in every(story, "frame")] == ["text", "text", "close", "close"]
    assert [step["direction"] for step in every(story, "tls.closed")] == ["received", "sent"]


async def test_a_certificate_that_nobody_vouches_for_is_refused(authority: trustme.CA) -> None:
    story, well = await trace_app(
        echoing(), context=served_by(authority, "localhost"), tls=tls_context(), messages=("hi",)
    )
    assert not well
    (problem, *_) = every(story, "diagnosis")
    assert (problem["problem"], problem["fatal"]) == ("tls.certificate", True)
    assert "RFC 5280" in problem["sentence"]
    assert "--insecure" in problem["sentence"]
    assert not every(story, "http.request")


async def test_an_insecure_trace_shows_whom_it_has_trusted(authority: trustme.CA) -> None:
    story, well = await trace_app(
        echoing(), context=served_by(authority, "elsewhere.example"), tls=tls_context(insecure=True)
    )
    assert well
    tls = only(story, "tls.opened")
    assert (tls["verified"], tls["certificate"]["names"]) == (False, ["elsewhere.example"])


def test_a_port_without_tls_is_one_line_that_says_so(command: Command) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with raw_server(talk) as server:
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/x")
            assert (code, err) == (
                1,
                f"error: The server does not speak TLS on this port; is it ws://{server}/x?\n",
            )


def test_a_tls_handshake_that_nobody_answers_is_given_up(command: Command) -> None:
    with raw_server(lambda connection: ignore(connection)) as server:
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/", "--timeout", "0.3")
            assert (code, err) == (1, "error: The server sent no answer to the TLS handshake within 0.3 s.\n")


def test_a_tls_handshake_that_is_cut_short_is_told(command: Command) -> None:
    with raw_server(lambda connection: connection.recv(1)) as server:  # type: ignore[arg-type]
        for name in ("trace", "connect"):
            code, _, err = command(name, f"wss://{server}/")
            assert code == 1
            assert err.startswith("error: The TLS handshake failed")
            assert err.count("\n") == 1


def ignore(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


# No connection


def test_a_port_where_nobody_listens_is_one_line(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for name in ("trace", "connect"):
        code, _, err = command(name, f"ws://127.0.0.1:{port}/")
        assert code == 1
        assert err == (
            f"error: Nothing listens on 127.0.0.1:{port}: the SYN was answered with RST, connection refused "
            "(RFC 9293 §3.5.2).\n"
        )
    story = tell_story(f"ws://127.0.0.1:{port}/")
    assert [step["step"] for step in story] == ["name.resolved", "tcp.connecting", "tcp.failed", "diagnosis"]
    assert only(story, "tcp.failed")["error"] == "ECONNREFUSED"


def test_a_name_that_nobody_knows_is_one_line(command: Command) -> None:
    for name in ("trace", "connect"):
        code, out, err = command(name, "ws://nonexistent.invalid/")
        assert (code, out) == (1, "")
        assert err.startswith("error: There is no address for the name nonexistent.invalid: ")
        assert err.count("\n") == 1


def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: int, type: int) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    story = tell_story("ws://slow.example/", timeout_seconds=0.1)
    assert problems(story) == ["name.unknown"]
    assert "within 0.1 s" in only(story, "diagnosis")["sentence"]


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        async def getaddrinfo(host: str, port: int, type: int) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, type, 6, "", (address, port)) for address in ("127.0.0.9", "127.0.0.1")]

        monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
        story = tell_story(f"ws://two.example:{port}/", timeout_seconds=0.2)
    assert only(story, "name.resolved")["addresses"] == [f"127.0.0.9:{port}", f"127.0.0.1:{port}"]
    assert only(story, "tcp.failed")["remote"] == f"127.0.0.9:{port}"
    assert only(story, "tcp.connected")["remote"] == f"127.0.0.1:{port}"


@LINUX
def test_a_syn_that_nobody_answers_is_given_up_and_counted() -> None:
    # A listener whose queue is full drops further SYNs.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        story = tell_story(f"ws://127.0.0.1:{address[1]}/", timeout_seconds=0.5)
        for client in waiting:
            client.close()
    assert problems(story) == ["tcp.timeout"]
    assert only(story, "tcp.connecting")["state"] == "SYN_SENT"
    failed = only(story, "tcp.failed")
    assert (failed["error"], failed["syns"]) == ("timeout", 1)


# What it looks like


@contextmanager
def echo_server() -> Iterator[str]:
    code = """\
from wsframework import App
app = App()
@app.websocket("/", subprotocols=["chat"])
@app.websocket("/")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
app.run(port=0, on_listening=lambda server: print(server.urls[0], flush=True))
"""
    with running("-c", code) as program:
        yield program.wait_for("ws://")


def test_the_story_reads_well_and_plain_when_piped(command: Command) -> None:
    with echo_server() as url:
        code, out, err = command("trace", url, "--send", "Hello!", "--subprotocol", "chat", "--wait", "0.1")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    lines = [line.split(" ms  ")[-1].strip() for line in out.splitlines()]
    text = "\n".join(lines)
    for words in (
        "NAME    127.0.0.1 is an address, so there is no name to resolve",
        "TCP   → SYN to 127.0.0.1:",
        "TCP   ← SYN+ACK from 127.0.0.1:",
        "→ ACK, 127.0.0.1:",
        "HTTP  → GET / HTTP/1.1",
        "HTTP  ← HTTP/1.1 101 Switching Protocols",
        "which is what came",
        "subprotocol: offered chat; the server took chat",
        "extensions: none offered, none used",
        "FRAME → Text (FIN) 6 bytes, masked with ",
        'FRAME ← Text (FIN) 6 bytes, not masked: "Hello!"',
        "1000 (normal closure: done)",
        "CLOSE   we sent Close 1000 first, the server answered 1000: closed cleanly",
        "TCP   ← FIN: the server ends TCP first",
        "TCP   → FIN: we end it too",
        "TCP     both sides have sent FIN",
    ):
        assert words in text, words


def test_json_is_one_list_of_steps_whose_names_stay(command: Command) -> None:
    with echo_server() as url:
        code, out, err = command("trace", url, "--json", "--wait", "0")
    assert (code, err) == (0, "")
    story = json.loads(out)
    assert all(list(step)[:2] == ["step", "at"] for step in story)
    assert [step["step"] for step in story][-1] == "tcp.closed"


def test_the_story_has_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", terminal)
    with echo_server() as url, pytest.raises(SystemExit) as ended:
        main(["trace", url, "--wait", "0"])
    assert ended.value.code == 0
    assert "\x1b[36mTCP" in terminal.getvalue()


def test_an_interrupt_ends_the_story_with_130(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    async def interrupted(plan: Plan, tell: Callable[[Step], None]) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsframework.cli.trace.run_trace", interrupted)
    assert command("trace", "ws://127.0.0.1:1/") == (130, "", "")
    assert command("trace", "ws://127.0.0.1:1/", "--json") == (130, "[]\n", "")


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
