"""`wsframework run module:app`: serve an App until SIGINT or SIGTERM."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from wsframework.cli.importing import Target, load_app, split_target
from wsframework.cli.inherited import inherited_listeners, loopback_host
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
    adjust,
)
from wsframework.cli.tls import server_context
from wsframework.errors import ConfigurationError
from wsframework.request import Address
from wsframework.server.listeners import hosts_on_loopback
from wsframework.server.systemd import service_manager

__all__ = ["run"]

_OCTAL = re.compile("0?[0-7]{1,3}")


def run(
    options: typer.Context,
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
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log each plain HTTP request, at level info.")
    ] = False,
    log_level: Level = LogLevel.INFO,
    log_format: Format = LogFormat.TEXT,
    ssl_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serve TLS with this certificate chain (PEM).")
    ] = None,
    ssl_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate's private key, if not in the same file."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=256,
            help="Serve from N processes on one port, under a parent that replaces those that die or hang; "
            "0: one for each core. [default: one process, without a parent]",
            show_default=False,
        ),
    ] = None,
    admin: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="With --workers: the unix socket of `wsframework workers`. [default: a file of its own]",
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload", help="For development: restart when a Python file below the App's folder changes."
        ),
    ] = False,
    reload_dir: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Watch this folder too; may be given several times."),
    ] = None,
) -> None:
    """Serve an App until a signal stops it.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it gracefully: no new connections, Close 1001 to every client,
    and time for the handlers to finish. A second signal cuts this time short. A third one ends the process at
    once. With --workers, SIGHUP restarts the workers one after the other, unless a terminal has sent it, and
    SIGTTIN and SIGTTOU start one more and end one.

    Under systemd it takes the sockets of a socket unit, and reports to a service of Type=notify.

    Exit code: 0 after a signal, 1 when a lifespan or the server crashed (the last record is server.crashed),
    2 when it cannot start: a wrong argument, an App that cannot be imported, a port in use. 3 when a worker
    crashed before it served.
    """
    # First, so that what the module logs while it is imported has the same form.
    set_up_logging(log_level, log_format)
    service_manager()  # takes its variables, before the module may start processes
    sockets = inherited_listeners(options)
    local_host = loopback_host(sockets) if sockets else host if unix is None else None
    context = server_context(ssl_cert, ssl_key)
    mode = _mode(unix_mode, unix)
    if sys.platform == "win32" and (reload or workers is not None):
        option = "--reload" if reload else "--workers"
        raise ConfigurationError(f"{option}: processes on Windows cannot share sockets in this way")
    if admin is not None and workers is None:
        raise ConfigurationError("--admin needs --workers: it is the socket of a parent")
    watch = _watcher(target, workers, reload_dir) if _reloads(reload, reload_dir) else None
    if workers is not None or watch is not None:
        split_target(target)  # a mistake that needs no worker to be found
        from wsframework.cli.supervising import run_workers
        from wsframework.cli.worker import Program

        program = Program(
            target=target,
            local_host=local_host,
            allow_host=allow_host or [],
            trusted_proxy=trusted_proxy or [],
            proxy_field=proxy_field,
            proxy_protocol=proxy_protocol,
            max_age=max_age,
            access_log=access_log,
            log_level=log_level,
            log_format=log_format,
            ssl_cert=None if ssl_cert is None else str(ssl_cert),
            ssl_key=None if ssl_key is None else str(ssl_key),
            reload=reload,
        )
        run_workers(
            program,
            1 if workers is None else workers,
            host=host or None,
            port=port,
            unix_path=unix,
            unix_mode=mode,
            sockets=sockets,
            announce=functools.partial(_announce, secure=context is not None),
            admin=admin,
            watch=watch,
        )
        return
    app = load_app(target)
    adjust(app, trusted_proxy or (), proxy_field, max_age, access_log=access_log)
    # For those that listen themselves, `app.run` does the same.
    local = hosts_on_loopback(local_host) if sockets and app.allowed_hosts is None else ()
    with crashes_logged():
        app.run(
            host or None,
            port,
            ssl=context,
            unix_path=unix,
            unix_mode=mode,
            sockets=sockets or None,
            proxy_protocol=proxy_protocol,
            allow_hosts=(*local, *(allow_host or ())),
            on_listening=lambda server: _announce(server.addresses, secure=server.secure),
        )


def _reloads(reload: bool, folders: list[Path] | None) -> bool:
    if folders and not reload:
        raise ConfigurationError("--reload-dir needs --reload")
    return reload


def _watcher(target: str, workers: int | None, more: list[Path] | None) -> Callable[..., Awaitable[None]]:
    if workers not in (None, 1):
        raise ConfigurationError("--reload is for development, with one worker: leave --workers out")
    try:
        from wsframework.cli.reloading import watcher
    except ModuleNotFoundError:
        raise ConfigurationError("--reload needs watchfiles: pip install watchfiles") from None
    return watcher(target, more or [])


def _mode(text: str | None, unix: str | None) -> int | None:
    if text is None:
        return None
    if unix is None:
        raise ConfigurationError("--unix-mode needs --unix, which names the socket")
    if not _OCTAL.fullmatch(text):
        raise ConfigurationError(f"--unix-mode {text}: write it in octal, such as 660 or 600")
    return int(text, 8)


def _announce(addresses: tuple[Address, ...], *, secure: bool) -> None:
    scheme = "wss" if secure else "ws"
    where = [
        f"the unix socket {address}" if address.port is None else f"{scheme}://{address}"
        for address in addresses
    ]
    try:
        # Flushed, because a program that reads it from a pipe waits for this line.
        print(f"Listening on {', '.join(where)} (Ctrl-C stops)", flush=True)
    except OSError:
        # Whoever read it has gone, which is no reason not to serve. What is left in the buffer goes nowhere.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
