"""Options that several commands have, each declared once, and the values made of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import attrs
import typer

from wsframework.access_log import AccessLog
from wsframework.app import App
from wsframework.cli.logs import LogFormat, LogLevel
from wsframework.diagnostics.target import (
    Opening,
    parse_headers,
    parse_subprotocols,
    parse_target,
    tls_context,
)

__all__ = [
    "AllowHost",
    "Format",
    "Header",
    "Host",
    "Insecure",
    "Level",
    "MaxAge",
    "Origin",
    "Port",
    "ProxyField",
    "ProxyProtocol",
    "Subprotocol",
    "Timeout",
    "TrustedProxy",
    "Url",
    "adjust",
    "opening_of",
]

# Commands that serve

Host = Annotated[str, typer.Option(help="Address or name to listen on; '' for every interface.")]
"""Where to listen."""

Port = Annotated[int, typer.Option(help="TCP port; 0 lets the system choose.", min=0, max=65535)]
"""The TCP port to listen on."""

AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Answer to this host too, such as chat.example or '*.chat.example'; '*' for all. May be given "
        "several times. [default: the App's own hosts; where it names none, every host, but on a loopback "
        "address only localhost and its like]",
    ),
]
"""Hosts to answer to."""

TrustedProxy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NET",
        help="Read what this reverse proxy says of its clients: a network such as 10.0.0.0/8, an address, or "
        "'unix' for every peer on a unix socket. May be given several times. [default: those of the App]",
    ),
]
"""Proxies to trust."""

ProxyField = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Read this header field of trusted proxies: x-forwarded-for, x-forwarded-proto, "
        "x-forwarded-host, or forwarded. May be given several times. Name only what your proxies write or "
        "remove. [default: those of the App, else x-forwarded-for and x-forwarded-proto]",
    ),
]
"""The fields in which proxies are believed."""

ProxyProtocol = Annotated[
    bool,
    typer.Option(
        "--proxy-protocol",
        help="Take connections that begin with a header of the PROXY protocol, of trusted proxies only.",
    ),
]
"""Whether connections begin with a header of the PROXY protocol."""

MaxAge = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0.1,
        help="Close connections with 1012 when they have been open so long, give or take 10 %; clients then "
        "reconnect, perhaps to a newer server. [default: the App's own, which is no limit]",
        show_default=False,
    ),
]
"""How long connections may be open."""


def adjust(
    app: App,
    trusted_proxy: Iterable[str],
    proxy_field: Iterable[str] | None,
    max_age: float | None,
    *,
    access_log: bool,
) -> None:
    """Apply the options of `run` that add to what an App says itself."""
    app.proxies = app.proxies.extended(trusted_proxy, proxy_field)
    if max_age is not None:
        app.limits = attrs.evolve(app.limits, connection_age=max_age)
    if access_log:
        app.observe(AccessLog())


Level = Annotated[LogLevel, typer.Option(help="Log records of this level and above.")]
"""The lowest level that is logged."""

Format = Annotated[LogFormat, typer.Option(help="Log as text, or as one JSON object per line.")]
"""The form of the log."""

# Commands that connect

Url = Annotated[
    str, typer.Argument(metavar="URL", help="Such as ws://127.0.0.1:8000/chat.", show_default=False)
]
"""The server's URL."""

Subprotocol = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Offer this subprotocol; may be repeated.")
]
"""Subprotocols to offer."""

Header = Annotated[
    list[str] | None,
    typer.Option(metavar="'NAME: VALUE'", help="Send this header field; may be repeated."),
]
"""More header fields."""

Origin = Annotated[str | None, typer.Option(metavar="ORIGIN", help="Send this Origin.")]
"""The Origin field."""

Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long to wait for each answer.", min=0.001)
]
"""The limit of each wait for the server."""

Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check the server's certificate.")]
"""Whether to accept any certificate."""


def opening_of(
    url: str,
    subprotocol: list[str] | None,
    header: list[str] | None,
    origin: str | None,
    *,
    timeout: float,
    insecure: bool,
) -> Opening:
    """Return the opening handshake that these options ask for.

    Raises:
        ConfigurationError: one of them cannot be sent, or the URL is not a WebSocket URL.
    """
    target = parse_target(url)
    return Opening(
        target=target,
        tls=tls_context(insecure=insecure) if target.secure else None,
        subprotocols=parse_subprotocols(subprotocol or ()),
        headers=parse_headers(header or (), origin),
        timeout_seconds=timeout,
    )
