from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from examples import chat_client, chat_server
from tests.examples.conftest import Serve, connect

TRANSCRIPT = """\
[SERVER] connection()
[SERVER] Received: Hello!
[CLIENT] Received: What's your name?
[SERVER] Received: Hello, I'm Mr No.1!
[CLIENT] Received: What's your name?
[SERVER] Received: Hello, I'm Mr No.2!
[CLIENT] Received: What's your name?
[SERVER] Received: Hello, I'm Mr No.3!
[CLIENT] Received: What's your name?
[SERVER] Received: Goodbye!
[SERVER] error: connection closed: the peer sent Close 1000, we answered 1000
"""


@pytest.fixture
def clock() -> MockClock:
    """Run seconds in a twentieth of a second; real sockets do not go well with jumps."""
    return MockClock(rate=20)


async def test_both_sides_of_the_chat_say_what_they_should_in_order(
    serve: Serve, capsys: pytest.CaptureFixture[str], clock: MockClock
) -> None:
    async with serve(chat_server.app) as url:
        await chat_client.main(f"{url}/ws/chat")
        await trio.sleep(1.5)  # the question about "Goodbye!" meets a closed connection
        lines = capsys.readouterr().out.splitlines(keepends=True)
        # Which side notices the opening first is a matter of chance.
        lines.remove("[CLIENT] open()\n")
        assert "".join(lines) == TRANSCRIPT
        await chat_client.main(f"{url}/ws/chat")
        assert "[CLIENT] open()" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["chat", "superchat"], "chat"), (["superchat", "chat"], "chat"), (["superchat"], None), (None, None)],
)
async def test_the_chat_speaks_chat_or_no_subprotocol(
    serve: Serve, offered: list[str] | None, agreed: str | None, clock: MockClock
) -> None:
    async with (
        serve(chat_server.app) as url,
        connect(f"{url}/ws/chat", subprotocols=offered) as ws,
    ):
        assert ws.subprotocol == agreed
        await ws.send_message("Hello!")
        assert await ws.get_message() == "What's your name?"


async def test_questions_overlap_with_receiving(
    serve: Serve, capsys: pytest.CaptureFixture[str], clock: MockClock
) -> None:
    async with serve(chat_server.app) as url, connect(f"{url}/ws/chat") as ws:
        for number in range(5):
            await ws.send_message(str(number))
        start = trio.current_time()
        for _ in range(5):
            assert await ws.get_message() == "What's your name?"
        # One after the other they would take five seconds.
        assert 0.9 < trio.current_time() - start < 4


async def test_questions_to_a_client_that_has_left_are_logged_and_the_server_lives_on(
    serve: Serve, capsys: pytest.CaptureFixture[str], clock: MockClock
) -> None:
    async with serve(chat_server.app) as url:
        async with connect(f"{url}/ws/chat") as ws:
            await ws.send_message("one")
            await ws.send_message("two")
        await trio.sleep(2)
        assert capsys.readouterr().out.count("[SERVER] error: connection closed") == 2
        async with connect(f"{url}/ws/chat") as ws:
            await ws.send_message("three")
            assert await ws.get_message() == "What's your name?"
