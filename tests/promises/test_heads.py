"""Promises 8 and 12: a request head is bounded in bytes and fields, and none of 16 KiB makes others wait."""

from __future__ import annotations

import gc
import itertools
import string
import time
import tracemalloc
from collections.abc import Callable

import pytest
import trio

from tests.promises.rawclient import TEXT, End, frame, upgrade_request
from tests.promises.stage import Stage, new_app
from wsframework import App, Connection, Deflate, Limits
from wsframework.server.http import HeadReader

SECONDS = 0.25
"""The most CPU time that one head may take here: over ten times what it takes on a busy machine, and much
less than what anything quadratic takes."""

SIZE = 15_500


def site() -> App:
    app = new_app()

    @app.websocket("/", compression=Deflate())
    async def handler(ws: Connection) -> None:
        await ws.receive()

    for template in ("/{a}-{b}", "/{a}-{b}-{c}", "/{a}{b}{c}{d}{e:int}", "/{a:path}/x/{b:path}/x/{c:path}/y"):
        app.websocket(template)(ignore)
        app.http(template)(ignore)
    for number in range(100):
        app.websocket(f"/{{a}}-{{b}}-{number}/x")(ignore)
    return app


async def ignore(what: object, **parameters: object) -> str:
    return ""


def get(target: str = "/", *lines: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def upgrade(name: str, value: str) -> bytes:
    return upgrade_request("/", headers=[(name, value)])


def names(count: int) -> list[str]:
    letters = string.ascii_letters + string.digits
    pairs = itertools.chain(letters, map("".join, itertools.product(letters, repeat=2)))
    return list(
        itertools.islice(itertools.chain(pairs, (f"p{number}" for number in itertools.count())), count)
    )


HEADS: dict[str, Callable[[], bytes]] = {
    "subprotocols": lambda: upgrade("Sec-WebSocket-Protocol", ",".join(names(4600))),
    "a subprotocol twice": lambda: upgrade("Sec-WebSocket-Protocol", ",".join([*names(4600), "zz9", "zz9"])),
    "extensions": lambda: upgrade("Sec-WebSocket-Extensions", "a," * (SIZE // 2) + "a"),
    "parameters": lambda: upgrade("Sec-WebSocket-Extensions", "a" + ";a" * (SIZE // 2)),
    "quoted parameters": lambda: upgrade("Sec-WebSocket-Extensions", "a" + ';a="\\x"' * (SIZE // 7)),
    "an open quote": lambda: upgrade("Sec-WebSocket-Extensions", 'a;a="' + "\\x" * (SIZE // 2)),
    "offers": lambda: upgrade(
        "Sec-WebSocket-Extensions", ",".join(["permessage-deflate;a;a"] * (SIZE // 23))
    ),
    "commas": lambda: get("/", "Connection: " + "," * SIZE, "Upgrade: " + ","),
    "short fields": lambda: get("/", *["a:"] * (SIZE // 4)),
    "long names": lambda: get("/", "a" * SIZE + ":"),
    "folded lines": lambda: get("/", "a: b", *[" c"] * (SIZE // 4)),
    "spaces before NUL": lambda: get("/", "a:" + " " * SIZE + "\0"),
    "spaces before a vertical tab": lambda: get("/", "a:" + " " * SIZE + "\x0b"),
    "tabs before a carriage return": lambda: get("/", "a:" + "\t" * SIZE + "\rx"),
    "spaces in a folded line before NUL": lambda: get("/", "a:", " " * SIZE + "\x7f"),
    "dashes that do not fit": lambda: get("/" + "-" * SIZE + "/"),
    "dashes that fit": lambda: get("/" + "-" * SIZE),
    "digits": lambda: get("/" + "1" * SIZE + "x"),
    "slashes": lambda: get("/" + "x/" * (SIZE // 2)),
    "escapes": lambda: get("/" + "%2f-%41" * (SIZE // 7) + "/"),
    "bars": lambda: get("/" + "|" * SIZE),
    "a query": lambda: get("/?" + "a&" * (SIZE // 2)),
    "a host": lambda: get().replace(b"Host: x", b"Host: " + b"a." * (SIZE // 2)),
    "an origin": lambda: upgrade("Origin", "http://" + "a." * (SIZE // 2)),
}


@pytest.mark.parametrize("kind", HEADS)
async def test_no_head_takes_long_to_read(stage: Stage, kind: str) -> None:
    head = HEADS[kind]()
    assert len(head) <= Limits().head_bytes
    server = await stage.serve(site())
    client = await stage.dial(server)
    # The collector's work is measured too, but not what all the tests before have left for it to look at.
    gc.collect()
    began = time.process_time()
    await client.send(head)
    with trio.fail_after(30):
        await client.receive_bytes(1)
    assert time.process_time() - began < SECONDS
    client.vanish()


async def test_a_head_that_comes_byte_by_byte_costs_no_more_with_each_byte() -> None:
    # Without sockets, which would cost more than the reading.
    def seconds(size: int) -> float:
        data = get("/", "a: " + "x " * (size // 2))
        reader = HeadReader(Limits().head_bytes)
        began = time.process_time()
        assert [reader.feed(data[at : at + 1]) for at in range(len(data))][-1] is not None
        return (time.process_time() - began) / size

    each = min(seconds(500) for _ in range(5))
    assert min(seconds(16_000) for _ in range(5)) < 8 * each


@pytest.mark.parametrize("fields", [100, 101])
async def test_a_head_has_at_most_100_fields(stage: Stage, fields: int) -> None:
    server = await stage.serve(site())
    answer = await stage.ask(server, get("/page", *["a: b"] * (fields - 1)))
    assert answer.status == (404 if fields == 100 else 431)


@pytest.mark.parametrize("head", ["fields", "subprotocols"])
async def test_what_an_idle_connection_keeps_of_its_head_is_about_the_heads_size(
    stage: Stage, head: str
) -> None:
    server = await stage.serve(site())
    if head == "fields":
        lines = [(f"x-{number:04}", "v" * 100) for number in range(94)]
    else:
        lines = [("Sec-WebSocket-Protocol", ",".join(names(4500)))]
    data = upgrade_request("/", headers=lines)
    held = []
    tracemalloc.start()
    try:
        for number in range(25):
            if number == 5:
                before = tracemalloc.get_traced_memory()[0]
            client = await stage.dial(server)
            await client.send(data)
            await client.receive_bytes(1)
            held.append(client)
        await trio.sleep(0.1)
        gc.collect()
        kept = (tracemalloc.get_traced_memory()[0] - before) / 20
    finally:
        tracemalloc.stop()
    assert kept < 2 * len(data) + 16_000


async def test_a_body_behind_a_handshake_is_400_and_becomes_no_frames(stage: Stage) -> None:
    server = await stage.serve(site())
    body = frame(TEXT, "smuggled")
    for field in (("Content-Length", str(len(body))), ("Transfer-Encoding", "chunked")):
        answer = await stage.ask(server, upgrade_request("/", headers=[field]) + body)
        assert (answer.status, answer.end) == (400, End.FIN)
