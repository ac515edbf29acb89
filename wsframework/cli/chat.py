"""`wsframework chat`: serve the chat and its page."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from wsframework.app import App
from wsframework.chat import Chat
from wsframework.cli.logs import LogFormat, LogLevel, crashes_logged, set_up_logging
from wsframework.cli.options import (
    AllowHost,
    Format,
    Host,
    Level,
    Port,
    ProxyField,
    ProxyProtocol,
    TrustedProxy,
)
from wsframework.errors import ConfigurationError
from wsframework.request import Address

__all__ = ["PREFIX", "REDIS", "addresses_to_open", "chat", "chat_on_redis"]

REDIS, PREFIX = "WSFRAMEWORK_REDIS", "WSFRAMEWORK_PREFIX"
"""The variables that tell workers where the chat is: a command line could be read by other users."""


def chat(
    host: Host = "127.0.0.1",
    port: Port = 3000,
    db: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where messages are kept. [default: chat.db]")
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Keep messages in memory only, until the server stops.")
    ] = False,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=REDIS,
            help="Keep the chat in Redis instead, so that any number of processes and machines serve it: "
            "redis://[user:password@]host[:port][/database], or redis+sentinel://host[:port],…/master. "
            "In the environment, no other user of the machine sees the password.",
            show_default=False,
        ),
    ] = None,
    prefix: Annotated[
        str,
        typer.Option(
            envvar=PREFIX, help="With --redis: what the keys begin with; another one, another chat."
        ),
    ] = "ws",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=256,
            help="With --redis: serve from N processes on one port; 0: one for each core. "
            "[default: one process, without a parent]",
            show_default=False,
        ),
    ] = None,
    allow_host: AllowHost = None,
    trusted_proxy: TrustedProxy = None,
    proxy_field: ProxyField = None,
    proxy_protocol: ProxyProtocol = False,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Serve a chat: open it in two browser windows and talk.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it gracefully. Messages are kept for the next start. With
    --workers, signals and exit codes are those of `run --workers`.
    """
    _check_options(redis, workers, db, no_history)
    set_up_logging(log_level, log_format)
    history = None if no_history else db or Path("chat.db")
    if redis is None:
        app, kept = App(), "in memory only" if history is None else f"in {history}"
        app.install(Chat(history=history))
    else:
        app, kept = chat_on_redis(redis, prefix)

    def announce(addresses: tuple[Address, ...]) -> None:
        # Flushed, because a program that reads them from a pipe waits for these lines.
        print("Open the chat in a browser, in two windows to talk to yourself:", flush=True)
        for url in addresses_to_open(addresses):
            print(f"  {url}", flush=True)
        print(f"Messages are kept {kept}. Ctrl-C stops.", flush=True)

    if redis is not None and workers is not None:
        from wsframework.cli.supervising import run_workers
        from wsframework.cli.worker import Program

        os.environ[REDIS], os.environ[PREFIX] = redis, prefix
        program = Program(
            target="wsframework.cli.chat_worker:app",
            local_host=host,
            allow_host=allow_host or [],
            trusted_proxy=trusted_proxy or [],
            proxy_field=proxy_field,
            proxy_protocol=proxy_protocol,
            log_level=log_level,
            log_format=log_format,
        )
        run_workers(
            program,
            workers,
            host=host or None,
            port=port,
            unix_path=None,
            unix_mode=None,
            sockets=(),
            announce=announce,
        )
        return
    app.proxies = app.proxies.extended(trusted_proxy or (), proxy_field)
    with crashes_logged():
        app.run(
            host or None,
            port,
            proxy_protocol=proxy_protocol,
            allow_hosts=allow_host or (),
            on_listening=lambda server: announce(server.addresses),
        )


def _check_options(redis: str | None, workers: int | None, db: Path | None, no_history: bool) -> None:
    if redis is not None and (no_history or db is not None):
        raise ConfigurationError(
            f"--redis (or {REDIS}) excludes --db and --no-history: messages are kept in Redis"
        )
    if redis is None and workers not in (None, 1):
        raise ConfigurationError(
            f"--workers {workers}: the chat runs in one process, which has its names, its rooms and the file "
            "of its messages; give --redis URL, or leave --workers out"
        )
    if workers is not None and redis is not None and sys.platform == "win32":
        raise ConfigurationError("--workers: processes on Windows cannot share sockets in this way")
    if no_history and db is not None:
        raise ConfigurationError("--no-history and --db exclude each other: give one of them")
    if db is not None and not db.name:
        raise ConfigurationError(f"--db {db}: this is a directory; name a file")


def chat_on_redis(url: str, prefix: str) -> tuple[App, str]:
    """Return the App of a chat in Redis, and where that is, without a password.

    Raises:
        ConfigurationError: the URL is none, or the extra `redis` is not installed.
    """
    try:
        from wsframework.engines.redis import RedisEngine
    except ImportError as error:
        raise ConfigurationError(str(error)) from None
    app, engine = App(), RedisEngine(url, prefix=prefix)
    app.install(engine)
    app.install(Chat(engine=engine))
    return app, f"in {engine.address}"


def addresses_to_open(addresses: tuple[Address, ...]) -> list[str]:
    """Return http:// URLs for a server's addresses, those of this machine first.

    A browser cannot open the address of "every interface". It is replaced by `localhost`, and by this
    machine's address in its network.
    """
    urls: list[str] = []
    for address in addresses:
        families = _EVERYWHERE.get(address.host)
        hosts = [address.host] if families is None else ["localhost", *map(_own_address, families)]
        urls += [f"http://{Address(host, address.port)}/" for host in hosts if host]
    return list(dict.fromkeys(urls))


_EVERYWHERE = {"0.0.0.0": [socket.AF_INET], "::": [socket.AF_INET, socket.AF_INET6]}


def _own_address(family: socket.AddressFamily) -> str:
    """Return the address that the system uses to reach other machines, or an empty string."""
    far = (
        "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    )  # documentation addresses (RFC 5737, RFC 3849), which no machine has
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # chooses a route, sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return ""
