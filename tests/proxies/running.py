"""Run nginx, Caddy and HAProxy in the foreground of a test, and connect through them as a browser would."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import pytest
import trio
import trustme
from trio_websocket import ConnectionRejected, WebSocketConnection, wrap_client_stream

from tests.clients.conftest import missing

__all__ = [
    "answer_to",
    "caddy",
    "connect_through",
    "free_port",
    "haproxy",
    "issue_certificate",
    "nginx",
    "program_path",
]


def program_path(name: str) -> str:
    """Return where a proxy is installed; skip the test where it is not."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        missing(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], environment: Mapping[str, str], log: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@asynccontextmanager
async def proxy(command: list[str], port: int, folder: Path) -> AsyncIterator[None]:
    """Run a proxy in the foreground until the end of the block."""
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    with (folder / "proxy.log").open("w") as log:
        process = start(command, environment, log)
        try:
            with trio.fail_after(20):
                while True:
                    assert process.poll() is None, (folder / "proxy.log").read_text()
                    try:
                        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                        break
                    except OSError:
                        await trio.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)


STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
"""Debian's package libnginx-mod-stream."""


def load_stream_module() -> str:
    """Return the line that loads nginx's module for TCP; skip the test where there is none."""
    if not STREAM_MODULE.exists():
        pytest.skip(f"nginx has no {STREAM_MODULE}: libnginx-mod-stream is not installed")
    return f"load_module {STREAM_MODULE};"


@asynccontextmanager
async def nginx(folder: Path, port: int, text: str, *, stream: bool = False) -> AsyncIterator[None]:
    """Run nginx.

    Args:
        folder: where its files are; each proxy needs one of its own.
        port: where it listens, according to `text`.
        text: what stands in its block `http`, or `stream`.
        stream: whether it passes on bytes; skips the test where nginx has no module for that.
    """
    (folder / "site.conf").write_text(text)
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Only root may choose a user, and without one its workers could not enter the folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    block = "stream {" if stream else f"http {{ access_log off; {temporary}"
    (folder / "nginx.conf").write_text(
        f"{load_stream_module() if stream else ''}"
        f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"{block} include {folder}/site.conf; }}\n"
    )
    command = [program_path("nginx"), "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    async with proxy(command, port, folder):
        yield


@asynccontextmanager
async def haproxy(folder: Path, port: int, text: str) -> AsyncIterator[None]:
    """Run HAProxy with a configuration in which it listens on `port`."""
    (folder / "haproxy.cfg").write_text(text)
    async with proxy([program_path("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")], port, folder):
        yield


@asynccontextmanager
async def caddy(folder: Path, port: int, text: str) -> AsyncIterator[None]:
    """Run Caddy with a Caddyfile in which it listens on `port`."""
    (folder / "Caddyfile").write_text(text)
    command = [program_path("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    async with proxy(command, port, folder):
        yield


def issue_certificate(folder: Path) -> trustme.CA:
    """Put a certificate of chat.example into a folder, in the forms that proxies want; return its issuer."""
    ca = trustme.CA()
    certificate = ca.issue_cert("chat.example", "127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "privkey.pem")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "fullchain.pem", append=True)
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "haproxy.pem")
    return ca


@asynccontextmanager
async def connect_through(
    port: int,
    authority: trustme.CA | None,
    headers: Mapping[str, str],
    path: str = "/ws/whoami",
    source: str | None = None,
) -> AsyncIterator[WebSocketConnection]:
    """Connect to chat.example, as a browser does that has looked up its address.

    Args:
        port: where it is, on 127.0.0.1.
        authority: who signed its certificate; None for no TLS.
        headers: more fields of the handshake.
        path: the path.
        source: the client's own address.
    """
    tcp = await trio.open_tcp_stream("127.0.0.1", port, local_address=source)
    stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = tcp
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the hundreds of system authorities
        authority.configure_trust(context)
        stream = trio.SSLStream(tcp, context, server_hostname="chat.example", https_compatible=True)
    extra = [(name.encode(), value.encode()) for name, value in headers.items()]
    async with stream, trio.open_nursery() as nursery:
        yield await wrap_client_stream(nursery, stream, f"chat.example:{port}", path, extra_headers=extra)
        nursery.cancel_scope.cancel()


async def answer_to(
    port: int, authority: trustme.CA | None, headers: Mapping[str, str], source: str | None = None
) -> str | int:
    """Return the server's greeting, or the status with which the client was refused."""
    try:
        async with connect_through(port, authority, headers, source=source) as ws:
            return str(await ws.get_message())
    except* ConnectionRejected as group:
        (refused,) = group.exceptions
        assert isinstance(refused, ConnectionRejected)
        status = refused.status_code
    return status
