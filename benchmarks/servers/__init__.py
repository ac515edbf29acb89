"""One small, idiomatic server per contender, and what they share.

The convention: `python -m benchmarks.servers.NAME PORT MODE` listens on 127.0.0.1:PORT (0: any), prints
`READY <port>` on stdout and serves until it is killed. MODE is one of

    echo        every message back to its sender; the library's own keepalive default
    fanout      every connection joins one room; each message goes to every member, its sender included
    keepalive   echo, with a ping every 20 s where the library can do that by itself
    deflate     echo, with permessage-deflate allowed
    tls         echo over TLS, with the certificate named in BENCH_CERTIFICATE (one PEM: key and chain)
    post        echo, and `POST /sum` with JSON {"a": 1, "b": 2} is answered with {"sum": 3}
    post-fast   the same, with httptools instead of h11 where a server can choose

The settings all servers have in common are here: one message limit, no access log, one worker, and no
compression except in `deflate`.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys

__all__ = [
    "BACKLOG",
    "KEEPALIVE_SECONDS",
    "MESSAGE_LIMIT",
    "arguments",
    "certificate",
    "listen",
    "ready",
    "tls",
]

BACKLOG = 1024  # connections the kernel holds ready; the libraries' own defaults reach from 100 to 65,535
MESSAGE_LIMIT = 4 * 1024 * 1024  # bytes; above every workload's messages, so that no server refuses one
KEEPALIVE_SECONDS = 20.0  # what websockets, uvicorn and wsframework have as a default
MODES = ("echo", "fanout", "keepalive", "deflate", "tls", "post", "post-fast")


def arguments() -> tuple[int, str]:
    """Return (port, mode) from the command line."""
    port, mode = int(sys.argv[1]), sys.argv[2]
    if mode not in MODES:
        sys.exit(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    return port, mode


def ready(port: int) -> None:
    """Tell the benchmark that clients may connect."""
    print(f"READY {port}", flush=True)


def listen(port: int) -> socket.socket:
    """Return a listening socket, for libraries that take one."""
    return socket.create_server(("127.0.0.1", port), backlog=BACKLOG)


def free_port(port: int) -> int:
    """Return `port`, or one that is free, for libraries that bind by themselves."""
    if port:
        return port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def certificate() -> str:
    """Return the path of the PEM file with the key and the certificate chain."""
    return os.environ["BENCH_CERTIFICATE"]


def tls(mode: str) -> ssl.SSLContext | None:
    """Return the TLS context where the mode wants one."""
    if mode != "tls":
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate())
    return context
