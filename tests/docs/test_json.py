from __future__ import annotations

import re

import trio
from trio_websocket import ConnectionClosed

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS
from tests.examples.conftest import connect

PAGE = "howto/json.md"

ROWS = re.findall(r"^\| `?([^|`]+)`? \| (.+) \|$", (DOCS / PAGE).read_text(), re.MULTILINE)


async def answer(url: str, message: str | bytes) -> str:
    """Return what the server sends back, in the words of the page's table."""
    async with connect(f"{url}/orders", subprotocols=["orders.v1"]) as ws:
        with trio.fail_after(10):
            await ws.send_message(message)
            try:
                return f"`{await ws.get_message()!s}`"
            except ConnectionClosed as closed:
                reason = closed.reason
    assert reason is not None
    return f"Close {reason.code:d}, `{reason.reason}`"


@exercises(PAGE, "orders.py")
async def test_the_table_of_answers_is_true(follow: Follow, nursery: trio.Nursery) -> None:
    url = await follow(PAGE).serve(nursery, "orders.py")
    rows = [(sent, told) for sent, told in ROWS if sent not in ("The client sends", "---")]
    assert len(rows) == 4
    for sent, told in rows:
        message = b"\x00" if sent == "a Binary message" else sent
        beginning, _, end = told.partition("…")
        said = await answer(url, message)
        assert said.startswith(beginning)
        assert said.endswith(end)


async def test_an_invalid_order_gets_an_error_and_the_next_one_a_receipt(
    follow: Follow, nursery: trio.Nursery
) -> None:
    url = await follow(PAGE).serve(nursery, "orders.py")
    async with connect(f"{url}/orders", subprotocols=["orders.v1"]) as ws:
        for invalid in ("[]", "null", "{}", '{"item": 1, "count": 1}', '{"item": "", "count": 1}'):
            await ws.send_message(invalid)
            assert '"error"' in str(await ws.get_message())
        await ws.send_message('{"item": "\\ud800", "count": true, "unknown": 1}')
        assert await ws.get_message() == (
            '{"type": "receipt", "number": 1, "order": {"item": "\\ud800", "count": 1}}'
        )
    assert await answer(url, "[" * 100_000) == "Close 1007, `not JSON`"
