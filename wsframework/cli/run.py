"""`wsframework run module:app`: serve an App until SIGINT or SIGTERM."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from wsframework.cli.importing import Target, load_app
from wsframework.cli.logs import LogFormat, LogLevel, crashes_logged, set_up_logging
from wsframework.cli.options import (
    AllowHost,
    Format,
    Host,
    Level,
    MaxAge,
    Port,
    ProxyField,
    ProxyProtocol,
    TrustedProxy,
    aged,
)
from wsframework.errors import ConfigurationError
from wsframework.server import Server

__all__ = ["run"]

_OCTAL = re.compile("0?[0-7]{1,3}")


def run(
    target: Target,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    unix: Annotated[
        str | None, typer.Option(metavar="PATH", help="Listen on a unix socket instead of TCP.")
    ] = None,
    unix_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="The unix socket's permissions, in octal, such as 660."),
    ] = None,
    allow_host: AllowHost = None,
    trusted_proxy: TrustedProxy = None,
    proxy_field: ProxyField = None,
    proxy_protocol: ProxyProtocol = False,
    max_age: MaxAge = None,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
    ssl_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve TLS with this certificate chain (PEM).")
    ] = None,
    ssl_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate's private key, if not in the same file."),
    ] = None,
) -> None:
    """Serve an App until a signal stops it.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it gracefully: no new connections, Close 1001 to every client,
    and time for the handlers to finish. A second signal cuts this time short. A third one ends the process at
    once.

    Exit code: 0 after a signal, 1 when a lifespan or the server crashed (the last record is server.crashed),
    2 when it cannot start: a wrong argument, an App that cannot be imported, a port in use.
    """
    # First, so that what the module logs while it is imported has the same form.
    set_up_logging(log_level, log_format)
    context = _tls(ssl_cert, ssl_key)
    mode = _mode(unix_mode, unix)
    app = load_app(target)
    app.proxies = app.proxies.extended(trusted_proxy or (), proxy_field)
    app.limits = aged(app.limits, max_age)
    with crashes_logged():
        app.run(
            host or None,
            port,
            ssl=context,
            unix_path=unix,
            unix_mode=mode,
            proxy_protocol=proxy_protocol,
            allow_hosts=allow_host or (),
            on_listening=_announce,
        )


def _mode(text: str | None, unix: str | None) -> int | None:
    if text is None:
        return None
    if unix is None:
        raise ConfigurationError("--unix-mode needs --unix, which names the socket")
    if not _OCTAL.fullmatch(text):
        raise ConfigurationError(f"--unix-mode {text}: write it in octal, such as 660 or 600")
    return int(text, 8)


def _announce(server: Server) -> None:
    where = server.urls or [f"the unix socket {address}" for address in server.addresses]
    # Flushed, because a program that reads it from a pipe waits for this line.
    print(f"Listening on {', '.join(where)} (Ctrl-C stops)", flush=True)


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise ConfigurationError("--ssl-key needs --ssl-cert, the certificate of the key")
        return None
    for option, file in (("--ssl-cert", cert), ("--ssl-key", key)):
        if file is not None and not file.is_file():
            raise ConfigurationError(f"{option} {file}: there is no such file")

    def ask_for_password() -> NoReturn:
        # A program could not restart a server that waits for a password.
        raise ConfigurationError(f"{key or cert}: the private key is encrypted; decrypt it (openssl pkey)")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = cert if key is None else f"{cert} and {key}"
    try:
        context.load_cert_chain(cert, key, ask_for_password)
    except ssl.SSLError as error:
        # For most errors in a file OpenSSL gives no reason.
        why = (error.reason or "").replace("_", " ").lower()
        why = why or "not PEM, or no certificate or private key in it"
        raise ConfigurationError(f"cannot serve TLS with {files}: {why}") from None
    except OSError as error:
        raise ConfigurationError(f"cannot serve TLS with {files}: {error}") from None
    return context
