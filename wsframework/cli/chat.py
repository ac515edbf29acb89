"""`wsframework chat`: serve the chat and its page."""

from __future__ import annotations

import socket
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
from wsframework.server import Server

__all__ = ["addresses_to_open", "chat"]


def chat(
    host: Host = "127.0.0.1",
    port: Port = 3000,
    db: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where messages are kept. [default: chat.db]")
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Keep messages in memory only, until the server stops.")
    ] = False,
    allow_host: AllowHost = None,
    trusted_proxy: TrustedProxy = None,
    proxy_field: ProxyField = None,
    proxy_protocol: ProxyProtocol = False,
    workers: Annotated[int, typer.Option(min=0, hidden=True, help="More than 1 is refused.")] = 1,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
) -> None:
    """Serve a chat: open it in two browser windows and talk.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it gracefully. Messages are kept for the next start.
    """
    if workers != 1:
        raise ConfigurationError(
            f"--workers {workers}: the chat runs in one process, which has its names, its rooms and the file "
            "of its messages; leave --workers out"
        )
    if no_history and db is not None:
        raise ConfigurationError("--no-history and --db exclude each other: give one of them")
    if db is not None and not db.name:
        raise ConfigurationError(f"--db {db}: this is a directory; name a file")
    set_up_logging(log_level, log_format)
    history = None if no_history else db or Path("chat.db")
    app = App()
    app.proxies = app.proxies.extended(trusted_proxy or (), proxy_field)
    app.install(Chat(history=history))

    def announce(server: Server) -> None:
        kept = "in memory only" if history is None else f"in {history}"
        # Flushed, because a program that reads them from a pipe waits for these lines.
        print("Open the chat in a browser, in two windows to talk to yourself:", flush=True)
        for url in addresses_to_open(server.addresses):
            print(f"  {url}", flush=True)
        print(f"Messages are kept {kept}. Ctrl-C stops.", flush=True)

    with crashes_logged():
        app.run(
            host or None,
            port,
            proxy_protocol=proxy_protocol,
            allow_hosts=allow_host or (),
            on_listening=announce,
        )


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
