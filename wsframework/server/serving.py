"""Run a server until cancelled, on listeners or without them."""

from __future__ import annotations

import socket
import ssl as ssl_module
from collections.abc import Iterable, Sequence

import trio

from wsframework.config import Keepalive, Limits, Timeouts
from wsframework.errors import ConfigurationError
from wsframework.forwarded import Proxies
from wsframework.observer import Observer
from wsframework.server.crowd import Crowd
from wsframework.server.listeners import listen_on, open_tcp_listeners, open_unix_listener
from wsframework.server.native import NativeServer, TransportChoice
from wsframework.server.server import Server
from wsframework.session import Decide

__all__ = ["serve", "serve_streams"]


async def serve(
    decide: Decide,
    *,
    host: str | None,
    port: int,
    ssl: ssl_module.SSLContext | None = None,
    unix_path: str | None = None,
    sockets: Sequence[socket.socket] | None = None,
    unix_mode: int | None = None,
    limits: Limits,
    timeouts: Timeouts,
    keepalive: Keepalive,
    proxies: Proxies | None = None,
    proxy_protocol: bool = False,
    observers: Iterable[Observer] = (),
    transport: TransportChoice = "auto",
    crowd: Crowd | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen and serve until cancelled, then drain.

    Args:
        decide: decides what a request gets.
        sockets: bound sockets to listen on, instead of `host`, `port` and `unix_path`.
        proxies: the proxies whose header fields are read.
        proxy_protocol: whether every connection begins with a header of the PROXY protocol.
        observers: are told of events, after the log.
        crowd: the servers of other processes that accept from `sockets` too.

    Raises:
        ConfigurationError: `unix_mode` is not a mode, or there is no `unix_path` for it; `sockets` is empty,
            or given with `unix_path`; `proxy_protocol` is on, and no proxy is trusted.
        ListenError: an address or socket cannot be listened on.

    Cancellation:
        Starts the drain, which is over by `Timeouts.drain`.
    """
    if unix_mode is not None and (unix_path is None or not 0 <= unix_mode <= 0o777):
        why = "is for a unix socket" if unix_path is None else "is from 0 to 0o777, such as 0o660"
        raise ConfigurationError(f"unix_mode {why}")
    if proxy_protocol and (proxies is None or not proxies.any):
        raise ConfigurationError(
            "proxy_protocol is for connections of trusted proxies, and none is named: write "
            "App(trusted_proxies=[…]) or --trusted-proxy NET"
        )
    if sockets is not None:
        if unix_path is not None:
            raise ConfigurationError("give either sockets or unix_path, not both")
        listeners = listen_on(sockets)
    elif unix_path is not None:
        listeners = [open_unix_listener(unix_path, unix_mode)]
    else:
        listeners = await open_tcp_listeners(host, port)
    server = NativeServer(
        decide,
        limits=limits,
        timeouts=timeouts,
        keepalive=keepalive,
        proxies=proxies,
        proxy_protocol=proxy_protocol,
        secure=ssl is not None,
        transport=transport,
        observers=observers,
        crowd=crowd,
    )
    await server.run(listeners, ssl, task_status, shared=sockets is not None)


async def serve_streams(
    decide: Decide,
    *,
    secure: bool = False,
    limits: Limits,
    timeouts: Timeouts,
    keepalive: Keepalive,
    proxies: Proxies | None = None,
    observers: Iterable[Observer] = (),
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve without listening: `Server.serve_soon` gets the connections.

    Args:
        decide: as for `serve`, like the rest.
        secure: whether requests are to appear as if they came over TLS.

    Cancellation:
        Starts the drain, which is over by `Timeouts.drain`.
    """
    server = NativeServer(
        decide,
        limits=limits,
        timeouts=timeouts,
        keepalive=keepalive,
        proxies=proxies,
        secure=secure,
        observers=observers,
    )
    await server.run((), None, task_status)
