from __future__ import annotations

import json
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, open_websocket_url, wrap_client_stream

from tests.cli.conftest import Command, Write
from tests.cli.here import serve_here
from tests.cli.process import serving

ECHO = """\
import logging
from wsframework import App
app = App()
logging.info("imported")

@app.websocket("/")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
"""

PAGE = """\
from wsframework import App
app = App()

@app.http("/page")
async def page(request):
    return "a page"
"""

LIFESPAN = """
import trio

@app.lifespan
async def live():
    async with trio.open_nursery():
        yield
"""


async def ask(url: str, context: ssl.SSLContext | None = None) -> str:
    async with open_websocket_url(url, ssl_context=context) as ws:
        await ws.send_message("hi")
        return str(await ws.get_message())


def serve(target: str, *options: str, visit: Callable[[str], object]) -> int:
    return serve_here("run", target, "--port", "0", *options, visit=visit)[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_serves_until_a_signal_and_ends_with_0(
    write: Write, tmp_path: Path, number: signal.Signals
) -> None:
    write("echo.py", ECHO)
    with serving("echo:app", cwd=tmp_path) as server:
        assert trio.run(ask, server.url) == "hi"
        assert server.stop(number) == 0
    assert server.lines == [f"Listening on {server.url} (Ctrl-C stops)"]
    text = "\n".join(server.errors)
    assert " info imported" in text
    assert " info connection.opened path=/" in text
    assert f" info server.signal signal={number.name}" in text
    assert "\x1b" not in text
    assert "Traceback" not in text


@pytest.mark.parametrize(("options", "code"), [([], 1001), (["--max-age", "0.5"], 1012)])
def test_clients_learn_why_they_leave(write: Write, tmp_path: Path, options: list[str], code: int) -> None:
    write("echo.py", ECHO)
    with serving("echo:app", *options, cwd=tmp_path) as server:

        async def wait_for_close() -> int:
            port = int(server.url.rpartition(":")[2])
            # The stream is ours to close: trio-websocket leaves it open when the server closes first.
            async with (
                await trio.open_tcp_stream("127.0.0.1", port) as stream,
                trio.open_nursery() as nursery,
            ):
                ws = await wrap_client_stream(nursery, stream, "localhost", "/")
                if not options:
                    server.process.terminate()
                with pytest.raises(ConnectionClosed) as closed, trio.fail_after(30):
                    await ws.get_message()
            assert closed.value.reason is not None
            return int(closed.value.reason.code)

        assert trio.run(wait_for_close) == code
        # A second signal could come when the program has ended its own handling of signals.
        assert (server.stop() if options else server.wait()) == 0


def test_the_log_is_json_on_request(write: Write, tmp_path: Path) -> None:
    write("echo.py", ECHO)
    with serving("echo:app", "--log-format", "json", "--log-level", "debug", cwd=tmp_path) as server:
        trio.run(ask, server.url)
        assert server.stop() == 0
    records = [json.loads(line) for line in server.errors]
    events = [record.get("event") for record in records if record["logger"] == "wsframework"]
    assert events[0] == "server.listening"
    assert {"connection.opened", "connection.closed", "server.stopped"} <= set(events)
    assert [record["message"] for record in records if record["logger"] == "root"] == ["imported"]


@pytest.mark.parametrize("options", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_plain_requests_are_logged_on_request(write: Write, tmp_path: Path, options: list[str]) -> None:
    write("page.py", PAGE)
    for more, logged in (["--access-log"], 1), ([], 0):
        with serving("page:app", *options, *more, cwd=tmp_path) as server:
            with urlopen(f"{server.url.replace('ws:', 'http:')}/page?key=secret") as answer:
                assert answer.read() == b"a page"
            assert server.stop() == 0
        records = [line for line in server.errors if "request.answered" in line]
        assert len(records) == logged
        assert all("method=GET path=/page" in line and "secret" not in line for line in records)


def test_the_log_level_is_heeded(write: Write, tmp_path: Path) -> None:
    write("echo.py", ECHO)
    with serving("echo:app", "--log-level", "warning", cwd=tmp_path) as server:
        trio.run(ask, server.url)
        assert server.stop() == 0
    assert server.errors == []


def test_run_serves_on_a_unix_socket(write: Write, tmp_path: Path) -> None:
    write("echo.py", ECHO)

    def visit(line: str) -> None:
        assert line == "Listening on the unix socket ./echo.sock (Ctrl-C stops)"
        assert stat.S_ISSOCK((tmp_path / "echo.sock").stat().st_mode)

        async def ask_unix() -> str:
            stream = await trio.open_unix_socket(tmp_path / "echo.sock")
            async with trio.open_nursery() as nursery:
                ws = await wrap_client_stream(nursery, stream, "localhost", "/")
                await ws.send_message("hi")
                answer = str(await ws.get_message())
                await ws.aclose()
                return answer

        assert trio.run(ask_unix) == "hi"

    assert serve_here("run", "echo:app", "--unix", "echo.sock", visit=visit)[0] == 0
    assert not (tmp_path / "echo.sock").exists()


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "cert.pem"), append=True)
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    return authority


