"""The same requests on wsframework, uvicorn, hypercorn and aiohttp; where they differ, here is why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.peers.applications import SERVERS
from tests.peers.requests import REQUESTS, Exchange
from tests.proxies.running import free_port

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

BAD = """
no host; two hosts; host with a path; host with userinfo; blank before the colon; folded field;
blank before the first field; nul in a value; cr in a value; bare lf; field without colon; name that
is no token; lower-case http; two blanks in the line; no version; target that is not ascii; tls
hello; length and chunked; two lengths; the same length twice; list of lengths; signed length;
hexadecimal length; huge length; chunked on http 1.0; chunked twice; chunked not last; identity;
xchunked; chunk size with a sign; chunk size with 0x; chunk with bare lf; chunk that is longer; huge
chunk size; body cut off; chunk cut off
"""

ANSWERS: dict[str, list[int]] = {
    **{name: [200] for name in REQUESTS},
    **{name: [200, 200] for name in ("two", "two with bodies", "body then get")},
    **{name: [400] for name in " ".join(BAD.split()).split("; ")},
    "head cut off": [],
    "http 2.0": [505],
    "long head": [431],
    "gzip, chunked": [501],
}
"""What wsframework answers."""

LAX = "others take it, and a proxy that reads it in another way lets a smuggler through"
ALLOWED = "either is allowed"
EXPLAINED: dict[str, str] = {
    "expect": "the body had come, so 100 says nothing (RFC 9110 §10.1.1)",
    "empty line before": "one SHOULD be ignored (RFC 9112 §2.2)",
    "unknown method": "any token is a method; the application decides (RFC 9110 §9.1)",
    "host with a path": "MUST be 400 (RFC 9112 §3.2)",
    "host with userinfo": "MUST be 400 (RFC 9112 §3.2)",
    "folded field": f"400 is the first choice of RFC 9112 §5.2; {LAX}",
    "bare lf": f"RFC 9112 §2.2 only allows it; {LAX}",
    "two blanks in the line": f"one blank separates (RFC 9112 §3); {LAX}",
    "http 2.0": "505 is for it (RFC 9110 §15.6.6)",
    "http 1.2": "a later minor version is served as 1.1 (RFC 9110 §2.5)",
    "no version": "who gets no answer learns nothing",
    "long head": "431 is for it (RFC 6585 §5); the limits differ",
    "head cut off": ALLOWED,
    "body cut off": "400 where the client still reads (RFC 9112 §8)",
    "chunk cut off": "400 where the client still reads (RFC 9112 §8)",
    "length and chunked": f"ought to be handled as an error (RFC 9112 §6.3); {LAX}",
    "the same length twice": f"may be refused (RFC 9110 §8.6); {LAX}",
    "list of lengths": f"may be refused (RFC 9110 §8.6); {LAX}",
    "chunked on http 1.0": "MUST be treated as faulty (RFC 9112 §6.1)",
    "chunked twice": "400, because its end is not clear (RFC 9112 §6.3)",
    "chunked not last": "MUST be 400 (RFC 9112 §6.3)",
    "identity": "MUST be 400: chunked is not the last coding (RFC 9112 §6.3)",
    "xchunked": "MUST be 400: chunked is not the last coding (RFC 9112 §6.3)",
    "gzip, chunked": "501 is for codings that are not understood (RFC 9112 §6.1)",
    "chunk with bare lf": f"lines end with CRLF (RFC 9112 §7.1); {LAX}",
}
"""Why wsframework answers so where a peer answers something else."""

SILENT = {"chunk with bare lf"}
"""What some peers wait on after, for ever."""


@contextmanager
def running(server: str) -> Iterator[int]:
    """Run the application on a server, in a process of its own."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.peers.applications", server, str(port)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def statuses(port: int, exchange: Exchange, patience_seconds: float) -> list[int]:
    """Send a request, and return the status of each answer until the server is silent, or ends."""
    data = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)

    async def send() -> None:
        try:
            for number, piece in enumerate(exchange.pieces):
                if number:
                    await trio.sleep(0.02)
                await stream.send_all(piece)
            if exchange.fin:
                await stream.send_eof()
        except trio.BrokenResourceError:
            pass  # it has answered and closed

    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.move_on_after(patience_seconds) as patience:
            try:
                async for piece in stream:
                    data += piece
                    # Whoever keeps the connection open says no more than this.
                    patience.deadline = trio.current_time() + (4 if data.endswith(b"\r\n\r\n") else 2)
            except trio.BrokenResourceError:
                pass
        nursery.cancel_scope.cancel()
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", data)]


async def ask(server: str) -> dict[str, list[int]]:
    """Send each request to a server, on connections of their own, and return the answers."""
    answers: dict[str, list[int]] = {}

    async def one(name: str, exchange: Exchange) -> None:
        answers[name] = await statuses(port, exchange, 3 if name in SILENT else 30)

    async def answers_now() -> bool:
        try:
            await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        except OSError:
            return False
        return True

    with running(server) as port:
        with trio.fail_after(60):
            while not await answers_now():  # noqa: ASYNC110
                await trio.sleep(0.05)
        async with trio.open_nursery() as nursery:
            for name, exchange in REQUESTS.items():
                nursery.start_soon(one, name, exchange)
    return answers


async def test_what_wsframework_answers() -> None:
    assert await ask("wsframework") == ANSWERS


@pytest.mark.parametrize("peer", [name for name in SERVERS if name != "wsframework"])
async def test_each_difference_is_explained(peer: str) -> None:
    pytest.importorskip(peer)
    answers = await ask(peer)
    different = {name for name, answer in answers.items() if answer != ANSWERS[name]}
    assert different <= EXPLAINED.keys()


def test_there_are_sixty_and_no_explanation_is_of_something_else() -> None:
    assert len(REQUESTS) >= 60
    assert REQUESTS.keys() == ANSWERS.keys()
    assert EXPLAINED.keys() <= REQUESTS.keys()
