"""The App: its settings, its decisions about requests, its servers.

`registering` has the decorators. What concerns single requests is in a `Decider`, which a host asks about
each of them: upgrade and call this handler, or give this HTTP answer. The App itself starts servers and holds
what lives as long as they do: lifespans, observers and plugins.
"""

from __future__ import annotations

import functools
import socket
import ssl as ssl_module
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from inspect import signature

import trio
import trio_websocket

from wsframework.authority import AllowedHosts, host_list
from wsframework.config import Deflate, Keepalive, Limits, Timeouts
from wsframework.deciding import Decider
from wsframework.forwarded import DEFAULT_FIELDS, Proxies
from wsframework.hosts.trio_websocket import serve_request
from wsframework.origins import Origins
from wsframework.registering import Registry
from wsframework.request import Request, Response
from wsframework.server import Server, run_server, serve
from wsframework.server.crowd import Crowd
from wsframework.server.listeners import hosts_on_loopback
from wsframework.session import Acceptance
from wsframework.streamed import Streamed

__all__ = ["App"]


class App(Registry):
    """A WebSocket application: handlers by path and subprotocol, and what they share.

    Args:
        limits: sizes and counts, see `Limits`.
        timeouts: the server's own waits, see `Timeouts`.
        keepalive: when silent peers get a ping, see `Keepalive`.
        compression: settings of permessage-deflate, or None for no compression. The default is None, because
            compression costs memory for every connection.
        origins: origins whose pages may connect, or send plain HTTP requests other than GET, HEAD and
            OPTIONS, besides the server's own; `"*"` for all. Clients other than browsers send no Origin, and
            are always accepted.
        allowed_hosts: the hosts that the server accepts, such as `chat.example`, `*.chat.example`, or an
            address; `"*"` for all. Requests for other hosts get a 421, plain HTTP included, which prevents
            DNS rebinding. None (the default) accepts every host, except under `run` on a loopback
            address.
        trusted_proxies: reverse proxies whose header fields are read: networks such as `10.0.0.0/8`,
            addresses, and `unix` for every peer on a unix socket. Then `request.remote` and `request.secure`
            are the client's, and limits, logs and the origin check use them. The fields of other peers are
            ignored. The default is empty, because every client can send these fields.
        proxy_fields: the fields that are read. The default is `x-forwarded-for` and `x-forwarded-proto`. Add
            `x-forwarded-host` (for `request.host`), or name `forwarded` (RFC 7239) alone, only if your
            proxies write or remove it: most pass on what the client has sent.

    Raises:
        ConfigurationError: an entry of `origins` is not an origin, one of `allowed_hosts` not a host, one of
            `trusted_proxies` not a network, or one of `proxy_fields` not such a field.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        keepalive: Keepalive | None = None,
        compression: Deflate | None = None,
        origins: str | Iterable[str] = (),
        allowed_hosts: str | Iterable[str] | None = None,
        trusted_proxies: str | Iterable[str] = (),
        proxy_fields: str | Iterable[str] = DEFAULT_FIELDS,
    ) -> None:
        self.limits = limits or Limits()
        self.timeouts = timeouts or Timeouts()
        self.keepalive = keepalive or Keepalive()
        self.compression = compression
        self.origins = Origins.parse(origins)
        self.allowed_hosts = host_list(allowed_hosts)
        hosts = None if self.allowed_hosts is None else AllowedHosts.parse(self.allowed_hosts)
        self.proxies = Proxies.parse(trusted_proxies, proxy_fields)
        super().__init__(Decider(self, hosts))

    # Deciding

    async def decide(self, request: Request) -> Acceptance | Response | Streamed:
        """Choose what a request gets: the upgrade to a handler, or an HTTP answer.

        Cancellation: nothing is left behind; a guard may have been cancelled in the middle.
        """
        return await self._decider.decide(self._decider.hosts, request)

    # Serving

    @asynccontextmanager
    async def running(self) -> AsyncIterator[App]:
        """Enter the App's lifespans. `serve` and `run` do so themselves; use it around other hosts.

        async with app.running():
            await serve_websocket(app, "127.0.0.1", 8000, None)
        """
        async with AsyncExitStack() as stack:
            for lifespan in self._lifespans:
                entered = lifespan(self) if signature(lifespan).parameters else lifespan()
                await stack.enter_async_context(entered)  # type: ignore[arg-type]
            yield self

    async def serve(
        self,
        host: str | None = "127.0.0.1",
        port: int = 8000,
        *,
        ssl: ssl_module.SSLContext | None = None,
        unix_path: str | None = None,
        sockets: Sequence[socket.socket] | None = None,
        unix_mode: int | None = None,
        proxy_protocol: bool = False,
        allow_hosts: str | Iterable[str] = (),
        crowd: Crowd | None = None,
        task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, then drain: stop accepting, Close 1001 to every client, wait for handlers.

        Args:
            host: an address or name to listen on; None for every interface, IPv4 and IPv6.
            port: a TCP port; 0 lets the system choose, see `Server.port`.
            ssl: a server-side TLS context, or None for plain TCP.
            unix_path: listen on a unix socket at this path instead of on TCP.
            sockets: TCP or unix sockets that are bound already, for example inherited from another process,
                instead of `host`, `port` and `unix_path`. Those that do not listen yet are made to listen.
                They are closed when the server stops accepting, but not in other processes.
            unix_mode: the permissions of the socket's file, such as 0o660. None leaves them to the umask, or
                as they were when the file of a dead server is replaced.
            proxy_protocol: whether every connection begins with a header of the PROXY protocol, version 1 or
                2, with the client's address. Peers other than `trusted_proxies` are refused.
            allow_hosts: hosts to accept besides `App(allowed_hosts=…)`; with neither, every host is accepted.
                A program that listens on its user's own machine should name `localhost`.
            crowd: servers in other processes that accept from the same `sockets`, for `wsframework run
                --workers`. They share the connections evenly, and `Limits.connections` is for all of them.
            task_status: `await nursery.start(app.serve, host, port)` returns the `Server` once it listens.

        Raises:
            ConfigurationError: an entry of `allow_hosts` is not a host, `unix_mode` is wrong, `sockets` is
                empty or given with `unix_path`, or `proxy_protocol` is given and no proxy is trusted.
            ListenError: an address or socket cannot be listened on.
            KeyboardInterrupt: after the drain, if one was raised in a handler or anywhere else in the server.
            Exception: a bug in the server itself; every connection was closed, with 1011 where possible.

        Cancellation:
            Starts the drain, which takes up to `Timeouts.drain` and then cancels what is left. A handler or
            lifespan that resists cancellation (it shields itself, waits for a thread, or swallows
            `Cancelled`) delays the return of `serve`, although its connection is closed and no client is
            accepted. `serve` cannot end the program around it; `run` does.
        """
        more = host_list(allow_hosts) or ()
        hosts = AllowedHosts.parse((*(self.allowed_hosts or ()), *more)) if more else self._decider.hosts
        failure: BaseException | None = None
        async with self.running():
            try:
                await serve(
                    functools.partial(self._decider.decide, hosts),
                    host=host,
                    port=port,
                    ssl=ssl,
                    unix_path=unix_path,
                    unix_mode=unix_mode,
                    sockets=sockets,
                    proxy_protocol=proxy_protocol,
                    limits=self.limits,
                    timeouts=self.timeouts,
                    keepalive=self.keepalive,
                    proxies=self.proxies,
                    observers=self._observers,
                    crowd=crowd,
                    task_status=task_status,
                )
            except (Exception, KeyboardInterrupt) as error:
                # Lifespans see a server that has stopped, and end as they do after every other one.
                failure = error
        if failure is not None:
            raise failure

    def run(
        self,
        host: str | None = "127.0.0.1",
        port: int = 8000,
        *,
        ssl: ssl_module.SSLContext | None = None,
        unix_path: str | None = None,
        sockets: Sequence[socket.socket] | None = None,
        unix_mode: int | None = None,
        proxy_protocol: bool = False,
        allow_hosts: str | Iterable[str] = (),
        on_listening: Callable[[Server], None] | None = None,
    ) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, drain, and return.

        The first signal ends the start-up, or begins the drain. A second one cuts short the drain or the end
        of the lifespans. If code resists cancellation, it is logged (`task.stuck`, with its stack) and the
        process ends with status 1, at the third signal or a few seconds after `Timeouts.drain` and
        `Timeouts.lifespan`.

        Use it in programs that are servers: it handles the signals, calls `gc.freeze()` once it listens, and
        may end the process. Arguments that are not explained here are those of `serve`.

        Args:
            allow_hosts: as for `serve`. On a loopback address, which only this machine reaches, or a name
                that resolves to one, an App without `allowed_hosts` accepts only `localhost`, `*.localhost`,
                127.0.0.0/8, `[::1]`, that name, and these hosts: otherwise any web page could reach it
                through a name of its own (DNS rebinding). Behind a local proxy name the public host, or
                `"*"`.
            on_listening: called once the server listens.

        Raises:
            ListenError: an address or socket cannot be listened on.
            KeyboardInterrupt: as for `serve`.
            SystemExit: a lifespan raised it.
            Exception: as for `serve`, or a lifespan's.
        """
        if self.allowed_hosts is None and unix_path is None and sockets is None:
            allow_hosts = (*hosts_on_loopback(host), *(host_list(allow_hosts) or ()))
        start = functools.partial(
            self.serve,
            host,
            port,
            ssl=ssl,
            unix_path=unix_path,
            unix_mode=unix_mode,
            sockets=sockets,
            proxy_protocol=proxy_protocol,
            allow_hosts=allow_hosts,
        )
        run_server(start, on_listening, self.timeouts)

    async def __call__(self, request: trio_websocket.WebSocketRequest) -> None:
        """Serve one connection of a trio-websocket server: an App is a handler for `serve_websocket`."""
        await serve_request(request, self)
