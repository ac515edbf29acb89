"""docs/deployment.md: nginx, Caddy and HAProxy for real where they are installed, the rest without them."""

from __future__ import annotations

import json
import logging
import shlex
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from trio_websocket import ConnectionClosed, wrap_client_stream

from tests.cli.process import running
from tests.docs.conftest import Follow
from tests.docs.following import Folder, exercises
from tests.docs.snippets import DOCS, commands, files
from tests.proxies.fronts import INNER
from tests.proxies.running import (
    answer_to,
    caddy,
    connect_through,
    free_port,
    haproxy,
    issue_certificate,
    nginx,
)
from wsframework import Connection, Keepalive
from wsframework.testing import connect, request, serve

PAGE = DOCS / "deployment.md"
FILES = files(PAGE)
CHAT = "from examples.chat_server import app\n"


def placed(name: str, folder: Path, **shown: str) -> str:
    """Return a configuration of the page, with its paths and what else is given replaced by a test's own."""
    text = FILES[name]
    places = {
        "/run/chat/chat.sock": str(folder / "chat.sock"),
        "/etc/ssl/chat.example/": f"{folder}/",
        **shown,
    }
    for place, real in places.items():
        assert place in text or place.startswith("/etc"), place
        text = text.replace(place, real)
    return text


def nginx_text(folder: Path, port: int) -> str:
    return placed("chat.conf", folder, **{"443 ssl": f"127.0.0.1:{port} ssl"})


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Return what the certificate of chat.example in the folder is signed by."""
    return issue_certificate(tmp_path)


async def check_what_arrives(port: int, authority: trustme.CA | None) -> None:
    """Check that a proxy with a configuration of the page passes on what it should, and nothing forged."""
    scheme, other = ("http", "https") if authority is None else ("https", "http")
    own = {"Origin": f"{scheme}://chat.example:{port}"}
    forged = {"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": other, "X-Forwarded-Host": "evil.example"}
    assert await answer_to(port, authority, {}) == f"127.0.0.1 {scheme}"
    assert await answer_to(port, authority, {**own, **forged}) == f"127.0.0.1 {scheme}"
    assert await answer_to(port, authority, {"Origin": "https://evil.example"}) == 403
    if authority is not None:
        # Changed on its way.
        assert await answer_to(port, authority, {"Origin": f"http://chat.example:{port}"}) == 403


@exercises("deployment.md", "chat.conf", "behind.py")
async def test_nginx_passes_on_what_matters(
    follow: Follow, tmp_path: Path, authority: trustme.CA, nursery: trio.Nursery
) -> None:
    folder = follow("deployment.md")
    port = free_port()
    await serve_on_unix_socket(nursery, folder, "behind.py")
    async with nginx(tmp_path, port, nginx_text(tmp_path, port)):
        await check_what_arrives(port, authority)
    # The page says what happens without this line.
    text = nginx_text(tmp_path, port).replace("proxy_set_header Host", "# proxy_set_header Host")
    async with nginx(tmp_path, port, text):
        assert await answer_to(port, authority, {}) == "127.0.0.1 https"
        assert await answer_to(port, authority, {"Origin": f"https://chat.example:{port}"}) == 403


@exercises("deployment.md", "haproxy.cfg")
async def test_haproxy_passes_on_what_matters(
    follow: Follow, tmp_path: Path, authority: trustme.CA, nursery: trio.Nursery
) -> None:
    folder = follow("deployment.md")
    port = free_port()
    text = placed("haproxy.cfg", tmp_path, **{"bind :443": f"bind 127.0.0.1:{port}"})
    await serve_on_unix_socket(nursery, folder, "behind.py")
    async with haproxy(tmp_path, port, text):
        await check_what_arrives(port, authority)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interval", "talk", "cut"), [(0.3, False, False), (None, False, True), (None, True, False)]
)
async def test_nginx_cuts_when_both_sides_are_silent_and_a_ping_is_no_silence(
    follow: Follow,
    tmp_path: Path,
    authority: trustme.CA,
    nursery: trio.Nursery,
    interval: float | None,
    talk: bool,
    cut: bool,
) -> None:
    folder = follow("deployment.md")
    app = folder.load("behind.py").app
    app.keepalive = Keepalive(interval=interval, timeout=5)

    @app.websocket("/ws/listen")  # type: ignore[untyped-decorator]
    async def listen(ws: Connection) -> None:
        async for _ in ws:
            pass

    await serve_on_unix_socket(nursery, folder, "behind.py")
    port = free_port()
    text = nginx_text(tmp_path, port)
    assert text.count("60s") == 2
    async with nginx(tmp_path, port, text.replace("60s", "1s")):
        lost = False
        async with connect_through(port, authority, {}, "/ws/listen") as ws:
            with trio.move_on_after(2.5):
                try:
                    while talk:
                        await ws.send_message("21.5 C")
                        await trio.sleep(0.1)
                    await ws.get_message()
                except ConnectionClosed:
                    lost = True
    assert lost is cut


async def serve_on_unix_socket(nursery: trio.Nursery, folder: Folder, name: str) -> None:
    async def serve_there(*, task_status: trio.TaskStatus[object]) -> None:
        unix_path = str(folder.path / "chat.sock")
        await folder.load(name).app.serve(unix_path=unix_path, task_status=task_status)

    await nursery.start(serve_there)


@exercises(
    "deployment.md",
    "tcp.cfg",
    "wsframework run chat:app --port 8443 --ssl-cert haproxy.pem --allow-host chat.example --proxy-protocol "
    "--trusted-proxy 127.0.0.1",
)
async def test_haproxy_announces_clients_and_leaves_tls_alone(tmp_path: Path, authority: trustme.CA) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    command = next(line for line in commands(PAGE) if "--proxy-protocol" in line)
    command = command.replace("8443", "0")
    with running("-m", *shlex.split(command), cwd=tmp_path) as program:
        port, inner = free_port(), program.url.rpartition(":")[2].rstrip("/")
        text = FILES["tcp.cfg"].replace("bind :443", f"bind 127.0.0.1:{port}")
        text = text.replace("127.0.0.1:8443", f"127.0.0.1:{inner}")
        async with (
            haproxy(tmp_path, port, text),
            connect_through(port, authority, {}, "/ws/chat", "127.0.0.9"),
        ):
            program.wait_for("remote=127.0.0.9:", stderr=True)
        assert program.stop() == 0
        assert not any("proxy.refused" in line for line in program.errors)


@exercises("deployment.md", "inner.conf")
def test_the_lines_of_an_inner_nginx_are_those_that_are_tested() -> None:
    assert FILES["inner.conf"] == INNER  # by tests/proxies, behind HAProxy


@exercises("deployment.md", "Caddyfile")
async def test_caddy_passes_on_what_matters(follow: Follow, tmp_path: Path, nursery: trio.Nursery) -> None:
    folder = follow("deployment.md")
    port = free_port()
    # No certificate to be had here.
    site = {"chat.example {": f"{{\n\tadmin off\n}}\nhttp://chat.example:{port} {{"}
    await serve_on_unix_socket(nursery, folder, "behind.py")
    async with caddy(tmp_path, port, placed("Caddyfile", tmp_path, **site)):
        await check_what_arrives(port, None)


@exercises(
    "deployment.md",
    "wsframework run chat:app --host '' --trusted-proxy 10.0.0.0/8 --trusted-proxy 192.0.2.7",
)
async def test_proxies_are_trusted_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    command = next(line for line in commands(PAGE) if "--trusted-proxy" in line).replace(
        "192.0.2.7", "127.0.0.1"
    )
    with running("-m", *shlex.split(command), "--port", "0", cwd=tmp_path) as program:
        port = int(program.url.rpartition(":")[2].rstrip("/"))
        async with connect_through(port, None, {"X-Forwarded-For": "203.0.113.9, 10.0.0.7"}, "/ws/chat"):
            pass
        program.wait_for("remote=203.0.113.9 ", stderr=True)


@exercises(
    "deployment.md",
    "wsframework run chat:app --host '' --port 8443 --ssl-cert fullchain.pem --ssl-key privkey.pem",
)
async def test_tls_without_a_proxy(tmp_path: Path, authority: trustme.CA) -> None:
    (tmp_path / "chat.py").write_text(CHAT)
    command = next(line for line in commands(PAGE) if "--ssl-cert" in line).replace("8443", "0")
    with running("-m", *shlex.split(command), cwd=tmp_path) as program:
        port = int(program.url.rpartition(":")[2].rstrip("/"))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, context, server_hostname="chat.example", https_compatible=True)
        async with stream, trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, f"chat.example:{port}", "/ws/chat")
            await ws.aclose()
            nursery.cancel_scope.cancel()
        assert program.stop() == 0


@exercises("deployment.md", "hosts.py", "wsframework run chat:app --allow-host chat.example")
async def test_hosts_that_are_not_named_get_a_421(follow: Follow, tmp_path: Path) -> None:
    app = follow("deployment.md").load("hosts.py").app
    for host, status in [("chat.example", 404), ("eu.chat.example", 404), ("evil.example", 421)]:
        assert (await request(app, "GET", "/", {"Host": host})).status == status
    (tmp_path / "chat.py").write_text(CHAT)
    command = next(line for line in commands(PAGE) if "--allow-host" in line)
    with running("-m", *shlex.split(command), "--port", "0", cwd=tmp_path) as program:
        port = int(program.url.rpartition(":")[2])
        async with connect_through(port, None, {}, "/ws/chat"):
            pass
        with trio.socket.socket() as other:
            await other.connect(("127.0.0.1", port))
            await other.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
            assert (await other.recv(1000)).startswith(b"HTTP/1.1 421 ")


@exercises("deployment.md", "inherited.py")
async def test_a_listening_socket_outlives_the_program_that_serves_on_it(tmp_path: Path) -> None:
    (tmp_path / "inherited.py").write_text(FILES["inherited.py"])
    # As systemd does it: the socket is at descriptor 3 when the program starts.
    command = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); "
        "os.execv(sys.executable, [sys.executable, 'inherited.py'])"
    )
    with socket.create_server(("127.0.0.1", 0)) as shared:
        port = shared.getsockname()[1]
        for _ in range(2):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-c", command, str(shared.fileno())],
                cwd=tmp_path,
                pass_fds=[shared.fileno()],
            )
            try:
                # The first client comes before there is a server, and waits in the socket's queue.
                async with connect_through(port, None, {}, "/ws/echo") as client:
                    await client.send_message("hello")
                    assert await client.get_message() == "hello"
                process.terminate()
                assert await process.wait() == 0
            finally:
                if process.returncode is None:
                    process.kill()


@exercises("deployment.md", "farewell.py")
async def test_a_handler_keeps_its_notes_when_the_server_stops(follow: Follow) -> None:
    module = follow("deployment.md").load("farewell.py")
    async with serve(module.app) as server, server.connect("/ws/notes") as client:
        await client.send("milk")
        await client.ping()
        server.stop()
        assert (await client.wait_closed()).code == 1001
    assert module.unsaved == ["milk"]


@exercises("deployment.md", "age.py")
async def test_a_handler_has_a_last_message_for_an_old_connection(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    module = follow("deployment.md").load("age.py")
    async with connect(module.app, "/ws/prices") as client:
        client.deadline = 3600 * 1.2
        started = trio.current_time()
        assert "the same prices" in str(await client.receive())
        assert 3600 * 0.9 <= trio.current_time() - started <= 3600 * 1.1 + 2
        assert (await client.wait_closed()).code == 1012


@exercises("deployment.md", "logs.py")
def test_logs_are_json_when_the_program_wants_them_so(tmp_path: Path) -> None:
    program = tmp_path / "logging_program.py"
    program.write_text(f"{FILES['logs.py']}\nlogging.getLogger('wsframework').info('hello')\n")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["message"] == "hello"


@exercises("deployment.md", "wsframework run chat:app --log-format json --log-level warning")
def test_the_command_logs_json(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(f"import logging\n{CHAT}logging.getLogger('chat').warning('hello')\n")
    command = next(line for line in commands(PAGE) if "--log-level" in line)
    with running("-m", *shlex.split(command), "--port", "0", cwd=tmp_path) as program:
        program.wait_for("Listening on")
        assert program.stop() == 0
    (line,) = program.errors
    assert json.loads(line)["message"] == "hello"


@exercises("deployment.md", "health.py")
async def test_health_is_fine(follow: Follow) -> None:
    answer = await request(follow("deployment.md").load("health.py").app, "GET", "/health")
    assert (answer.status, answer.text) == (200, "fine")


def test_every_event_of_the_page_is_logged_somewhere() -> None:
    source = "".join(file.read_text() for file in (DOCS.parent / "wsframework").rglob("*.py"))
    text = PAGE.read_text()
    for event in ("handler.crashed", "server.drain_timeout", "connection.refused", "host.refused"):
        assert f"`{event}`" in text
        assert f'"{event}"' in source
    assert logging.getLogger("wsframework").name in text
