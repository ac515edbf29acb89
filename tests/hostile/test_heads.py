"""One request head of 16 KiB, of any shape: what it costs is CPU time that everybody else waits."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable

import pytest

from tests.hostile.process import linux_only, serving
from tests.hostile.raw import ask, request

BAR_SECONDS = 0.06
REPEATS = 3
TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
ROOM = 15_900
QUOTED, EMPTY = '\\"', '"";,'


def names(twice: bool = False) -> str:
    """Thousands of short tokens, all different, or but for the last."""
    found, size = [], 0
    for name in map("".join, itertools.chain(TOKEN, itertools.product(TOKEN, repeat=2))):
        size += len(name) + 1
        if size > ROOM:
            break
        found.append(name)
    return ",".join([*found, found[-1]] if twice else found)


def page(path: str, *fields: str) -> bytes:
    lines = f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *fields, "Connection: close", "", ""
    return "\r\n".join(lines).encode("latin-1")


def many(text: str) -> str:
    return text * (ROOM // len(text))


SHAPES: dict[str, Callable[[], bytes]] = {
    "subprotocols, none twice": lambda: request("/chat", f"Sec-WebSocket-Protocol: {names()}"),
    "subprotocols, the last twice": lambda: request("/chat", f"Sec-WebSocket-Protocol: {names(True)}"),
    "subprotocols on many lines": lambda: request("/chat", *["Sec-WebSocket-Protocol: a"] * 600),
    "empty subprotocols": lambda: request("/chat", f"Sec-WebSocket-Protocol: {many(',')}"),
    "fields without a value": lambda: page("/", *["a:"] * 3900),
    "fields, all different": lambda: page("/", *[f"x{n:x}:" for n in range(2200)]),
    "connection tokens": lambda: request("/echo", f"Connection: {names()}"),
    "upgrade tokens": lambda: request("/echo", f"Upgrade: {names()}"),
    "extension offers": lambda: request(
        "/deflate", f"Sec-WebSocket-Extensions: {many('permessage-deflate;a;a,')}x"
    ),
    "extension parameters": lambda: request("/deflate", f"Sec-WebSocket-Extensions: x{many(';a=1')}"),
    "quotes that do not end": lambda: request("/deflate", f'Sec-WebSocket-Extensions: x;a="{many(QUOTED)}'),
    "quotes and commas": lambda: request("/deflate", f"Sec-WebSocket-Extensions: {many(EMPTY)}"),
    "white space in a value": lambda: request("/echo", f"Sec-WebSocket-Protocol: a{' ' * 15_000}b"),
    "white space and commas": lambda: request("/echo", f"Sec-WebSocket-Protocol: {many(' , ')}"),
    "an origin": lambda: request("/echo", f"Origin: http://{many('a.')}"),
    "an origin of at signs": lambda: request("/echo", f"Origin: http://{many('@')}"),
    "an origin of brackets": lambda: request("/echo", f"Origin: http://{many('[')}"),
    "a host of colons": lambda: request("/echo", host=many(":")),
    "two parameters that do not fit": lambda: request(f"/pair/{'-' * 15_000}/"),
    "three parameters that do not fit": lambda: request(f"/date/{'-' * 15_000}/"),
    "three parameters with letters": lambda: request(f"/date/{many('a-')}/"),
    "four parameters and a path": lambda: request(f"/dots/{many('./')}x"),
    "four parameters and many ends": lambda: request(f"/dots/a.b.c.d/{many('/end')}x"),
    "slashes": lambda: request(many("/")),
    "percent signs": lambda: request(f"/pair/{many('%2d')}"),
    "percent signs without digits": lambda: request(f"/pair/{many('%')}"),
    "digits for an int": lambda: request(f"/number/{'9' * 15_000}/1"),
    "digits for a float": lambda: request(f"/number/1/{'9' * 15_000}"),
    "a query of ampersands": lambda: request(f"/echo?{many('&')}"),
    "a query of parameters": lambda: request(f"/echo?{many('a&')}"),
    "cookies": lambda: request("/echo", f"Cookie: {many('a=b; ')}"),
    "a method": lambda: b"G" * ROOM + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version": lambda: b"GET / HTTP/" + b"1" * ROOM + b"\r\nHost: x\r\n\r\n",
    "lines without a colon": lambda: page("/", *["a"] * 5000),
    "folded lines": lambda: page("/", "a: b", *[" c"] * 3500),
    "bare line feeds": lambda: b"GET / HTTP/1.1\nHost: x\n" + b"a:\n" * 5000 + b"\n",
    "empty lines first": lambda: b"\r\n" * 7900 + page("/"),
    "byte by byte": lambda: page("/", f"a: {'b' * 300}"),
}


@linux_only
def test_no_head_of_16_kib_costs_60_ms_of_cpu_time() -> None:
    costs: dict[str, float] = {}
    with serving() as target:
        target.still_serves()
        for name, shape in SHAPES.items():
            head = shape()
            assert len(head) <= 16 * 1024, (name, len(head))
            before = target.cpu_seconds
            for _ in range(REPEATS):
                answer = send(target.port, head)
                if not answer:
                    costs[name] = float("inf")  # and everybody waits still
                    break
            else:
                costs[name] = (target.cpu_seconds - before) / REPEATS
            if costs[name] == float("inf"):
                break
    dear = {name: f"{seconds * 1000:.0f} ms" for name, seconds in costs.items() if seconds > BAR_SECONDS}
    assert not dear


def send(port: int, head: bytes) -> bytes:
    """Return what is answered, at once or behind a handler that echoes."""
    try:
        # A Close frame behind the request ends those that are upgraded.
        return ask(port, head + b"\x88\x80\0\0\0\0", seconds=8)
    except TimeoutError:
        return b""


@pytest.mark.attack
@linux_only
def test_a_head_that_comes_byte_by_byte_costs_no_more_than_its_reads() -> None:
    """64 heads of 16 KiB in pieces of 64 bytes: parsing must not begin anew with each."""
    from tests.hostile.raw import connect

    head = page("/", *[f"a{n}: {'b' * 150}" for n in range(90)])
    with serving() as target:
        target.still_serves()
        before = target.cpu_seconds
        for _ in range(16):
            with connect(target.port) as sock:
                for start in range(0, len(head), 64):
                    sock.sendall(head[start : start + 64])
                while sock.recv(65536):
                    pass
        assert (target.cpu_seconds - before) / 16 < BAR_SECONDS * 3
