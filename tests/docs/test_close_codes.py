from __future__ import annotations

import logging
import re

import pytest
import trio
from trio_websocket import ConnectionClosed

from tests.docs.conftest import Follow
from tests.docs.following import close_of, exercises
from tests.docs.snippets import DOCS
from tests.examples.conftest import connect
from tests.waiting import until
from wsframework.closes import is_valid_close_code

PAGE = DOCS / "close-codes.md"


@exercises("close-codes.md", "codes.py")
async def test_the_table_of_ends_is_true(
    follow: Follow, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    module = follow("close-codes.md").load("codes.py")
    server = await nursery.start(module.app.serve, "127.0.0.1", 0)
    (url,) = server.urls
    assert await close_of(f"{url}/codes", "early", "late") == (4001, "too late")
    assert await close_of(f"{url}/enough") == (4002, "enough")
    with caplog.at_level(logging.ERROR, "wsframework"):
        for path in ("/crash", "/task"):
            caplog.clear()
            assert await close_of(f"{url}{path}") == (1011, "internal error")
            (crash,) = caplog.records
            assert crash.exc_info is not None
            assert re.search(rf"handler\.crashed path={path} remote=127\.0\.0\.1:\d+", crash.getMessage())
        caplog.clear()
        async with connect(f"{url}/codes"):
            pass
        await until(lambda: module.endings)
        assert not caplog.records
    assert module.endings == ["1000: connection closed: the peer sent Close 1000, we answered 1000"]
    async with connect(f"{url}/codes") as ws:
        server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await ws.get_message()
    assert closed.value.reason is not None
    assert (closed.value.reason.code, closed.value.reason.reason) == (1001, "the server is shutting down")


@exercises("close-codes.md", "ended.py")
async def test_the_table_of_endings_is_true(follow: Follow, nursery: trio.Nursery) -> None:
    module = follow("close-codes.md").load("ended.py")
    (url,) = (await nursery.start(module.app.serve, "127.0.0.1", 0)).urls
    async with connect(f"{url}/") as ws:
        await ws.aclose(4000)
    await until(lambda: len(module.endings) == 1)
    for frame, count in ((b"\x88\x80\0\0\0\0", 2), (b"", 3)):  # a Close frame without a code, and none at all
        port = int(url.rpartition(":")[2])
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            await stream.receive_some()
            if frame:
                await stream.send_all(frame)
                await stream.receive_some()
        await until(lambda count=count: len(module.endings) == count)  # type: ignore[misc]
    rows = re.findall(r"\| (\d+) \| `(\w+)` \| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    told = [
        (int(code), clean == "True", {"True": True, "False": False, "None": None}[first])
        for code, clean, first in rows
    ]
    assert module.endings == told


def test_the_table_of_codes_says_which_may_be_sent() -> None:
    rows = re.findall(r"^\| (\d{4})(?:.(\d{4}))? \| [^|]+ \| (yes|no) \|", PAGE.read_text(), re.MULTILINE)
    table = {int(code): wire == "yes" for code, _, wire in rows} | {
        int(last): wire == "yes" for _, last, wire in rows if last
    }
    assert table == {code: is_valid_close_code(code) for code in table}
    assert set(range(1000, 1016)) - set(table) == {1004}
