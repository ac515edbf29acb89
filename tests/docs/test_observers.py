from __future__ import annotations

import re

import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, snippets
from wsframework.observer import FRAME_EVENTS, event_names
from wsframework.testing import serve


@exercises("observers.md", "metrics.py")
async def test_the_metrics_count_what_is_open_and_what_is_over(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    module = follow("observers.md").load("metrics.py")
    async with serve(module.app) as server:
        for number in (1, 2):
            async with server.connect("/echo") as client:
                for _ in range(number):
                    await client.send("hello")
                    assert await client.receive() == "hello"
        await trio.testing.wait_all_tasks_blocked()
        async with server.connect("/echo") as client:
            for _ in range(9):
                await client.send("hello")
                assert await client.receive() == "hello"
            answer = await server.request("GET", "/metrics")
        (shown,) = (snippet.text for snippet in snippets(DOCS / "observers.md") if snippet.language == "text")
        assert answer.text == shown
        assert answer.headers["content-type"] == "text/plain; version=0.0.4"
        assert (await server.request("GET", "/metrics")).text == shown.replace(
            "connections 1", "connections 0"
        )


def test_the_page_has_every_event() -> None:
    page = (DOCS / "observers.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert listed == set(event_names()) - FRAME_EVENTS
    assert all(f"`{event}`" in page for event in FRAME_EVENTS)