@pytest.mark.parametrize(
    "files", [["--ssl-cert", "both.pem"], ["--ssl-cert", "cert.pem", "--ssl-key", "key.pem"]]
)
def test_run_serves_tls(write: Write, authority: trustme.CA, files: list[str]) -> None:
    write("echo.py", ECHO)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def visit(url: str) -> None:
        assert url.startswith("wss://")
        assert trio.run(ask, url, context) == "hi"

    assert serve("echo:app", *files, visit=visit) == 0


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["--ssl-key", "key.pem"], "--ssl-key needs --ssl-cert, the certificate of the key"),
        (["--ssl-cert", "no.pem"], "--ssl-cert no.pem: there is no such file"),
        (["--ssl-cert", "cert.pem", "--ssl-key", "no.pem"], "--ssl-key no.pem: there is no such file"),
        (
            ["--ssl-cert", "cert.pem"],
            "cannot serve TLS with cert.pem: not PEM, or no certificate or private key in it",
        ),
        (
            ["--ssl-cert", "cert.pem", "--ssl-key", "other.pem"],
            "cannot serve TLS with cert.pem and other.pem: key values mismatch",
        ),
        (
            ["--ssl-cert", "cert.pem", "--ssl-key", "secret.pem"],
            "secret.pem: the private key is encrypted; decrypt it (openssl pkey)",
        ),
    ],
)
def test_wrong_tls_files_are_one_line_and_exit_code_2(
    write: Write, command: Command, tmp_path: Path, files: list[str], message: str
) -> None:
    other = trustme.CA().issue_cert("127.0.0.1").private_key_pem
    other.write_to_path(str(tmp_path / "other.pem"))
    write("secret.pem", encrypted(other.bytes()))
    write("echo.py", ECHO)
    assert command("run", "echo:app", *files) == (2, "", f"error: {message}\n")


@pytest.mark.usefixtures("authority")
def test_a_key_that_may_not_be_read_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    # A file's mode would not do: tests may run as root.
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
    message = "error: cannot serve TLS with both.pem: [Errno 13] Permission denied\n"
    assert command("run", "echo:app", "--ssl-cert", "both.pem") == (2, "", message)


def encrypted(key: bytes) -> str:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    private = load_pem_private_key(key, None)
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()


def test_a_port_in_use_is_one_line_and_exit_code_2(write: Write, command: Command) -> None:
    write("echo_twice.py", ECHO)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, out, err = command("run", "echo_twice:app", "--port", str(port), "--log-level", "error")
    assert (code, out) == (2, "")
    assert err == (
        f"error: cannot listen on 127.0.0.1:{port}: the port is in use; "
        "stop the other program or choose another\n"
    )


def test_a_port_in_use_is_one_line_under_a_lifespan_with_a_nursery(write: Write, command: Command) -> None:
    write("living.py", ECHO + LIFESPAN)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        code, _, err = command("run", "living:app", "--port", port, "--log-level", "error")
    assert code == 2
    assert err.startswith("error: cannot listen on 127.0.0.1:")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "nowhere.invalid"], "error: cannot listen on nowhere.invalid: unknown name"),
        (["--host", "192.0.2.1"], "error: cannot listen on 192.0.2.1:8000: the address is not one of"),
        (
            ["--unix", "echo_lost.py"],
            "error: cannot listen on echo_lost.py: the file there is not a socket",
        ),
    ],
)
def test_a_wrong_address_is_one_line_and_exit_code_2(
    write: Write, command: Command, options: list[str], message: str
) -> None:
    write("echo_lost.py", ECHO)
    code, out, err = command("run", "echo_lost:app", "--log-level", "error", *options)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_a_module_that_fails_is_a_line_and_the_users_frames_and_exit_code_2(
    write: Write, command: Command, tmp_path: Path
) -> None:
    write("settings.py", "import os\ndef load(name):\n    return os.environ[name]\n")
    write("broken.py", "import settings\n\napp = settings.load('NO_SUCH_DATABASE')\n")
    code, out, err = command("run", "broken:app")
    assert (code, out) == (2, "")
    first, *rest = err.splitlines()
    assert first == "error: settings.py:3: KeyError: 'NO_SUCH_DATABASE'"
    assert rest[0] == "Traceback (most recent call last):"
    assert [line for line in rest if line.startswith("  File ")] == [
        f'  File "{tmp_path}/broken.py", line 3, in <module>',
        f'  File "{tmp_path}/settings.py", line 3, in load',
    ]
    assert rest[-1] == "KeyError: 'NO_SUCH_DATABASE'"


