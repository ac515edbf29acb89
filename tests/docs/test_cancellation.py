from __future__ import annotations

import functools

import pytest
import trio
import trio_websocket

from examples import torn_frames
from tests.cli.process import running
from tests.docs.conftest import Follow
from tests.docs.following import close_of, exercises
from tests.examples.conftest import connect


@exercises("cancellation.md", "torn.py")
async def test_the_program_of_the_page_tears_a_frame(
    follow: Follow, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    module = follow("cancellation.md").load("torn.py")
    server = await nursery.start(trio_websocket.serve_websocket, module.handler, "127.0.0.1", 0, None)
    done = trio.Event()
    nursery.start_soon(set_later, done, 1.0)
    torn_frames.tell((await torn_frames.read_late(server.port, done)).replace(b"hello", b"<hello>"))
    nursery.cancel_scope.cancel()
    assert "TORN: <hello> came as bytes" in capsys.readouterr().out


async def set_later(event: trio.Event, seconds: float) -> None:
    await trio.sleep(seconds)
    event.set()


@exercises("cancellation.md", "prices.py")
async def test_a_slow_client_misses_prices_and_gets_none_that_is_torn(
    follow: Follow, nursery: trio.Nursery
) -> None:
    url = await follow("cancellation.md").serve(nursery, "prices.py")
    async with connect(f"{url}/prices") as ws:
        await trio.sleep(1.5)  # not reading: the sockets' buffers fill up
        messages = [str(await ws.get_message()) for _ in range(20)]
    prices = [int(message.partition(" ")[0]) for message in messages]
    assert all(message.endswith(" " + "." * 1_000_000) for message in messages)
    assert prices == sorted(set(prices))
    assert prices[-1] > len(prices)


@exercises("cancellation.md", "patience.py")
async def test_a_client_that_gives_no_name_is_closed(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow("cancellation.md").serve(nursery, "patience.py")
    assert await close_of(f"{url}/login") == (4408, "no name within 0.5 s")
    async with connect(f"{url}/login") as ws:
        assert await ws.get_message() == "What is your name?"
        await ws.send_message("Ada")
        assert await ws.get_message() == "Hello, Ada."


@exercises("cancellation.md", "race.py")
async def test_the_loser_of_a_race_loses_no_message(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow("cancellation.md").serve(nursery, "race.py")
    async with connect(f"{url}/quiz") as ws:
        await ws.get_message()
        await ws.send_message("42")
        assert await ws.get_message() == "You said 42."
    async with connect(f"{url}/quiz") as ws:
        await ws.get_message()
        assert await ws.get_message() == "You said nothing."
        await ws.send_message("42")
        assert await ws.get_message() == "Too late: 42"


@exercises("cancellation.md", "test_announce.py", "pytest.ini")
def test_the_test_of_the_page_passes_and_can_fail(follow: Follow) -> None:
    folder = follow("cancellation.md")
    run = functools.partial(running, "-m", "pytest", "-q", cwd=folder.path)
    with run() as program:
        assert program.wait() == 0, program.lines
    test = folder.path / "test_announce.py"
    test.write_text(test.read_text().replace('["one", "end"], ', ""))
    with run() as program:
        assert program.wait() == 1
