from __future__ import annotations

import logging

import pytest
import trio
import trio.testing

from tests.chat.serving import connect, serving
from wsframework import App
from wsframework.chat import Chat, Rate, plain


def chat_app(rate: Rate | None = None) -> App:
    app = App()
    app.install(Chat(rate=rate))
    return app


@pytest.mark.parametrize(
    ("offered", "answered"),
    [(None, None), ("chat", "chat"), ("chat, superchat", "chat"), ("x, chat", "chat")],
)
async def test_clients_that_offer_chat_or_nothing_are_asked_for_their_name(
    offered: str | None,
    answered: str | None,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wsframework.chat")
    async with serving(chat_app()) as server:
        peer = await connect(server, "/ws/chat", subprotocol=offered)
        head = peer.head.decode().lower()
        assert (f"sec-websocket-protocol: {answered}" in head) is (answered is not None)
        await peer.send("Hello!")
        start = trio.current_time()
        assert await peer.receive() == "What's your name?"
        assert trio.current_time() - start == pytest.approx(1)
        assert caplog.messages == ["[SERVER] connection()", "[SERVER] Received: Hello!"]


async def test_questions_overlap_with_receiving(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(chat_app()) as server:
        peer = await connect(server, "/ws/chat")
        start = trio.current_time()
        for delay in (0, 0.4, 0.4):
            await trio.sleep(delay)
            await peer.send("Hello!")
        asked_at = []
        for _ in range(3):
            assert await peer.receive() == "What's your name?"
            asked_at.append(round(trio.current_time() - start, 1))
        assert asked_at == [1.0, 1.4, 1.8]


async def test_a_question_that_comes_too_late_is_reported_and_the_server_lives_on(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(chat_app()) as server:
        peer = await connect(server, "/ws/chat", subprotocol="chat")
        await peer.send("Goodbye!")
        await peer.close()
        await trio.sleep(2)
        errors = [message for message in caplog.messages if message.startswith("[SERVER] error: ")]
        assert len(errors) == 1
        assert "closed" in errors[0]
        again = await connect(server, "/ws/chat", subprotocol="chat")
        await again.send("Hello!")
        assert await again.receive() == "What's your name?"


async def test_a_flood_is_told_off_and_then_ended_with_1008(autojump_clock: trio.testing.MockClock) -> None:
    async with serving(chat_app(Rate(per_second=0.001, burst=2, tolerance=3))) as server:
        peer = await connect(server, "/ws/chat")
        for _ in range(6):
            await peer.send("Hello!")
        messages = await peer.read_to_end()
        assert messages[:3] == ["Not so fast, please."] * 3
        assert peer.closed is not None
        assert peer.closed.code == 1008


@pytest.mark.parametrize(
    ("said", "logged"),
    [
        ("two\n[SERVER] error: lines", "two\\n[SERVER] error: lines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        (b"\x00", "b'\\x00'"),
        ("x" * 1000, "x" * 200 + "…"),
    ],
)
async def test_what_people_say_cannot_break_out_of_its_log_line(
    said: str | bytes,
    logged: str,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "wsframework.chat")
    async with serving(chat_app()) as server:
        peer = await connect(server, "/ws/chat")
        await peer.send(said)
        await peer.receive()
    assert f"[SERVER] Received: {logged}" in caplog.messages


class Large(bytes):
    """A message that is too large to look at as a whole."""

    def __repr__(self) -> str:
        raise AssertionError("9 ms for a megabyte")


def test_the_log_looks_at_the_start_of_a_message_only() -> None:
    assert plain._shown(Large(b"\xff" * 2**20)) == "b'" + "\\xff" * 49 + "\\x…"
