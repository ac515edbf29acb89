"""Which hosts `wsframework run` answers, and which proxies it trusts."""

from __future__ import annotations

import re
import socket

import pytest

from tests.cli.conftest import Write
from tests.cli.test_run import ECHO, serve


def status(url: str, host: str, *, upgrade: bool) -> int:
    """Ask as a page on `host` would that has pointed its name at this machine."""
    fields = [f"Host: {host}", f"Origin: http://{host}"]
    if upgrade:
        fields += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as client:
        client.sendall("\r\n".join(["GET / HTTP/1.1", *fields, "Connection: close", "", ""]).encode())
        return int(client.recv(65536).split()[1])


def test_on_a_loopback_address_only_loopback_names_are_answered(write: Write) -> None:
    write("echo.py", ECHO)

    def visit(url: str) -> None:
        for host in ("localhost:8000", "127.0.0.1", "[::1]:1", "my.localhost"):
            assert status(url, host, upgrade=True) == 101
        for upgrade in (True, False):
            assert status(url, "evil.example", upgrade=upgrade) == 421

    assert serve("echo:app", visit=visit) == 0


def test_so_it_is_where_a_name_stands_for_a_loopback_address(write: Write) -> None:
    write("echo.py", ECHO)

    def visit(url: str) -> None:
        for host in ("localhost", "127.0.0.1:8000", "127.1"):
            assert status(url, host, upgrade=True) == 101
        assert status(url, "evil.example", upgrade=True) == 421

    assert serve("echo:app", "--host", "127.1", visit=visit) == 0


@pytest.mark.parametrize(
    ("options", "program"),
    [
        (["--allow-host", "x.example", "--allow-host", "chat.example"], ECHO),
        (["--allow-host", "*.example"], ECHO),
        ([], ECHO.replace("App()", "App(allowed_hosts='chat.example')")),
    ],
)
def test_other_hosts_are_answered_when_they_are_named(write: Write, options: list[str], program: str) -> None:
    write("echo.py", program)

    def visit(url: str) -> None:
        assert status(url, "chat.example", upgrade=True) == 101
        assert status(url, "evil.test", upgrade=True) == 421
        # An App that names its hosts has named them all.
        assert status(url, "localhost", upgrade=True) == (101 if options else 421)

    assert serve("echo:app", *options, visit=visit) == 0


@pytest.mark.parametrize("options", [["--allow-host", "*"], ["--host", "0.0.0.0"]])
def test_every_host_is_answered_on_request_and_where_others_connect_anyway(
    write: Write, options: list[str]
) -> None:
    write("echo.py", ECHO)

    def visit(url: str) -> None:
        assert status(url, "anything.example", upgrade=True) == 101

    assert serve("echo:app", *options, visit=visit) == 0


WHOAMI = """
@app.http("/")
async def whoami(request):
    return f"{request.remote} {request.secure} {request.host}"
"""

FORWARDED = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "a.example"),
    ("Forwarded", "for=203.0.113.10;host=localhost"),
]


@pytest.mark.parametrize(
    ("options", "program", "answer"),
    [
        ([], ECHO, "127.0.0.1:* False localhost"),
        (["--trusted-proxy", "10.0.0.0/8"], ECHO, "127.0.0.1:* False localhost"),
        (
            ["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1"],
            ECHO,
            "203.0.113.9 True localhost",
        ),
        (
            ["--trusted-proxy", "127.0.0.1", "--proxy-field", "x-forwarded-host", "--allow-host", "*"],
            ECHO,
            "127.0.0.1:* False a.example",
        ),
        (
            ["--trusted-proxy", "127.0.0.1"],
            ECHO.replace("App()", "App(proxy_fields='forwarded')"),
            "203.0.113.10 False localhost",
        ),
        ([], ECHO.replace("App()", "App(trusted_proxies='127.0.0.1')"), "203.0.113.9 True localhost"),
    ],
)
def test_proxies_are_trusted_when_they_are_named(
    write: Write, options: list[str], program: str, answer: str
) -> None:
    write("whoami.py", program + WHOAMI)
    fields = [("Host", "localhost"), *FORWARDED]

    def visit(url: str) -> None:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            lines = [f"{name}: {value}" for name, value in fields]
            client.sendall("\r\n".join(["GET / HTTP/1.1", *lines, "Connection: close", "", ""]).encode())
            with client.makefile() as answered:
                body = answered.read().rpartition("\n")[2]
        assert re.sub(r":\d+", ":*", body) == answer

    assert serve("whoami:app", *options, visit=visit) == 0