def test_a_unix_socket_has_the_permissions_that_were_asked_for(write: Write, tmp_path: Path) -> None:
    write("echo.py", ECHO)

    def visit(_: str) -> None:
        assert stat.S_IMODE((tmp_path / "echo.sock").stat().st_mode) == 0o660

    assert serve_here("run", "echo:app", "--unix", "echo.sock", "--unix-mode", "660", visit=visit)[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unix-mode", "660"], "--unix-mode needs --unix"),
        (["--unix", "x.sock", "--unix-mode", "888"], "--unix-mode 888: write it in octal"),
        (["--unix", "x.sock", "--unix-mode", "rw"], "--unix-mode rw: write it in octal"),
        (["--allow-host", "https://chat.example"], "'https://chat.example' is no host"),
        (["--trusted-proxy", "proxy.example"], "'proxy.example' is no network and no address"),
        (["--trusted-proxy", "unix", "--proxy-field", "x-real-ip"], "'x-real-ip' is no field"),
        (["--proxy-field", "forwarded"], "a field of trusted proxies is named, and no proxy is"),
        (["--proxy-protocol"], "proxy_protocol is for connections of trusted proxies"),
        (["--proxy-field", "forwarded", "--proxy-field", "x-forwarded-for"], "'forwarded' says what"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_exit_code_2(
    write: Write, command: Command, options: list[str], message: str
) -> None:
    write("echo_options.py", ECHO)
    code, out, err = command("run", "echo_options:app", "--log-level", "error", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


LOUD = (
    ECHO
    + """
import os, resource

@app.http("/descriptors")
async def descriptors(request):
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
)


def test_a_reader_of_stderr_that_sleeps_does_not_stop_the_server(write: Write, tmp_path: Path) -> None:
    write("echo.py", ECHO)
    command = [sys.executable, "-m", "wsframework", "run", "echo:app", "--port", "0", "--log-level", "debug"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split()[2]

        async def many() -> None:
            for _ in range(400):  # some 15 lines each: several times what a pipe holds
                with trio.fail_after(30):
                    assert await ask(url) == "hi"

        trio.run(many)
        process.terminate()
        process.wait(30)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no /proc")
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-"])
@pytest.mark.parametrize("form", ["text", "json"])
def test_run_serves_without_the_standard_streams(
    write: Write, tmp_path: Path, closed: str, form: str
) -> None:
    write("echo.py", ECHO)
    command = [sys.executable, "-m", "wsframework", "run", "echo:app", "--port", "0", "--log-format", form]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    process = subprocess.Popen(shell, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().split()[2]
        # No socket has the number that whoever writes to stderr writes to.
        assert (Path("/proc") / str(process.pid) / "fd" / "2").readlink() == Path("/dev/null")

        async def one() -> None:
            with trio.fail_after(30):
                assert await ask(url) == "hi"

        trio.run(one)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_limit_of_descriptors_is_raised_and_connections_fit_it(write: Write, tmp_path: Path) -> None:
    write("echo.py", LOUD)
    command = [sys.executable, "-m", "wsframework", "run", "echo:app", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 400)),
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().decode().split()[2].rpartition(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /descriptors HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").read().endswith(b"\r\n\r\n400")
        clients = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(320)]
        over = clients.pop()
        assert over.recv(1000).startswith(b"HTTP/1.1 503 ")
        for client in (over, *clients):
            client.close()
        process.terminate()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    (line,) = [line for line in errors.decode().splitlines() if "server.connections_limited" in line]
    fields = dict(field.split("=") for field in line.split()[3:])
    assert fields["wanted"] == "20000"
    assert fields["descriptors"] == "400"
    assert 200 < int(fields["connections"]) < 300
